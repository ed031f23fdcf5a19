"""A request's charges with everything that deciding them needs: worked out once for a client and group of routes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Self

from server.ratelimit.keys import state_key
from server.ratelimit.policies import Charge
from server.stores.redis.commands import ScriptCall

MAX_CHARGES: Final = 64


class PreparedCharges(tuple[Charge, ...]):  # noqa: SLOT001 - a tuple can't have slots
    """Charges that are decided again and again.

    Attributes:
        keys: where each is counted.
        one_subject: whether all are of one subject.
        seeds: the charges whose use the in-process limiter wants to know of, for the time without Redis.
        call: the script call that decides them without a request id, once it has been made, and the length of logs it
            was made for.

    Raises:
        ValueError: two charges would be counted as one, or there are more than `MAX_CHARGES`.
    """

    keys: tuple[bytes, ...]
    one_subject: bool
    seeds: tuple[int, ...]
    call: tuple[int, ScriptCall] | None

    def __new__(cls, charges: Iterable[Charge]) -> Self:
        """Prepare charges."""
        self = super().__new__(cls, charges)
        if len(self) > MAX_CHARGES:
            raise ValueError(f"a request has at most {MAX_CHARGES} charges, not {len(self)}")
        self.keys = tuple(map(state_key, self))
        if len(set(self.keys)) < len(self.keys):
            raise ValueError("two charges have the same policy, group and subject: make them one")
        self.one_subject = len({charge.subject for charge in self}) <= 1
        self.seeds = tuple(index for index, charge in enumerate(self) if charge.policy.on_failure == "local")
        self.call = None
        return self


def prepared(charges: Sequence[Charge]) -> PreparedCharges:
    """The charges prepared, unless they are already.

    Raises:
        ValueError: two charges would be counted as one, or there are more than `MAX_CHARGES`.
    """
    return charges if type(charges) is PreparedCharges else PreparedCharges(charges)
