"""The rate limiter: one script call for all policies of a request, and an answer in time whatever Redis does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import monotonic
from typing import Any, Self

from ..stores.redis.events import get_logger
from ..stores.redis.link import Link, RedisLink, RedisReplyError, RedisUnavailable
from .coalescing import Coalescer
from .fallback import Fallback, report_what_may_be_lost
from .memory import MemoryLink
from .overrides import Blocks, Overrides
from .policies import (
    MAX_COST,
    BlockedCharges,
    Charge,
    Decision,
    Policy,
    PreparedCharges,
    block_key,
    charges_of,
    new_verdict,
    pages_key,
    parse_policies,
    prepared,
    state_key,
)
from .refusals import DenyCache, RefusalEpoch, RememberedRefusal
from .reports import OnDecision, Reports
from .scripts import Answers, Calls, decision_of, read_answers, soon

log = get_logger(__name__)

# A script that fails, fails for every request of its subject: it is logged once a minute.
_ERRORS_LOGGED_EVERY_SECONDS = 60.0


class Limiter:
    """Decides requests under their policies: all or nothing, exactly, across all processes.

    Args:
        link: to Redis, started; the limiter does not close it. Or a `MemoryLink`.
        deadline_ms: how long Redis may take for a decision, from the write on.
        log_entries: admissions that a window remembers one by one; beyond, it is a ring of as many slots.
        keep_ms: how long the decision on a request id is remembered, milliseconds.
        workers: how many processes share the limits of `local` policies while Redis is down.
        on_decision: called with policy name, outcome (allowed, denied, shadow-denied) and source, for each
            verdict.
        on_near_limit: called with policy name for each charge that Redis made with more than four fifths of the limit
            in use.
        on_cost: called with policy name and units where a request costs another number of units than one: those
            beyond one; below 0 for what was given back after the response.
        on_failure: called with a short word for each decision that Redis could not make: the reason of the link's
            error, or `script`.
        on_fallback: called with True when Redis, or a server of a Cluster, is not asked any more, and with False when
            all are asked again.
    """

    def __init__(
        self,
        link: Link,
        *,
        deadline_ms: float = 50,
        log_entries: int = 1024,
        keep_ms: int = 60_000,
        workers: Callable[[], int] = lambda: 1,
        on_decision: OnDecision = lambda _policy, _outcome, _source: None,
        on_near_limit: Callable[[str], None] = lambda _policy: None,
        on_cost: Callable[[str, int], None] = lambda _policy, _units: None,
        on_failure: Callable[[str], None] = lambda _reason: None,
        on_fallback: Callable[[bool], None] = lambda _is_on: None,
    ) -> None:
        self._link = link
        self._owns_link = False
        self._error_logged_at = float("-inf")
        self._calls = Calls(link, deadline_ms=deadline_ms, log_entries=log_entries, keep_ms=keep_ms)
        self._reports = Reports(on_decision, on_near_limit, on_cost)
        self._on_failure = on_failure
        self._fallback = Fallback(link, self._calls, workers=workers, on_change=on_fallback)
        self._denials = DenyCache()
        self._releases: set[asyncio.Task[None]] = set()
        self._coalescer = Coalescer()
        self.sources = self._reports.sources
        """How many decisions each source has made in this process."""
        self._epoch = RefusalEpoch(link, self._denials.forget)
        self.blocks = Blocks(link)
        """Subjects of which everything is refused."""
        self.overrides = Overrides(link, self._denials.forget)
        """What holds for single subjects instead of their policies' limits."""

    @classmethod
    def from_url(cls, url: str, *, deadline_ms: float = 50, verify_tls: bool = True, **options: Any) -> Self:
        """Return a limiter with a link of its own: `async with Limiter.from_url(…) as limiter:`.

        Args:
            url: `redis://`, `valkey://`, with `+sentinel` or `+cluster`, and more: see `parse_redis_url`. `memory://`
                counts in this process.
            deadline_ms: how long Redis may take for a decision, from the write on.
            verify_tls: check the certificate and the name of a `rediss://` server.
            options: of the limiter.

        Raises:
            ValueError: the URL is not one of Redis.
        """
        link: Link = (
            MemoryLink()
            if url == "memory://"
            else RedisLink(url, deadline_ms=deadline_ms, verify_tls=verify_tls)
        )
        limiter = cls(link, deadline_ms=deadline_ms, **options)
        limiter._owns_link = True
        return limiter

    async def __aenter__(self) -> Self:
        if self._owns_link:
            await self._link.start()
        await self.start()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()
        if self._owns_link:
            await self._link.close()

    async def start(self) -> None:
        """Read the overrides, and follow them from now on; log if Redis may forget what was counted."""
        await self.overrides.start()
        await report_what_may_be_lost(self._link)

    async def close(self) -> None:
        """Stop what runs in the background."""
        await self._fallback.close()
        if self._releases:
            await asyncio.wait(self._releases)
        await self.overrides.close()
        await self._epoch.close()
        await self._calls.close()

    async def hit(
        self,
        subject: str,
        *policies: Policy | str,
        cost: int = 1,
        group: str = "",
        request_id: str | None = None,
    ) -> Decision:
        """Charge a subject under some policies, under all of them or under none; see `decide`.

        Args:
            subject: what is charged, such as `user:42`.
            policies: one or more; text as for `Policy.parse`.
            cost: units, the same under every policy.
            group: of what is counted apart from other groups.
            request_id: as for `decide`.

        Raises:
            ValueError: a policy, the cost or the subject is none.
        """
        charges = charges_of(subject, *parse_policies(policies), cost=cost, group=group)
        return await self.decide(charges, request_id=request_id)

    async def decide(
        self,
        charges: Sequence[Charge],
        *,
        request_id: str | None = None,
        is_new: bool = False,
        prefetch: Callable[[], None] | None = None,
    ) -> Decision:
        """Make all charges of a request, or none.

        Args:
            charges: the charges; at most one per policy, group and subject. Pass `PreparedCharges` to reuse them
                between requests.
            request_id: a repetition gets the first verdict and is charged once. Never one that a client chose:
                replaying it would return the first verdict without being charged.
            is_new: the request id was made for this decision, to refund it. So there is no first verdict, and a
                refusal may come from memory.
            prefetch: called if Redis is going to be asked; commands that it sends to Redis travel in the same write.

        Raises:
            ValueError: two charges would be counted as one.
        """
        if type(charges) is not PreparedCharges:
            if isinstance(charges, BlockedCharges):
                return self._refuse_network(charges)
            charges = PreparedCharges(charges)
        if self.overrides.in_force:
            charges = self.overrides.applied_to(charges)
        if not charges:
            return Decision(True, (), "redis")
        if charges.leases and request_id is None:
            raise ValueError("what is limited at once is given back by its request id: it needs one")
        now = monotonic()
        may_repeat = request_id is not None and not is_new
        if (decision := self._decide_at_once(charges, now, may_repeat=may_repeat)) is None:
            if prefetch is not None:
                prefetch()
            client = charges.keys[0]
            if not self._coalescer.enter(client):
                decision, now = await self._wait_for_turn(charges, may_repeat=may_repeat)
            if decision is None:
                decision = await self._ask(client, charges, request_id, now)
        self._reports.decided(charges, decision, now)
        return decision

    def recall(self, charges: Sequence[Charge]) -> tuple[RememberedRefusal, int] | None:
        """Return a refusal with its texts, if there is one in memory, and its wait in ms; counted as by `decide`."""
        now = monotonic()
        remembered = None if self.overrides.in_force else self._denials.recall(charges, now)
        if remembered is None or not self._reports.recalled(remembered.verdict, now):
            return None
        self._epoch.look_again(now)
        return remembered, remembered.wait_ms(now)

    async def peek(self, charges: Sequence[Charge]) -> Decision:
        """Return what a decision would be now, without charging anything.

        Raises:
            RedisUnavailable: Redis does not answer.
        """
        if not charges:
            return Decision(True, (), "redis")
        found = [self.overrides.find(charge) for charge in charges]
        charges = [
            charge
            if override is None or override.limit is None
            else replace(charge, policy=charge.policy.with_limit(override.limit))
            for charge, override in zip(charges, found, strict=True)
        ]
        verdicts = tuple(
            verdict
            if override is None or override.limit is not None
            else verdict._replace(allowed=True, wait_ms=0, retryable=True)
            for verdict, override in zip(
                decision_of(charges, await self._calls.peek(charges)).verdicts, found, strict=True
            )
        )
        return Decision(all(verdict.allowed or verdict.shadow for verdict in verdicts), verdicts, "redis")

    async def refund(self, charges: Sequence[Charge], *, request_id: str) -> int:
        """Take back what the decision with this request id has charged; at most once.

        Args:
            charges: those of the decision.
            request_id: the one it was made with.

        Returns:
            the units given back, over all charges.

        Raises:
            RedisUnavailable: Redis does not answer; the refund may have been made.
        """
        return sum(await self.settle(charges, request_id=request_id, costs=[0] * len(charges)))

    async def settle(
        self, charges: Sequence[Charge], *, request_id: str, costs: Sequence[int | None]
    ) -> tuple[int, ...]:
        """Charge a decision's request what it has cost in the end; at most once, and not after a refund.

        A limit is never exceeded: what is charged in addition is at most what is left of it.

        Args:
            charges: those of the decision.
            request_id: the one it was made with.
            costs: units for each charge, 0 or more; None leaves the charge for another call.

        Returns:
            the units given back for each charge; below 0 where more was charged.

        Raises:
            RedisUnavailable: Redis does not answer; it may have been settled.
            ValueError: a cost is no such integer, or there is not one for each charge.
        """
        if len(costs) != len(charges) or not all(
            cost is None or (type(cost) is int and 0 <= cost <= MAX_COST) for cost in costs
        ):
            raise ValueError(f"the costs are {costs!r}, not an integer from 0 to {MAX_COST} for each charge")
        charged = self.overridden(charges)
        cost_of = dict(zip(map(state_key, charges), costs, strict=True))
        given = await self._calls.refund(charged, request_id, [cost_of[key] for key in charged.keys])
        back_of = dict(zip(charged.keys, given, strict=True))
        units = tuple(back_of.get(key, 0) for key in cost_of)
        for charge, back in zip(charges, units, strict=True):
            if back:
                self._reports.on_cost(charge.policy.name, -back)
        if any(back > 0 for back in units):
            await self._epoch.advance()
        return units

    def release(self, charges: Sequence[Charge], *, request_id: str, decision: Decision) -> None:
        """Give back what a request had at once, in the background; the other charges stay.

        If Redis does not answer, the leases end by themselves, a window after they were given.

        Args:
            charges: those of the decision.
            request_id: the one it was made with.
            decision: which admitted the request.
        """
        made = self.overridden(charges)
        if decision.source == "redis":
            task = asyncio.get_running_loop().create_task(self._release(made, request_id))
            self._releases.add(task)
            task.add_done_callback(self._releases.discard)
        else:
            self._fallback.modes.give_back(made[index] for index in made.leases)

    async def _release(self, charges: PreparedCharges, request_id: str) -> None:
        costs = [0 if index in charges.leases else None for index in range(len(charges))]
        try:
            await self._calls.refund(charges, request_id, costs)
        except (RedisUnavailable, RedisReplyError) as error:
            log.warning("rate_limit.refund_lost", error=str(error))

    def overridden(self, charges: Sequence[Charge]) -> PreparedCharges:
        """Return the charges that a decision makes: under the overrides' limits, without those that are exempt."""
        return self.overrides.applied_to(prepared(charges))

    async def reset(self, subject: str, charges: Sequence[Charge]) -> int:
        """Forget what a subject has used, and its block.

        Args:
            subject: the one to reset; charges of others are left alone.
            charges: of every policy and group under which it may have been counted.

        Returns:
            the number of keys deleted.

        Raises:
            RedisUnavailable: Redis does not answer.
        """
        mine = [charge for charge in charges if charge.subject == subject]
        keys = {key(charge) for charge in mine for key in (state_key, pages_key)}
        deleted: int = await self._link.execute("UNLINK", block_key(subject), *sorted(keys))
        await self._epoch.advance()
        log.info("rate_limit.reset", subject=subject, keys=deleted)
        return deleted

    async def block(self, subject: str, *, duration_ms: int) -> None:
        """Refuse everything of a subject, under every policy, for a time; `reset` ends it.

        It ends what operators have overridden for the subject: an exemption would let it pass.

        Raises:
            RedisUnavailable: Redis does not answer.
        """
        await self.overrides.end(subject)
        await self.blocks.set(subject, duration_ms=duration_ms)
        log.info("rate_limit.blocked", subject=subject, duration_ms=duration_ms)

    async def block_left_ms(self, subject: str) -> int | None:
        """Return the milliseconds until the block of a subject ends; None if it is not blocked.

        Raises:
            RedisUnavailable: Redis does not answer.
        """
        return await self.blocks.left_ms(subject)

    async def override(
        self, subject: str, policies: Sequence[str], *, limit: int | None, duration_ms: int
    ) -> None:
        """Give a subject another limit under some policies for a time, or (None) no limit; that ends its block.

        See `Overrides.set` for the arguments and what it raises; `overrides.end` ends it earlier.
        """
        await self.overrides.set(subject, policies, limit=limit, duration_ms=duration_ms)
        if limit is None:
            await self._link.execute("UNLINK", block_key(subject))
        await self._epoch.advance()

    def forget_denials(self) -> None:
        """Ask Redis again about every client that was refused: for when the limits have changed."""
        self._denials.forget()

    def _refuse_network(self, charges: BlockedCharges) -> Decision:
        verdicts = tuple(
            new_verdict(
                (
                    charge.policy,
                    charge.group,
                    charge.subject,
                    False,
                    charge.policy.limit,
                    0,
                    0,
                    0,
                    False,
                    False,
                )
            )
            for charge in charges
        )
        decision = Decision(False, verdicts, "block-list")
        self._reports.decided(charges, decision, monotonic())
        return decision

    def _decide_at_once(self, charges: PreparedCharges, now: float, *, may_repeat: bool) -> Decision | None:
        """Return the decision if Redis need not, or must not, be asked. It is asked for what may be a repetition."""
        if not may_repeat and (decision := self._denials.find(charges, now)) is not None:
            self._epoch.look_again(now)
            return decision
        return self._fallback.decide(charges, now, owed=True) if self._fallback.applies_to(charges) else None

    async def _wait_for_turn(
        self, charges: PreparedCharges, *, may_repeat: bool
    ) -> tuple[Decision | None, float]:
        """Return the decision, if it has become known meanwhile, and the time; without one, it is this one's turn."""
        client = charges.keys[0]
        is_my_turn = await self._coalescer.wait(client)
        now = monotonic()
        if not is_my_turn:
            return self._fallback.decide(charges, now, owed=True), now
        try:
            decision = self._decide_at_once(charges, now, may_repeat=may_repeat)
        except BaseException:
            self._coalescer.leave(client)
            raise
        if decision is not None:
            self._coalescer.leave(client, refused=not decision.allowed)
        return decision, now

    async def _ask(
        self, client: bytes, charges: PreparedCharges, request_id: str | None, now: float
    ) -> Decision:
        """Ask Redis in this client's turn, and end that."""
        decision = None
        try:
            # What nearly every decision is: one call of a script that the server has got.
            begun = None if request_id is not None else self._calls.begin(charges)
            if begun is None:
                answers = await self._calls.decide(charges, request_id)
            else:
                try:
                    answers = read_answers(await begun)
                except RedisReplyError as error:
                    if error.code != "NOSCRIPT":
                        raise
                    spent_ms = (monotonic() - now) * 1000.0
                    answers = await self._calls.decide(charges, request_id, spent_ms=spent_ms)
            decision = self._decided(charges, answers, now)
        except RedisUnavailable as error:
            self._on_failure(error.reason)
            self._fallback.failed(error, charges)
            # What Redis may have executed is neither asked nor charged again.
            decision = self._fallback.decide(charges, monotonic(), owed=not error.outcome_unknown)
        except RedisReplyError as error:
            # These keys (of another type, say) or the script failed: Redis works for all other clients.
            self._on_failure("script")
            if now - self._error_logged_at >= _ERRORS_LOGGED_EVERY_SECONDS:
                self._error_logged_at = now
                log.exception("rate_limit.script_failed", error=error.code, subject=charges[0].subject)
            decision = self._fallback.decide(charges, monotonic(), owed=False)
        finally:
            if not self._coalescer.leave_alone(client):
                self._leave(client, decision)
        return decision

    def _leave(self, client: bytes, decision: Decision | None) -> None:
        """End a turn beside which others wait; without a decision, it has failed."""
        if decision is None:
            self._coalescer.leave(client)
        elif decision.source == "redis":
            room = min([verdict.remaining for verdict in decision.verdicts])
            self._coalescer.leave(client, room=room, refused=not decision.allowed)
        else:
            self._coalescer.leave(client, refused=not decision.allowed, failed=True)

    def _decided(self, charges: PreparedCharges, answers: Answers, now: float) -> Decision:
        self._fallback.succeeded(charges)
        for index in charges.seeds:
            self._fallback.modes.report_use(charges[index], answers.rows[index][1], now)
        decision = decision_of(charges, answers)
        if not decision.allowed:
            if charges.leases:
                decision = soon(decision)
            self._remember(charges, answers, decision, now)
        return decision

    def _remember(self, charges: Sequence[Charge], answers: Answers, decision: Decision, now: float) -> None:
        for charge, row, verdict in zip(charges, answers.rows, decision.verdicts, strict=True):
            _, _, release_us, wait_us = row
            if (
                wait_us > 0
                and not (verdict.allowed or verdict.shadow)
                and verdict.policy.algorithm != "concurrency"
            ):
                self._denials.remember(charge, verdict, asked_at=now, wait_us=wait_us, release_us=release_us)
