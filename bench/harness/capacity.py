"""How large a deployment has to be for a number of requests a second, computed from what one request costs.

Every part of it is a division: a part that spends `c` microseconds of a core on a request, on cores that may be busy
for a share `U` of the time, needs `R * c / (U * 1e6)` cores for `R` requests a second. Connections are Little's law:
as many are busy as requests arrive while one request holds its own. What that assumes is in docs/scaling.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from bench.harness.deployment import UTILISATION

# What one PostgreSQL primary, and one connection pooler's process, can have.
PRIMARY_CORES: Final = 64
# A student who studies sends a request about so often: an evening's rounds, at a reader's pace.
SECONDS_BETWEEN_REQUESTS: Final = 5.0
WORKERS_A_DYNO: Final = 4
DAY_SECONDS: Final = 86_400


@dataclass(frozen=True, slots=True)
class Cost:
    """What a request costs, on average over an evening; times are of processors, in microseconds.

    Attributes:
        worker_us, redis_us, postgres_us, pooler_us: by the process that spends it; Redis's over all masters.
        database_ms: how long its statements take where nothing else runs: for so long it holds a connection.
        commits: transactions of PostgreSQL.
        wal_bytes: that PostgreSQL writes to its log of changes.
        log_bytes: of the service's log.
        redis_bytes: between workers and Redis, both ways.
        client_bytes: of the response, head and body, compressed as browsers ask for it.
    """

    worker_us: float
    redis_us: float
    postgres_us: float
    pooler_us: float
    database_ms: float
    commits: float
    wal_bytes: float
    log_bytes: float
    redis_bytes: float
    client_bytes: float


@dataclass(frozen=True, slots=True)
class Memory:
    """What a client that is active costs Redis, in bytes: its limits, and its overlays in the cache."""

    limiter_bytes: float
    cache_bytes: float


@dataclass(frozen=True, slots=True)
class Capacity:
    """What so many requests a second need.

    Attributes:
        per_second: requests.
        cost: of one of them.
        memory: of a client.
    """

    per_second: float
    cost: Cost
    memory: Memory

    @property
    def workers(self) -> int:
        """Worker processes, each with a core of its own."""
        return self._cores(self.cost.worker_us)

    @property
    def dynos(self) -> int:
        """Machines of four workers."""
        return math.ceil(self.workers / WORKERS_A_DYNO)

    @property
    def masters(self) -> int:
        """Redis masters: one executes commands on one core."""
        return self._cores(self.cost.redis_us)

    @property
    def poolers(self) -> int:
        """Processes of PgBouncer, each on one core."""
        return self._cores(self.cost.pooler_us)

    @property
    def postgres_cores(self) -> int:
        """Cores of PostgreSQL, all of them for writing and reading."""
        return self._cores(self.cost.postgres_us)

    @property
    def installations(self) -> int:
        """How many primaries that is: the service uses one, so more of them are installations of their own."""
        return math.ceil(self.postgres_cores / PRIMARY_CORES)

    @property
    def busy_connections(self) -> int:
        """Connections to PostgreSQL that are in use at a time, over all installations."""
        return math.ceil(self.per_second * self.cost.database_ms / 1000)

    @property
    def server_connections(self) -> int:
        """Connections that a primary should allow its poolers: so many that a share of them is free."""
        return math.ceil(self.busy_connections / self.installations / UTILISATION)

    @property
    def pool_size(self) -> int:
        """DATABASE_POOL_SIZE: twice what a worker has in use, and two at the least, for requests come in bursts."""
        return max(2, math.ceil(2 * self.busy_connections / self.workers))

    @property
    def client_connections(self) -> int:
        """Connections that the poolers of an installation get from its workers, at most."""
        return math.ceil(self.workers * self.pool_size / self.installations)

    @property
    def clients(self) -> float:
        """Students who study at the same time."""
        return self.per_second * SECONDS_BETWEEN_REQUESTS

    @property
    def memory_gb(self) -> float:
        """Of all masters together."""
        return self.clients * (self.memory.limiter_bytes + self.memory.cache_bytes) / 1e9

    @property
    def log_gb_a_day(self) -> float:
        """Of log lines, not compressed."""
        return self.per_second * self.cost.log_bytes * DAY_SECONDS / 1e9

    @property
    def wal_mb_a_second(self) -> float:
        """That PostgreSQL writes to its log of changes."""
        return self.per_second * self.cost.wal_bytes / 1e6

    @property
    def redis_mbit_a_second(self) -> float:
        """Between workers and Redis."""
        return self.per_second * self.cost.redis_bytes * 8 / 1e6

    @property
    def client_mbit_a_second(self) -> float:
        """To clients."""
        return self.per_second * self.cost.client_bytes * 8 / 1e6

    def _cores(self, microseconds: float) -> int:
        return math.ceil(self.per_second * microseconds / (UTILISATION * 1e6))


def carried_by_core(microseconds: float) -> float:
    """Requests a second that one core has time for."""
    return UTILISATION * 1e6 / microseconds
