"""Decides without Redis while it is down, by each policy's failure mode: open, closed or local.

A breaker for each server stops the asking after repeated failures and probes for recovery; a Redis Cluster may be
down in parts. Admissions that Redis has certainly not counted are unbilled: they are charged when it is back.
What the server may lose by eviction or a restart is reported once, at the start.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from functools import partial
from time import monotonic

from ..bounded_dict import BoundedDict
from ..stores.redis.events import get_logger
from ..stores.redis.link import Link, RedisReplyError, RedisUnavailable
from .policies import (
    Charge,
    Decision,
    OnFailure,
    PreparedCharges,
    Source,
    Verdict,
    probe_key,
    state_key,
)
from .refusals import ceil_ms
from .scripts import Calls

log = get_logger(__name__)

CLOSED_WAIT_MS = 1000

# A client's admissions within this part of a window, counted from the first of them, are one entry at the time of
# the last. It bounds the memory of a client with a high limit. A unit comes back at most one part late, never early.
MERGED_PARTS = 64

FIRST_PROBE_SECONDS = 0.1
LONGEST_PROBE_SECONDS = 1.0
FAILURES_TO_OPEN = 5
PROBE_KEPT_MS = 1000

# Failures that say nothing about the server: this process has more to ask than it may have unanswered, or the keys of
# one slot of a Cluster are on their way to another server.
_NOT_THE_SERVERS = frozenset({"backlog", "tryagain"})


@dataclass(slots=True)
class _Window:
    """One client's admissions by this process under one policy: [first, last, units] by monotonic seconds."""

    entries: deque[tuple[float, float, int]] = field(default_factory=deque)
    used: int = 0

    def expire(self, before: float) -> None:
        while self.entries and self.entries[0][1] <= before:
            self.used -= self.entries.popleft()[2]

    def add(self, at: float, units: int, *, merged_seconds: float) -> None:
        self.used += units
        if self.entries and at - self.entries[-1][0] < merged_seconds:
            first, _, before = self.entries.pop()
            self.entries.append((first, at, before + units))
        else:
            self.entries.append((at, at, units))

    def remove(self, units: int) -> None:
        """Give units back; the oldest go, so that what stays does so for no shorter time."""
        while self.entries and units > 0:
            first, last, held = self.entries.popleft()
            given = min(held, units)
            self.used, units = self.used - given, units - given
            if held > given:
                self.entries.appendleft((first, last, held - given))

    def since(self, instant: float) -> Iterator[tuple[float, int]]:
        return ((last, units) for _, last, units in self.entries if last > instant)


