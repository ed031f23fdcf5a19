"""What operators set for a subject, for a time: overrides and blocks.

An override is another limit under a policy, or none at all (an exemption). Operators write overrides to Redis, where
every process looks once a second; the rate limits file may have some of its own. A decision finds them in memory: it
costs Redis nothing, and while there are none it costs the process nothing either.

A block refuses everything of a subject, under every policy. It is a key of the subject's, which a decision looks at in
the same call. Beside it there is a list of the blocked subjects for operators to see. The list is never decided by: a
subject on it counts as blocked only while it has its key.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import monotonic, time
from typing import Final, Literal

from ..stores.redis.events import get_logger
from ..stores.redis.link import Link, RedisReplyError, RedisUnavailable
from ..stores.redis.scripts import load_script
from .policies import MAX_LIMIT, Charge, PreparedCharges, block_key

log = get_logger(__name__)

OVERRIDES_KEY: Final = b"r:overrides"
MAX_OVERRIDES: Final = 1000
MAX_DURATION_MS: Final = 366 * 24 * 3600 * 1000
LOOK_EVERY_SECONDS: Final = 1.0
# When the last override is ended by hand, the word that says so must outlive every process's next look.
WORD_KEPT_MS: Final = 3_600_000
ANY_POLICY: Final = "*"
OverrideSource = Literal["operator", "file"]
BLOCKS_KEY: Final = b"r:blocks"
_MOST_LISTED: Final = 1000  # further blocks are in force without being listed
_LISTED: Final = 1  # the list has the form of the overrides, where a number is a limit


@dataclass(frozen=True, slots=True)
class Override:
    """What holds for a subject instead of a policy's limit.

    Args:
        subject: in the form in which it is counted.
        policy: the policy's name, or `*` for all, which have to be exempted then.
        limit: units; None: the subject is not limited.
        ends_at: seconds since 1970, by this process's clock.
        source: whether an operator or the file says so; the operator's override goes before the file's.
    """

    subject: str
    policy: str
    limit: int | None
    ends_at: float
    source: OverrideSource = "operator"


class OverridesFull(Exception):
    """There are as many overrides as there may be; ending some makes room."""


class Overrides:
    """The overrides in force, kept in this process's memory and in step with Redis.

    Args:
        link: to Redis.
        on_change: called when they have changed: refusals in memory may rest on other limits.
    """

    def __init__(self, link: Link, on_change: Callable[[], None]) -> None:
        self._link = link
        self._on_change = on_change
        self._word = b""
        self._by_operators: tuple[Override, ...] = ()
        self._by_file: tuple[Override, ...] = ()
        self.in_force: Mapping[str, Mapping[str, Override]] = {}
        """By subject and policy; a new mapping whenever something has changed."""
        self._next_end = float("inf")
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the overrides, and look for others once a second from now on."""
        await self._look()
        if self._watch is None:
            self._watch = asyncio.get_running_loop().create_task(self._keep_looking())

    async def close(self) -> None:
        """Stop looking; the overrides stay in force until they end."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()
            await asyncio.wait([watch])

    def use_file(self, overrides: Iterable[Override]) -> None:
        """Put the overrides of the rate limits file in force, instead of those that it had before."""
        self._by_file = tuple(overrides)
        self._rebuild()

    def of(self, subject: str) -> tuple[Override, ...]:
        """Return the overrides of a subject that are in force, for people to see."""
        self._drop_ended()
        return tuple(self.in_force.get(subject, {}).values())

    def find(self, charge: Charge) -> Override | None:
        """Return what holds for a charge instead of its policy's limit."""
        return _find(self.in_force.get(charge.subject), charge)

    def applied_to(self, charges: PreparedCharges) -> PreparedCharges:
        """Return the charges under the overrides' limits, without those that are exempt.

        The result is remembered with the charges until an override changes or ends.
        """
        if monotonic() >= self._next_end:
            self._drop_ended()
        known = charges.overridden
        if known is None or known[0] is not self.in_force:
            known = charges.overridden = (self.in_force, self._apply(charges))
        return known[1]

    async def set(
        self, subject: str, policies: Sequence[str], *, limit: int | None, duration_ms: int
    ) -> None:
        """Override a subject's limit under some policies, here at once and in all processes within a second.

        Args:
            subject: in the form in which it is counted.
            policies: their names; `*` for all, with limit None only.
            limit: units; None: the subject is not limited.
            duration_ms: milliseconds until the override ends, by Redis's clock.

        Raises:
            OverridesFull: there are `MAX_OVERRIDES` already.
            RedisUnavailable: Redis does not answer.
            ValueError: limit, duration or names are not what they accept.
        """
        if limit is not None and not (type(limit) is int and 1 <= limit <= MAX_LIMIT):
            raise ValueError(f"an override's limit is {limit!r}, not an integer from 1 to {MAX_LIMIT}")
        if limit is not None and ANY_POLICY in policies:
            raise ValueError("one limit can't hold for all policies: name them")
        if not (type(duration_ms) is int and 1 <= duration_ms <= MAX_DURATION_MS):
            raise ValueError(f"an override lasts {duration_ms!r} ms, not from 1 to {MAX_DURATION_MS}")
        if not policies:
            raise ValueError("an override names the policies that it is for")
        written = await self._write(subject, policies, limit or 0, duration_ms)
        if written < 0:
            raise OverridesFull(f"there are {MAX_OVERRIDES} overrides already; end some of them first")
        log.info(
            "rate_limit.overridden",
            subject=subject,
            policies=list(policies),
            limit=limit,
            duration_ms=duration_ms,
        )

    async def end(self, subject: str, policies: Sequence[str] | None = None) -> int:
        """End an operator's overrides of a subject, under some policies or (None) under all.

        Returns:
            how many there were.

        Raises:
            RedisUnavailable: Redis does not answer.
        """
        await self.refresh()
        mine = {override.policy for override in self._by_operators if override.subject == subject}
        ended = sorted(mine if policies is None else mine.intersection(policies))
        if not ended:
            return 0
        return await self._write(subject, ended, -1, WORD_KEPT_MS)

    async def refresh(self) -> None:
        """Read the overrides from Redis now.

        Raises:
            RedisUnavailable: Redis does not answer.
            RedisReplyError: Redis holds something else under their key.
        """
        word, *values = await self._link.run_script(load_script("read_overrides"), [OVERRIDES_KEY], [])
        now, found = time(), []
        for field, limit, rest_ms in zip(values[::3], values[1::3], values[2::3], strict=True):
            subject, _, policy = field.decode(errors="surrogatepass").rpartition("\n")
            found.append(Override(subject, policy, limit or None, now + rest_ms / 1000))
        self._word, self._by_operators = word, tuple(found)
        self._rebuild()

    async def _write(self, subject: str, policies: Sequence[str], limit: int, duration_ms: int) -> int:
        fields = [f"{subject}\n{policy}".encode(errors="surrogatepass") for policy in policies]
        written: int = await self._link.run_script(
            load_script("write_override"),
            [OVERRIDES_KEY],
            [secrets.token_hex(8), MAX_OVERRIDES, limit, duration_ms, *fields],
        )
        await self.refresh()
        return written

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_SECONDS)
            await self._look()

    async def _look(self) -> None:
        try:
            word: bytes | None = await self._link.execute("HGET", OVERRIDES_KEY, "word")
            if (word or b"") != self._word:
                await self.refresh()
        except RedisUnavailable:
            pass  # what is in force stays so until it ends
        except RedisReplyError as error:
            log.warning("rate_limit.overrides_unreadable", error=str(error))

    def _rebuild(self) -> None:
        now = time()
        in_force: dict[str, dict[str, Override]] = {}
        for override in (*self._by_file, *self._by_operators):
            if override.ends_at > now:
                in_force.setdefault(override.subject, {})[override.policy] = override
        ends = [override.ends_at for own in in_force.values() for override in own.values()]
        self._next_end = monotonic() + min(ends) - now if ends else float("inf")
        self.in_force = in_force
        self._on_change()

    def _drop_ended(self) -> None:
        if monotonic() >= self._next_end:
            self._rebuild()

    def _apply(self, charges: PreparedCharges) -> PreparedCharges:
        changed: list[Charge] = []
        for charge in charges:
            override = self.find(charge)
            if override is None:
                changed.append(charge)
            elif override.limit is not None:
                changed.append(replace(charge, policy=charge.policy.with_limit(override.limit)))
        return charges if changed == list(charges) else PreparedCharges(changed)


