"""The scripts of the limiter as typed functions, one for each, and the calls that make up a decision.

The order of KEYS and ARGV is written here and in the scripts' headers, and nowhere else.
"""

from __future__ import annotations

import asyncio
import secrets
import struct
from collections.abc import Awaitable, Callable, Sequence
from enum import IntEnum
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

from ..stores.redis.events import get_logger
from ..stores.redis.link import Link, RedisReplyError, RedisUnavailable
from ..stores.redis.protocol import ScriptCall
from ..stores.redis.scripts import Script, load_script
from .calendar import wall_clock
from .policies import (
    MAX_CHARGES,
    Algorithm,
    Charge,
    Decision,
    PreparedCharges,
    Verdict,
    block_key,
    new_verdict,
    pages_key,
    record_key,
    state_key,
)

log = get_logger(__name__)

# A lease is an entry of a log: it lives for a window at the most, and a refund ends it.
_ALGORITHM_CODES: Final[dict[Algorithm, int]] = {
    "sliding_window": 0,
    "token_bucket": 1,
    "concurrency": 0,
    "calendar": 2,
}
_CHARGE: Final = struct.Struct(">BIHIIIB")  # '>BI4I6I4I4B' in Lua; six bytes are two and four here.
_ANSWER: Final = struct.Struct(">BIqq")  # '>BI4i8i8' in Lua.
# How much longer than it is needed a state is kept: Redis expires keys by a coarser clock than the scripts read.
KEPT_LONGER_MS: Final = 1000


class ScriptRunner(Protocol):
    """What runs a script: a `RedisLink`, or a test's."""

    async def run_script(
        self,
        script: Script,
        keys: Sequence[bytes | str],
        args: Sequence[bytes | str | int | float],
        *,
        deadline_ms: float | None = None,
    ) -> Any:
        """The script's reply; see RedisLink."""


class ChargeState(IntEnum):
    """The code of a script's answer to one charge."""

    DENIED = 0  # No room at present.
    FITS = 1  # Charged, if every other enforced charge fits too.
    TOO_DEAR = 2  # The cost is above the limit: it will never fit.
    BLOCKED = 3  # An operator has blocked the subject.


class Answers(NamedTuple):
    """A script's answer to a request.

    Args:
        allowed: whether the request is.
        rows: the answer to each charge in order, as plain numbers: state (`ChargeState`), units left after the
            decision, microseconds until more units are free (0 if none are in use), and microseconds until this cost
            fits (0 if it does, -1 if it never will).
    """

    allowed: bool
    rows: tuple[tuple[int, int, int, int], ...]


# At half the cost of calling the class.
_new_answers: Final[Callable[[tuple[object, ...]], Answers]] = partial(tuple.__new__, Answers)


async def decide_charges(
    runner: ScriptRunner,
    *,
    charges: Sequence[Charge],
    log_entries: int,
    request_id: str | None = None,
    keep_ms: int = 0,
    deadline_ms: float | None = None,
    clock: Callable[[], float] = wall_clock,
) -> Answers:
    """Check every charge, then charge all or none.

    Args:
        runner: the link to Redis.
        charges: of one subject if Redis is a Cluster; each counted under a key of its own.
        log_entries: how long a window's log grows before it becomes a ring.
        request_id: decided once; a repetition within `keep_ms` gets the first answer and charges nothing.
        keep_ms: how long the answer to a request id is kept, in milliseconds.
        deadline_ms: of the call.
        clock: returns seconds since 1970, for the periods of calendars; where Redis's differs, that decides.
    """
    keys, args = _operands(charges, log_entries, clock())
    if request_id is not None:
        keys.append(record_key(charges, request_id))
        args.append(keep_ms)
    reply = await runner.run_script(load_script("decide_charges"), keys, args, deadline_ms=deadline_ms)
    return read_answers(reply)


def prepare_decision(charges: PreparedCharges, *, log_entries: int) -> ScriptCall:
    """Return the call that `decide_charges` makes without a request id, made once; `read_answers` reads its reply."""
    known = charges.call
    if (
        known is not None
        and known[0] == log_entries
        and not (charges.calendars and wall_clock() >= charges.turns_at)
    ):
        return known[1]
    now = wall_clock()
    charges.turns_at = min([calendar.bounds(now)[1] for calendar in charges.calendars], default=0.0)
    call = ScriptCall(load_script("decide_charges"), *_operands(charges, log_entries, now))
    charges.call = (log_entries, call)
    return call