class FailureModes:
    """Decides in memory, by each policy's failure mode.

    An `open` policy admits up to its limit in this process, a `closed` one nothing. A `local` policy's limit is
    divided by the live workers, and starts from the use that Redis has last reported. So all processes together admit
    no more than the limit, unless there are more workers than units: one unit a worker is the least.

    Args:
        workers: how many processes share the limits at the moment.
        max_clients: how many clients are counted; the one unseen for longest is given up first.
    """

    def __init__(self, *, workers: Callable[[], int] = lambda: 1, max_clients: int = 10_000) -> None:
        self._workers = workers
        self._windows: BoundedDict[bytes, _Window] = BoundedDict(max_clients)
        self._reported: BoundedDict[bytes, tuple[float, int]] = BoundedDict(max_clients)

    def report_use(self, charge: Charge, remaining: int, now: float) -> None:
        """Keep what Redis reports a `local` policy has left: counting starts there when Redis is down."""
        self._reported[state_key(charge)] = (now, charge.policy.limit - remaining)

    def decide(self, charges: Sequence[Charge], now: float) -> Decision:
        """Return the decision at `now` (monotonic seconds): all charges are made, or none."""
        verdicts = tuple(self._verdict(charge, now) for charge in charges)
        enforced = [
            (charge, verdict) for charge, verdict in zip(charges, verdicts, strict=True) if not verdict.shadow
        ]
        refusing = {charge.policy.on_failure for charge, verdict in enforced if not verdict.allowed}
        if refusing:
            return Decision(False, verdicts, _strictest(refusing))
        for charge, verdict in enforced:
            units, part = min(charge.cost, verdict.limit), charge.policy.window_ms / 1000 / MERGED_PARTS
            self._window(charge).add(now, units, merged_seconds=part)
        return Decision(True, verdicts, _strictest({charge.policy.on_failure for charge, _ in enforced}))

    def give_back(self, charges: Iterable[Charge]) -> None:
        """Give back what was admitted here."""
        for charge in charges:
            if (window := self._windows.get(state_key(charge))) is not None:
                window.remove(charge.cost)

    def _verdict(self, charge: Charge, now: float) -> Verdict:
        policy = charge.policy
        limit, remaining, release_ms, wait_ms = policy.limit, policy.limit - charge.cost, policy.window_ms, 0
        retryable = True
        if policy.shadow:
            allowed = True
        elif policy.on_failure == "closed":
            allowed, remaining, release_ms, wait_ms = False, 0, CLOSED_WAIT_MS, CLOSED_WAIT_MS
        else:
            if policy.on_failure == "local":
                limit = max(1, limit // max(1, self._workers()))
            seconds = policy.window_ms / 1000
            use = self._use(charge, limit, now, seconds)
            used = sum(units for _, units in use)
            cost = min(charge.cost, limit)
            retryable = charge.cost <= policy.limit
            allowed = retryable and used + cost <= limit
            remaining = limit - used - (cost if allowed else 0)
            if use:
                release_ms = ceil_ms(use[0][0] + seconds - now)
            if not allowed and retryable:
                wait_ms = _wait_ms(use, used + cost - limit, seconds, now)
        return Verdict(
            policy,
            charge.group,
            charge.subject,
            allowed=allowed,
            limit=limit,
            remaining=max(0, remaining),
            next_release_ms=release_ms,
            wait_ms=wait_ms,
            retryable=retryable,
            shadow=policy.shadow,
        )

    def _use(self, charge: Charge, limit: int, now: float, seconds: float) -> list[tuple[float, int]]:
        """Return what counts at present, oldest first: each instant with its units.

        What was admitted here before Redis reported a use is part of that use, if Redis had been charged for it.
        """
        window = self._window(charge)
        window.expire(now - seconds)
        mine = list(window.since(now - seconds))
        reported_at, reported = self._reported.get(state_key(charge), (now - seconds, 0))
        if charge.policy.on_failure != "local" or reported_at <= now - seconds:
            return mine
        seed = min(limit, -(-reported * limit // charge.policy.limit))
        newer = list(window.since(reported_at))
        if window.used >= seed + sum(units for _, units in newer):
            return mine
        return [(reported_at, seed), *newer]

    def _window(self, charge: Charge) -> _Window:
        key = state_key(charge)
        window = self._windows.get(key) or _Window()
        self._windows[key] = window  # the newest
        return window


def _wait_ms(use: Sequence[tuple[float, int]], surplus: int, seconds: float, now: float) -> int:
    for at, units in use:
        surplus -= units
        if surplus <= 0:
            return ceil_ms(at + seconds - now)
    return ceil_ms(seconds)


def _strictest(modes: AbstractSet[OnFailure]) -> Source:
    """Return the source that a decision is counted under: closed before local, and open if there is neither."""
    if "closed" in modes:
        return "closed"
    return "fallback" if "local" in modes else "open"


class Breaker:
    """A circuit breaker: closed at first; open after failures in a row, while it probes in the background.

    Args:
        probe: returns True when the server can serve decisions again.
        on_close: called when a probe has succeeded.
    """

    def __init__(self, probe: Callable[[], Awaitable[bool]], *, on_close: Callable[[], None]) -> None:
        self._probe = probe
        self._on_close = on_close
        self.failures = 0
        self._probing: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether the server must not be asked."""
        return self._probing is not None

    def failed(self) -> bool:
        """Count a call without an answer in time. Returns whether this has opened the breaker."""
        self.failures += 1
        if self.failures < FAILURES_TO_OPEN or self._probing is not None:
            return False
        self._probing = asyncio.get_running_loop().create_task(self._probe_until_well())
        return True

    async def close(self) -> None:
        """Stop probing."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.wait([self._probing])

    async def _probe_until_well(self) -> None:
        pause_seconds = FIRST_PROBE_SECONDS
        while True:
            # Jittered, so that the workers do not all come back at one instant.
            await asyncio.sleep(pause_seconds * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            if await self._probe():
                break
            pause_seconds = min(2 * pause_seconds, LONGEST_PROBE_SECONDS)
        self._on_close()


class UnbilledCharges:
    """Admissions that Redis was not charged for, by client and policy; a bounded number of them.

    Args:
        max_entries: how many are kept; later ones are lost, and counted in the log.
    """

    def __init__(self, *, max_entries: int = 10_000) -> None:
        self._max_entries = max_entries
        self._entries: OrderedDict[bytes, list[tuple[Charge, float, float]]] = OrderedDict()
        self._count = 0
        self._lost = 0

    def __len__(self) -> int:
        return self._count

    def add(self, charge: Charge, now: float) -> None:
        """Keep a charge that was admitted at `now` (monotonic seconds) and not made."""
        entries = self._entries.setdefault(state_key(charge), [])
        if entries:
            last, first_at, _ = entries[-1]
            if (
                last.policy == charge.policy
                and now - first_at < charge.policy.window_ms / 1000 / MERGED_PARTS
            ):
                cost = min(last.cost + charge.cost, 2 * charge.policy.limit)
                entries[-1] = (replace(last, cost=cost), first_at, now)
                return
        if self._count >= self._max_entries:
            self._lost += 1
            return
        entries.append((charge, now, now))
        self._count += 1

    def take(self, now: float) -> list[tuple[Charge, int]]:
        """Remove and return one client's charges, oldest first, with their ages in microseconds; empty at the end."""
        if not self._entries:
            return []
        _, entries = self._entries.popitem(last=False)
        self._count -= len(entries)
        if self._lost and not self._entries:
            log.warning("rate_limit.unbilled_lost", charges=self._lost)
            self._lost = 0
        return [(charge, max(0, int((now - at) * 1_000_000))) for charge, _, at in entries]

    def put_back(self, charges: list[tuple[Charge, int]], now: float) -> None:
        """Keep charges that could not be made after all; `now` as given to `take`."""
        for charge, age_us in charges:
            at = now - age_us / 1e6
            self._entries.setdefault(state_key(charge), []).append((charge, at, at))
            self._count += 1


class Fallback:
    """Keeps a breaker for each server, decides while one is open, and charges the admissions afterwards.

    Args:
        link: to Redis.
        calls: charges what is unbilled.
        workers: how many processes share the limits of `local` policies meanwhile.
        on_change: called with whether any breaker is open, when that has changed.
    """

    def __init__(
        self,
        link: Link,
        calls: Calls,
        *,
        workers: Callable[[], int],
        on_change: Callable[[bool], None] = lambda _is_on: None,
    ) -> None:
        self._link = link
        self._calls = calls
        self._on_change = on_change
        self._breakers: dict[str, Breaker] = {}  # of servers that have failed since their last answer
        self.modes = FailureModes(workers=workers)
        self._unbilled = UnbilledCharges()
        self._settling: asyncio.Task[bool] | None = None

    def applies_to(self, charges: PreparedCharges) -> bool:
        """Whether Redis must not be asked about these charges, because a server that counts one of them is down."""
        return bool(self._breakers) and any(self._is_down(key) for key in charges.keys)

    def failed(self, error: RedisUnavailable, charges: PreparedCharges) -> None:
        """Note that Redis has not answered a decision on these charges."""
        if error.reason in _NOT_THE_SERVERS:
            return
        node = error.node
        breaker = self._breakers.get(node)
        if breaker is None:
            subject = next(
                (charge.subject for charge in charges if self._link.node_of(state_key(charge)) == node),
                charges[0].subject,
            )
            breaker = self._breakers[node] = Breaker(
                partial(self._is_well, node, subject), on_close=partial(self._recovered, node)
            )
        if breaker.failed():
            log.warning("rate_limit.redis_down", server=node, error=error.reason, failures=breaker.failures)
            self._on_change(True)

    def succeeded(self, charges: PreparedCharges) -> None:
        """Note that Redis has answered a decision on these charges, and charge what is unbilled in the background."""
        if self._breakers:
            for node in {self._link.node_of(key) for key in charges.keys}:
                breaker = self._breakers.get(node)
                if breaker is not None and not breaker.is_open:
                    del self._breakers[node]
        if self._unbilled and (self._settling is None or self._settling.done()):
            self._settling = asyncio.get_running_loop().create_task(self._settle())

    def decide(self, charges: Sequence[Charge], now: float, *, owed: bool) -> Decision:
        """Return the decision of the policies' failure modes.

        Args:
            charges: of the request.
            now: monotonic seconds.
            owed: whether to charge Redis later if the request is admitted. Set only when Redis cannot have charged it.
        """
        decision = self.modes.decide(charges, now)
        if decision.allowed and owed:
            for charge in charges:
                if charge.policy.algorithm != "concurrency":  # by then it will have ended
                    self._unbilled.add(charge, now)
        return decision

    async def close(self) -> None:
        """Stop what runs in the background."""
        await asyncio.gather(*(breaker.close() for breaker in self._breakers.values()))
        if self._settling is not None and not self._settling.done():
            self._settling.cancel()
            await asyncio.wait([self._settling])

    def _is_down(self, key: bytes) -> bool:
        breaker = self._breakers.get(self._link.node_of(key))
        return breaker is not None and breaker.is_open

    def _recovered(self, node: str) -> None:
        del self._breakers[node]
        log.info("rate_limit.redis_back", server=node)
        if not any(breaker.is_open for breaker in self._breakers.values()):
            self._on_change(False)

    async def _is_well(self, node: str, subject: str) -> bool:
        """Whether a subject's server takes writes again. What is unbilled is charged before any new decision."""
        try:
            await self._link.execute("SET", probe_key(subject), b"1", "PX", PROBE_KEPT_MS)
        except (RedisUnavailable, RedisReplyError):
            return False
        return await self._settle(node)

    async def _settle(self, back: str | None = None) -> bool:
        """Charge what is unbilled now, but for what belongs to servers that are down; False if Redis fails again.

        Args:
            back: a server whose breaker is open only until this is done.
        """
        kept: list[tuple[list[tuple[Charge, int]], float]] = []
        settled = True
        for _ in range(len(self._unbilled)):
            now = monotonic()
            charges = self._unbilled.take(now)
            if not charges:
                break
            key = state_key(charges[0][0])
            if self._link.node_of(key) != back and self._is_down(key):
                kept.append((charges, now))
                continue
            try:
                await self._calls.charge_unbilled(charges)
            except RedisUnavailable as error:
                if not error.outcome_unknown:
                    kept.append((charges, now))
                settled = False
                break
            except RedisReplyError as error:
                log.warning("rate_limit.unbilled_refused", error=error.code)
        for charges, now in kept:
            self._unbilled.put_back(charges, now)
        return settled


async def report_what_may_be_lost(link: Link) -> None:
    """Log if the server may evict keys of the limiter, as every eviction policy but one can, or keeps nothing on disk.

    On a Cluster one of the masters is asked. Managed servers often refuse CONFIG; their eviction policy is in INFO.
    """
    try:
        policy, save, append_only = await asyncio.gather(
            *(_setting(link, name) for name in ("maxmemory-policy", "save", "appendonly"))
        )
    except RedisUnavailable as error:
        log.info("rate_limit.eviction_unknown", error=str(error))
        return
    except RedisReplyError as error:
        policy, save, append_only = await _eviction_by_info(link), None, None
        if policy is None:
            log.info("rate_limit.eviction_unknown", error=str(error))
    if policy not in {None, "noeviction"}:
        log.warning("rate_limit.may_be_evicted", maxmemory_policy=policy)
    if save == "" and append_only == "no":
        log.info("rate_limit.not_persistent", save=save, appendonly=append_only)


async def _setting(link: Link, name: str) -> str | None:
    reply = await link.execute("CONFIG", "GET", name)
    return reply[1].decode() if reply else None


async def _eviction_by_info(link: Link) -> str | None:
    try:
        lines = (await link.execute("INFO", "memory")).decode().splitlines()
    except (RedisUnavailable, RedisReplyError):
        return None
    found = dict(line.split(":", 1) for line in lines if ":" in line)
    return found.get("maxmemory_policy")