def _find(own: Mapping[str, Override] | None, charge: Charge) -> Override | None:
    return None if own is None else own.get(charge.policy.name) or own.get(ANY_POLICY)


@dataclass(frozen=True, slots=True)
class Block:
    """A subject of which everything is refused.

    Args:
        subject: in the form in which it is counted.
        ends_at: seconds since 1970, by this process's clock.
    """

    subject: str
    ends_at: float


class Blocks:
    """The blocked subjects, in Redis.

    Args:
        link: to Redis.
    """

    def __init__(self, link: Link) -> None:
        self._link = link

    async def set(self, subject: str, *, duration_ms: int) -> None:
        """Block a subject, or change when its block ends.

        Raises:
            RedisUnavailable: Redis does not answer.
        """
        await self._link.execute("SET", block_key(subject), b"1", "PX", duration_ms)
        await self._link.run_script(
            load_script("write_override"),
            [BLOCKS_KEY],
            [
                secrets.token_hex(8),
                _MOST_LISTED,
                _LISTED,
                duration_ms,
                subject.encode(errors="surrogatepass"),
            ],
        )

    async def left_ms(self, subject: str) -> int | None:
        """Return the milliseconds until the block of a subject ends; None if it is not blocked.

        Raises:
            RedisUnavailable: Redis does not answer.
        """
        left: int = await self._link.execute("PTTL", block_key(subject))
        return left if left > 0 else None

    async def first(self, count: int) -> list[Block]:
        """Return the blocks that are in force, those first that end first.

        Args:
            count: at most so many.

        Raises:
            RedisUnavailable: Redis does not answer.
            RedisReplyError: Redis holds something else under the key of the list.
        """
        _, *values = await self._link.run_script(load_script("read_overrides"), [BLOCKS_KEY], [])
        listed = sorted(zip(values[2::3], values[::3], strict=True))
        blocks: list[Block] = []
        for _, field in listed:
            subject = field.decode(errors="surrogatepass")
            left_ms = await self.left_ms(subject)
            if left_ms is not None:
                blocks.append(Block(subject, time() + left_ms / 1000))
            if len(blocks) == count:
                break
        return blocks
