"""The rate limiter: one script call for all policies of a request, an answer in time whatever Redis does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic

import structlog

from server.ratelimit.arrears import Arrears
from server.ratelimit.breaker import Breaker
from server.ratelimit.calls import Calls
from server.ratelimit.denial_log import DenialLog
from server.ratelimit.deny_cache import DenyCache
from server.ratelimit.fallback import Fallback
from server.ratelimit.generation import Generation
from server.ratelimit.keys import PROBE_KEY, block_key, pages_key, state_key
from server.ratelimit.policies import Charge, Decision, Verdict
from server.ratelimit.scripts import Answer, Answers, ChargeState
from server.stores.redis_link import RedisLink, RedisReplyError, RedisUnavailable

log = structlog.get_logger(__name__)

OnDecision = Callable[[str, str, str], None]


class Limiter:
    """Decides requests under their policies: all or nothing, exactly, across all processes.

    Args:
        link: to Redis, started; the limiter does not close it.
        deadline_ms: how long a decision may take, whatever Redis does.
        log_entries: admissions that a window remembers one by one; beyond, it is a ring of as many slots.
        keep_ms: how long the decision on a request id is remembered, milliseconds.
        workers: how many processes share the limits of `local` policies while Redis is away.
        one_subject_a_call: for a Redis Cluster, where two subjects' keys live in different slots.
        on_decision: called with policy name, outcome (allowed, denied, shadow-denied) and source, for each
            verdict.
    """

    def __init__(
        self,
        link: RedisLink,
        *,
        deadline_ms: float = 50,
        log_entries: int = 1024,
        keep_ms: int = 60_000,
        workers: Callable[[], int] = lambda: 1,
        one_subject_a_call: bool = False,
        on_decision: OnDecision = lambda _policy, _outcome, _source: None,
    ) -> None:
        self._link = link
        self._calls = Calls(
            link,
            deadline_ms=deadline_ms,
            log_entries=log_entries,
            keep_ms=keep_ms,
            one_subject_a_call=one_subject_a_call,
        )
        self._on_decision = on_decision
        self._breaker = Breaker(self._is_well)
        self._fallback = Fallback(workers=workers)
        self._arrears = Arrears()
        self._settling: asyncio.Task[bool] | None = None
        self._denials = DenyCache()
        self._denial_log = DenialLog()
        self._generation = Generation(link, self._denials.forget)

    async def start(self) -> None:
        """Warn if Redis may forget what was counted: every eviction policy can drop keys of the limiter."""
        try:
            reply = await self._link.execute("CONFIG", "GET", "maxmemory-policy")
        except (RedisUnavailable, RedisReplyError) as error:
            log.info("rate_limit.eviction_unknown", error=str(error))
            return
        policy = reply[1].decode() if reply else "noeviction"
        if policy != "noeviction":
            log.warning("rate_limit.may_be_evicted", maxmemory_policy=policy)

    async def close(self) -> None:
        """Stop what runs in the background."""
        await self._breaker.close()
        await self._generation.close()
        await self._calls.close()
        if self._settling is not None and not self._settling.done():
            self._settling.cancel()
            await asyncio.wait([self._settling])

    async def decide(self, charges: Sequence[Charge], *, request_id: str | None = None) -> Decision:
        """Make all charges of a request, or none.

        Args:
            charges: what the request costs, and whom; no two of the same policy, group and subject.
            request_id: a repetition gets the first verdict and is charged once. Never one that a client
                chose: who repeats it pays nothing.

        Raises:
            ValueError: two charges would be counted as one.
        """
        if not charges:
            return Decision(True, (), "redis")
        if len(charges) > 1 and len({state_key(charge) for charge in charges}) < len(charges):
            raise ValueError("two charges have the same policy, group and subject: make them one")
        now = monotonic()
        decision = self._denials.find(charges, now) if request_id is None else None
        if decision is not None:
            self._generation.look_again(now)
        elif self._breaker.is_open:
            decision = self._decide_alone(charges, now, owed=True)
        else:
            decision = await self._ask(charges, request_id, now)
        self._report(decision, now)
        return decision

    def is_refusing(self, charges: Sequence[Charge]) -> bool:
        """Whether a decision on these charges would be a refusal from memory: nothing else need be asked for them."""
        return len(self._denials) > 0 and self._denials.find(charges, monotonic()) is not None

    async def peek(self, charges: Sequence[Charge]) -> Decision:
        """What a decision would say now, without charging anything.

        Raises:
            RedisUnavailable: Redis does not answer.
        """
        if not charges:
            return Decision(True, (), "redis")
        return _decision(charges, await self._calls.peek(charges))

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
        units = await self._calls.refund(charges, request_id)
        if units:
            await self._generation.advance()
        return units

    async def reset(self, subject: str, charges: Sequence[Charge]) -> int:
        """Forget what a subject has used, and its block.

        Args:
            subject: whose.
            charges: of every policy and group under which it may have been counted.

        Returns:
            how many keys there were.

        Raises:
            RedisUnavailable: Redis does not answer.
        """
        mine = [charge for charge in charges if charge.subject == subject]
        keys = {key(charge) for charge in mine for key in (state_key, pages_key)}
        deleted: int = await self._link.execute("UNLINK", block_key(subject), *sorted(keys))
        await self._generation.advance()
        log.info("rate_limit.reset", subject=subject, keys=deleted)
        return deleted

    async def block(self, subject: str, *, duration_ms: int) -> None:
        """Refuse everything of a subject, under every policy, for a time; `reset` ends it.

        Raises:
            RedisUnavailable: Redis does not answer.
        """
        await self._link.execute("SET", block_key(subject), b"1", "PX", duration_ms)
        log.info("rate_limit.blocked", subject=subject, duration_ms=duration_ms)

    def forget_denials(self) -> None:
        """The limits have changed: ask Redis again about everyone who was refused."""
        self._denials.forget()

    async def _ask(self, charges: Sequence[Charge], request_id: str | None, now: float) -> Decision:
        try:
            answers = await self._calls.decide(charges, request_id)
        except RedisUnavailable as error:
            self._breaker.failed(error.reason)
            # What Redis may have executed is neither asked nor charged again.
            return self._decide_alone(charges, now, owed=not error.outcome_unknown)
        except RedisReplyError as error:
            log.exception("rate_limit.script_failed", error=error.code)
            self._breaker.failed(error.code)
            return self._decide_alone(charges, now, owed=False)
        self._breaker.succeeded()
        if self._arrears and (self._settling is None or self._settling.done()):
            self._settling = asyncio.get_running_loop().create_task(self._settle())
        for charge, answer in zip(charges, answers.charges, strict=True):
            if charge.policy.on_failure == "local":
                self._fallback.learn(charge, answer.remaining, now)
        decision = _decision(charges, answers)
        if not decision.allowed:
            self._remember(charges, answers, decision, now)
        return decision

    def _decide_alone(self, charges: Sequence[Charge], now: float, *, owed: bool) -> Decision:
        decision = self._fallback.decide(charges, now)
        if decision.allowed and owed:
            for charge in charges:
                self._arrears.add(charge, now)
        return decision

    def _remember(self, charges: Sequence[Charge], answers: Answers, decision: Decision, now: float) -> None:
        for charge, answer, verdict in zip(charges, answers.charges, decision.verdicts, strict=True):
            if answer.wait_us > 0 and not verdict.allowed and not verdict.shadow:
                self._denials.remember(
                    charge, verdict, asked_at=now, wait_us=answer.wait_us, release_us=answer.release_us
                )

    def _report(self, decision: Decision, now: float) -> None:
        for verdict in decision.verdicts:
            if verdict.allowed:
                # A refusal from memory asked no other policy.
                if decision.source != "local-deny":
                    self._on_decision(verdict.policy.name, "allowed", decision.source)
            else:
                outcome = "shadow-denied" if verdict.shadow else "denied"
                self._on_decision(verdict.policy.name, outcome, decision.source)
        if not decision.allowed:
            self._denial_log.denied(decision, now)

    async def _is_well(self) -> bool:
        """Whether Redis takes writes again; what was admitted meanwhile is charged before anyone asks it."""
        try:
            await self._link.execute("SET", PROBE_KEY, b"1", "PX", 1000)
        except (RedisUnavailable, RedisReplyError):
            return False
        if not await self._settle():
            return False
        self._fallback.forget()
        return True

    async def _settle(self) -> bool:
        """Charge the arrears there are now; False if Redis went away again."""
        for _ in range(len(self._arrears)):
            now = monotonic()
            charges = self._arrears.take(now)
            if not charges:
                break
            try:
                await self._calls.charge_arrears(charges)
            except RedisUnavailable as error:
                if not error.outcome_unknown:
                    self._arrears.put_back(charges, now)
                return False
            except RedisReplyError as error:
                log.warning("rate_limit.arrears_refused", error=error.code)
        return True


def _decision(charges: Sequence[Charge], answers: Answers) -> Decision:
    verdicts = tuple(map(_verdict, charges, answers.charges))
    return Decision(answers.allowed, verdicts, "redis")


def _verdict(charge: Charge, answer: Answer) -> Verdict:
    return Verdict(
        charge.policy,
        charge.group,
        charge.subject,
        answer.state is ChargeState.FITS,
        charge.policy.limit,
        answer.remaining,
        -(-answer.release_us // 1000),
        max(0, -(-answer.wait_us // 1000)),
        answer.state is not ChargeState.TOO_DEAR,
        charge.policy.shadow,
    )
