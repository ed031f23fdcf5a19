"""`python -m server limits`: what a client has used of its limits, what is excepted, and how to change both."""

from __future__ import annotations

import asyncio
from argparse import Namespace
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from time import time
from typing import Final

import structlog

from server.api.routes import limited_routes
from server.clock import iso_timestamp
from server.domain.identity.subjects import parse_subject
from server.errors import CommandError
from server.ratelimit import Limiter
from server.ratelimit.limits import RateLimits
from server.ratelimit.limits_file import RateLimitsError, load_rate_limits
from server.ratelimit.overrides import ANY_POLICY, OverridesFull
from server.ratelimit.policies import Charge, Verdict
from server.settings import Settings
from server.stores.redis.link import RedisLink, RedisReplyError, RedisUnavailable

log = structlog.get_logger(__name__)

# A person waits for the answer: longer than a request would, shorter than patience.
_DEADLINE_MS = 2000


def run_limits(settings: Settings, options: Namespace) -> str:
    """Do what `limits ACTION SUBJECT` asks for. Returns what is printed.

    Raises:
        CommandError: the subject is none, the limits file is not valid, or Redis does not answer.
    """
    try:
        subject = parse_subject(options.subject)
    except ValueError as error:
        raise CommandError(str(error)) from error
    return asyncio.run(_run(settings, subject, options))


async def _run(settings: Settings, subject: str, options: Namespace) -> str:
    async with _tools(settings) as tools:
        return await _ACTIONS[options.action](tools, subject, options)


@dataclass(frozen=True, slots=True)
class _Tools:
    limiter: Limiter
    limits: RateLimits


@asynccontextmanager
async def _tools(settings: Settings) -> AsyncIterator[_Tools]:
    try:
        limits = load_rate_limits(
            settings.rate_limits_file, routes=limited_routes(), parse_subject=parse_subject
        )
    except RateLimitsError as error:
        raise CommandError(str(error)) from error
    link = RedisLink(
        settings.limiter_redis_url,
        deadline_ms=_DEADLINE_MS,
        connect_timeout_ms=_DEADLINE_MS,
        verify_tls=settings.redis_verify_tls,
    )
    await link.start()
    limiter = Limiter(link, deadline_ms=_DEADLINE_MS)
    limiter.overrides.use_file(limits.overrides)
    try:
        yield _Tools(limiter, limits)
    except RedisUnavailable as error:
        raise CommandError(f"Redis does not answer ({error.reason}); is REDIS_URL right?") from error
    except RedisReplyError as error:
        raise CommandError(
            f"Redis can't read what it holds for this client ({error.code}); `limits reset` forgets it"
        ) from error
    finally:
        await limiter.close()
        await link.close()


