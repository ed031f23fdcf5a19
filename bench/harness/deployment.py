"""What a deployment can carry, computed from what a request costs a worker's core and Redis's."""

from __future__ import annotations

from dataclasses import dataclass

# A core that is busier than this lets requests wait: the tail of a queue grows with 1 / (1 - utilisation).
UTILISATION = 0.7


@dataclass(frozen=True, slots=True)
class Deployment:
    """So many dynos, with a core each, and so many Redis masters.

    Attributes:
        worker_us: processor time of a worker for a request, microseconds.
        redis_us: processor time of Redis for a request, microseconds.
    """

    dynos: int
    masters: int
    worker_us: float
    redis_us: float

    @property
    def workers_carry(self) -> float:
        """Requests a second that the dynos have time for."""
        return self.dynos * UTILISATION * 1e6 / self.worker_us

    @property
    def redis_carries(self) -> float:
        """Requests a second that Redis has time for, if clients spread evenly over the masters."""
        return self.masters * UTILISATION * 1e6 / self.redis_us

    @property
    def carries(self) -> float:
        """Requests a second: whichever ends first."""
        return min(self.workers_carry, self.redis_carries)

    @property
    def limit(self) -> str:
        """Which that is."""
        return "Redis" if self.redis_carries < self.workers_carry else "the dynos"


def dynos_at_the_limit(worker_us: float, redis_us: float, masters: int) -> float:
    """How many dynos keep so many masters as busy as themselves: more of them carry no more."""
    return masters * worker_us / redis_us