async def peek_charges(
    runner: ScriptRunner,
    *,
    charges: Sequence[Charge],
    deadline_ms: float | None = None,
    clock: Callable[[], float] = wall_clock,
) -> Answers:
    """Return what `decide_charges` would, without charging; the arguments mean the same."""
    keys, args = _operands(charges, 0, clock())
    reply = await runner.run_script(load_script("peek_charges"), keys, args, deadline_ms=deadline_ms)
    return read_answers(reply)


async def charge_unbilled(
    runner: ScriptRunner,
    *,
    charges: Sequence[tuple[Charge, int]],
    log_entries: int,
    deadline_ms: float | None = None,
) -> int:
    """Charge what was admitted while Redis was down.

    Args:
        runner: the link to Redis.
        charges: each with its age in microseconds, oldest first; of one subject if Redis is a Cluster.
        log_entries: as for `decide_charges`.
        deadline_ms: of the call.

    Returns:
        the number of charges of which something still counts.
    """
    args = [log_entries]
    for charge, age_us in charges:
        args += [*_rule(charge), charge.cost, age_us]
    keys = [key_of(charge) for key_of in (state_key, pages_key) for charge, _ in charges]
    reply: int = await runner.run_script(load_script("charge_unbilled"), keys, args, deadline_ms=deadline_ms)
    return reply


async def refund_charges(
    runner: ScriptRunner,
    *,
    charges: Sequence[Charge],
    request_id: str,
    costs: Sequence[int | None] | None = None,
    log_entries: int = 1024,
    deadline_ms: float | None = None,
    clock: Callable[[], float] = wall_clock,
) -> tuple[int, ...]:
    """Take back what a decision with this request id has charged, or settle it at other costs; once.

    Args:
        runner: the link to Redis.
        charges: those of the decision, in its order.
        request_id: of the decision.
        costs: the units that stay charged, for each charge; None: none of any. A cost above what was charged takes what
            is left of the limit at the most. None for one charge leaves it for another call.
        log_entries: as for `decide_charges`.
        deadline_ms: of the call.
        clock: as for `decide_charges`.

    Returns:
        the units given back for each charge, below 0 where more was charged; empty if the request id is unknown, or was
        refunded or settled before.
    """
    keys = [*map(state_key, charges), *map(pages_key, charges), record_key(charges, request_id)]
    args, now = [log_entries], clock()
    for charge, cost in zip(charges, costs or [0] * len(charges), strict=True):
        policy = charge.policy
        window = policy.window_ms if policy.calendar is None else policy.calendar.packed(now)
        args += [policy.limit, window, -1 if cost is None else cost]
    reply: list[int] = await runner.run_script(
        load_script("refund_charges"), keys, args, deadline_ms=deadline_ms
    )
    return tuple(reply)


def _operands(
    charges: Sequence[Charge], log_entries: int, now: float
) -> tuple[list[bytes], list[bytes | int]]:
    """Return KEYS (states, pages and blocks) and ARGV (the packed charges). 0 entries: nothing is written."""
    keys = [key_of(charge) for key_of in (state_key, pages_key) for charge in charges]
    packed = []
    blocks: dict[str, int] = {}
    for charge in charges:
        policy = charge.policy
        block = blocks.get(charge.subject)
        if block is None:
            keys.append(block_key(charge.subject))
            block = blocks[charge.subject] = len(keys)
        rule = 2 * _ALGORITHM_CODES[policy.algorithm] + policy.shadow
        window = policy.window_ms * 1000 if policy.calendar is None else policy.calendar.packed(now)
        high, low = divmod(window, 1 << 32)
        packed.append(_CHARGE.pack(rule, policy.limit, high, low, charge.cost, log_entries, block))
    return keys, [b"".join(packed)]


def _rule(charge: Charge) -> tuple[int, int, int]:
    policy = charge.policy
    window = policy.window_ms if policy.calendar is None else policy.calendar.packed(wall_clock())
    return _ALGORITHM_CODES[policy.algorithm], policy.limit, window