async def _show(tools: _Tools, subject: str, _options: Namespace) -> str:
    """A table of what a subject has used of each policy it can be counted under; looking consumes nothing."""
    charges = tools.limits.policies_for_subject(subject)
    await tools.limiter.overrides.refresh()
    decision = await tools.limiter.peek(charges)
    notes = await _notes(tools, subject)
    rows: list[tuple[str, ...]] = [
        ("POLICY", "GROUP", "CHARGE", "COST", "USED", "LIMIT", "REMAINING", "NEXT RELEASE")
    ]
    rows += [
        _row(verdict, tools.limits.charging_of(verdict.group), _costs(charge, tools.limits))
        for charge, verdict in zip(charges, decision.verdicts, strict=True)
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return "\n".join([*notes, *table])


async def _notes(tools: _Tools, subject: str) -> list[str]:
    """A line for each reason why the policies are not all that counts for a subject."""
    notes = []
    listed = tools.limits.networks.find_subject(subject)
    if listed is not None:
        what = "blocked" if listed[0] == "block" else "not limited"
        notes.append(f"{what}: the limits file lists the network {listed[1]}")
    if (left_ms := await tools.limiter.block_left_ms(subject)) is not None:
        notes.append(f"blocked until {_instant(time() + left_ms / 1000)} (for {left_ms / 1000:.0f} s)")
    for override in tools.limiter.overrides.of(subject):
        policy = "every policy" if override.policy == ANY_POLICY else override.policy
        limit = f"{policy}: {override.limit}" if override.limit else f"{policy}: not limited"
        by = ", by the limits file" if override.source == "file" else ""
        notes.append(f"{limit} until {_instant(override.ends_at)}{by}")
    return notes


def _instant(seconds: float) -> str:
    return iso_timestamp(datetime.fromtimestamp(seconds, UTC))


def _costs(charge: Charge, limits: RateLimits) -> str:
    """The cost of a request, and those of routes that have their own: `1, 2-20`."""
    own = limits.route_costs(charge.group).values()
    apart = f"{min(own)}-{max(own)}" if own else ""
    return ", ".join(filter(None, (str(charge.cost), apart)))


def _row(verdict: Verdict, charge: str, cost: str) -> tuple[str, ...]:
    release = f"in {verdict.next_release_ms / 1000:.1f} s" if verdict.next_release_ms else "-"
    used = verdict.limit - verdict.remaining
    return (
        verdict.policy.name, verdict.group, charge, cost, str(used), str(verdict.limit), str(verdict.remaining), release
    )  # fmt: skip


async def _reset(tools: _Tools, subject: str, _options: Namespace) -> str:
    """Forget what a subject has used, and end its block."""
    deleted = await tools.limiter.reset(subject, tools.limits.policies_for_subject(subject))
    log.info("audit.rate_limits_reset", source="command line", subject=subject)
    return f"{subject}: forgotten ({deleted} {'key' if deleted == 1 else 'keys'})"


async def _block(tools: _Tools, subject: str, options: Namespace) -> str:
    if any(override.limit is None for override in tools.limiter.overrides.of(subject)):
        raise CommandError(f"the limits file exempts {subject}: it can't be blocked")
    seconds = options.seconds
    await tools.limiter.block(subject, duration_ms=seconds * 1000)
    log.info("audit.rate_limits_blocked", source="command line", subject=subject, seconds=seconds)
    return f"{subject}: blocked for {seconds} s; `limits reset {subject}` ends it"


async def _override(tools: _Tools, subject: str, options: Namespace) -> str:
    """Give a subject another limit, or (`exempt`) none, under a policy or all of them."""
    policy, seconds = options.policy, options.seconds
    limit = options.limit if options.action == "override" else None
    known = sorted({charge.policy.name for charge in tools.limits.policies_for_subject(subject)})
    if policy not in {ANY_POLICY, *known}:
        raise CommandError(f"no policy {policy} counts {subject}; there are {', '.join(known)}")
    try:
        await tools.limiter.override(subject, [policy], limit=limit, duration_ms=seconds * 1000)
    except OverridesFull as error:
        raise CommandError(str(error)) from error
    log.info(
        "audit.rate_limit_overridden", source="command line", subject=subject, policy=policy, limit=limit,
        seconds=seconds,
    )  # fmt: skip
    what = "not limited" if limit is None else f"a limit of {limit}"
    under = "" if policy == ANY_POLICY else f" under {policy}"
    return f"{subject}: {what}{under} for {seconds} s; `limits restore {subject}` ends it"


async def _restore(tools: _Tools, subject: str, _options: Namespace) -> str:
    """End what was overridden for a subject; what the limits file says of it stays."""
    ended = await tools.limiter.overrides.end(subject)
    log.info("audit.rate_limit_override_ended", source="command line", subject=subject)
    return f"{subject}: as every other ({ended} {'override' if ended == 1 else 'overrides'} ended)"


_ACTIONS: Final[Mapping[str, Callable[[_Tools, str, Namespace], Awaitable[str]]]] = {
    "show": _show,
    "reset": _reset,
    "block": _block,
    "override": _override,
    "exempt": _override,
    "restore": _restore,
}