def read_answers(reply: bytes) -> Answers:
    """Return the answers in a script's packed reply."""
    return _new_answers((reply[0] == 1, tuple(_ANSWER.iter_unpack(reply[1:]))))


class Calls:
    """The limiter's scripts, all or nothing even where one call can't be.

    A request is one call. On a Cluster it is one for each of its subjects, whose keys live in different slots.

    Args:
        link: to Redis.
        deadline_ms: of each call.
        log_entries: admissions that a window remembers one by one.
        keep_ms: how long the decision on a request id is remembered, milliseconds.
    """

    def __init__(self, link: Link, *, deadline_ms: float, log_entries: int, keep_ms: int) -> None:
        self._link = link
        self._deadline_ms = deadline_ms
        self._log_entries = log_entries
        self._keep_ms = keep_ms
        self._refunds: set[asyncio.Task[None]] = set()

    def begin(self, charges: PreparedCharges) -> Awaitable[Any] | None:
        """Make all charges without a request id, or none, where one call to a server that has the script does it.

        Returns:
            the reply for `read_answers`, once it is awaited, with the same errors as `decide`, and `NOSCRIPT`; None
            where it takes `decide`.
        """
        if not self._link.is_cluster or charges.one_subject:
            call = prepare_decision(charges, log_entries=self._log_entries)
            return self._link.begin(call, deadline_ms=self._deadline_ms)
        return None

    async def decide(
        self, charges: PreparedCharges, request_id: str | None, *, spent_ms: float = 0.0
    ) -> Answers:
        """Make all charges, or none.

        Args:
            charges: the charges.
            request_id: as for `decide_charges`.
            spent_ms: of the time that Redis may take; a fifth of it is left at least.

        With several calls, what one has charged is given back when another refuses. Until then, for the time of a
        round trip, others may be refused because of it, never admitted.

        Raises:
            RedisUnavailable: Redis, or one of its nodes, did not answer in time.
            RedisReplyError: a script failed.
        """
        if request_id is None and (charges.one_subject or not self._link.is_cluster):
            call = prepare_decision(charges, log_entries=self._log_entries)
            deadline_ms = max(self._deadline_ms / 5, self._deadline_ms - spent_ms)
            return read_answers(await self._link.run(call, deadline_ms=deadline_ms))
        decide = partial(
            decide_charges,
            self._link,
            log_entries=self._log_entries,
            keep_ms=max(self._keep_ms, charges.lease_ms),
            deadline_ms=self._deadline_ms,
            request_id=request_id or secrets.token_hex(16),
        )
        parts = self._parts(charges)
        if len(parts) == 1:
            return await decide(charges=charges)
        results = await asyncio.gather(*(decide(charges=part) for part in parts), return_exceptions=True)
        answers = [result for result in results if isinstance(result, Answers)]
        if len(answers) < len(parts) or not all(answer.allowed for answer in answers):
            for part, result in zip(parts, results, strict=True):
                if isinstance(result, Answers) and result.allowed:
                    self._give_back(part, decide.keywords["request_id"])
        errors = [result for result in results if isinstance(result, BaseException)]
        if errors:
            # The one whose outcome is unknown decides what may be done about it.
            raise max(errors, key=lambda error: getattr(error, "outcome_unknown", True))
        return _joined(charges, parts, answers)

    async def peek(self, charges: Sequence[Charge]) -> Answers:
        """Return what `decide` would, without charging, for any number of charges; it raises the same."""
        parts = [
            part[first : first + MAX_CHARGES]
            for part in self._parts(charges)
            for first in range(0, len(part), MAX_CHARGES)
        ]
        calls = [peek_charges(self._link, charges=part, deadline_ms=self._deadline_ms) for part in parts]
        return _joined(charges, parts, await asyncio.gather(*calls))

    async def refund(
        self, charges: Sequence[Charge], request_id: str, costs: Sequence[int | None] | None = None
    ) -> tuple[int, ...]:
        """Take back what `decide` has charged for a request id, or settle it at other costs, once.

        Returns:
            the units given back for each charge, below 0 where more was charged; 0 everywhere if the id is unknown, or
            this was done before.
        """
        costs = costs or [0] * len(charges)
        parts = self._parts(charges)
        if len(parts) == 1:
            return await self._refund(charges, request_id, costs)
        stays = dict(zip(charges, costs, strict=True))
        given = await asyncio.gather(
            *(self._refund(part, request_id, [stays[charge] for charge in part]) for part in parts)
        )
        units = {
            charge: back
            for part, part_units in zip(parts, given, strict=True)
            for charge, back in zip(part, part_units, strict=True)
        }
        return tuple(units[charge] for charge in charges)

    async def charge_unbilled(self, charges: Sequence[tuple[Charge, int]]) -> None:
        """Charge what was admitted while Redis was down, of one subject, with ages in microseconds."""
        await charge_unbilled(
            self._link, charges=charges, log_entries=self._log_entries, deadline_ms=self._deadline_ms
        )

    async def close(self) -> None:
        """Wait for refunds in flight; each ends by its deadline."""
        if self._refunds:
            await asyncio.wait(self._refunds)

    async def _refund(
        self, charges: Sequence[Charge], request_id: str, costs: Sequence[int | None]
    ) -> tuple[int, ...]:
        units = await refund_charges(
            self._link,
            charges=charges,
            request_id=request_id,
            costs=costs,
            log_entries=self._log_entries,
            deadline_ms=self._deadline_ms,
        )
        return units or (0,) * len(charges)

    def _parts(self, charges: Sequence[Charge]) -> list[Sequence[Charge]]:
        """Return the charges of each call."""
        if not self._link.is_cluster or len(charges) == 1:
            return [charges]
        subjects = dict.fromkeys(charge.subject for charge in charges)
        return [[charge for charge in charges if charge.subject == subject] for subject in subjects]

    def _give_back(self, charges: Sequence[Charge], request_id: str) -> None:
        task = asyncio.get_running_loop().create_task(self._refund_quietly(charges, request_id))
        self._refunds.add(task)
        task.add_done_callback(self._refunds.discard)

    async def _refund_quietly(self, charges: Sequence[Charge], request_id: str) -> None:
        try:
            await self._refund(charges, request_id, [0] * len(charges))
        except (RedisUnavailable, RedisReplyError) as error:
            log.warning("rate_limit.refund_lost", error=str(error))


def _joined(
    charges: Sequence[Charge], parts: Sequence[Sequence[Charge]], answers: Sequence[Answers]
) -> Answers:
    """Return the answers of several calls in the order of the charges."""
    by_charge = {
        charge: row
        for part, answer in zip(parts, answers, strict=True)
        for charge, row in zip(part, answer.rows, strict=True)
    }
    return Answers(all(answer.allowed for answer in answers), tuple(by_charge[charge] for charge in charges))


# A client that has too much in flight is to try again so soon.
AT_ONCE_WAIT_MS = 1000


def soon(decision: Decision) -> Decision:
    """Return a refusal whose wait for a lease is short: others end with their requests, long before they expire."""
    return Decision(decision.allowed, tuple(map(_soon, decision.verdicts)), decision.source)


def _soon(verdict: Verdict) -> Verdict:
    if verdict.allowed or verdict.policy.algorithm != "concurrency":
        return verdict
    return verdict._replace(
        next_release_ms=min(verdict.next_release_ms, AT_ONCE_WAIT_MS),
        wait_ms=min(verdict.wait_ms, AT_ONCE_WAIT_MS),
    )


def decision_of(charges: Sequence[Charge], answers: Answers) -> Decision:
    """Return the decision that a script has made."""
    allowed, rows = answers
    verdicts = []
    for charge, (state, remaining, release_us, wait_us) in zip(charges, rows):  # noqa: B905 - as many, and cheaper
        policy = charge.policy
        verdicts.append(
            new_verdict(
                (
                    policy,
                    charge.group,
                    charge.subject,
                    state == _FITS,
                    policy.limit,
                    remaining,
                    (release_us + 999) // 1000,
                    (wait_us + 999) // 1000 if wait_us > 0 else 0,
                    state != _TOO_DEAR,
                    policy.shadow,
                )
            )
        )
    return Decision(allowed, tuple(verdicts), "redis")


_FITS, _TOO_DEAR = int(ChargeState.FITS), int(ChargeState.TOO_DEAR)
