"""`python -m server limits`: what a client has used of its limits, and how to change that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from server.api.routes import limited_routes
from server.domain.identity.subjects import parse_subject
from server.errors import CommandError
from server.ratelimit import Limiter
from server.ratelimit.limits import RateLimits
from server.ratelimit.limits_file import RateLimitsError, load_rate_limits
from server.ratelimit.policies import Charge, Verdict
from server.settings import Settings
from server.stores.redis.link import RedisLink, RedisReplyError, RedisUnavailable

# A person waits for the answer: longer than a request would, shorter than patience.
_DEADLINE_MS = 2000


def show_limits(settings: Settings, subject: str) -> str:
    """A table of what a subject has used of each policy it can be counted under; looking consumes nothing.

    Raises:
        CommandError: the subject is none, the limits file is not valid, or Redis does not answer.
    """
    return asyncio.run(_show(settings, _normal(subject)))


def reset_limits(settings: Settings, subject: str) -> str:
    """Forget what a subject has used, and end its block; raises as show_limits does."""
    return asyncio.run(_reset(settings, _normal(subject)))


def block_subject(settings: Settings, subject: str, *, seconds: int) -> str:
    """Refuse everything of a subject for so many seconds; raises as show_limits does."""
    return asyncio.run(_block(settings, _normal(subject), seconds))


@dataclass(frozen=True, slots=True)
class _Tools:
    limiter: Limiter
    limits: RateLimits


@asynccontextmanager
async def _tools(settings: Settings) -> AsyncIterator[_Tools]:
    try:
        limits = load_rate_limits(settings.rate_limits_file, routes=limited_routes())
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


async def _show(settings: Settings, subject: str) -> str:
    async with _tools(settings) as tools:
        charges = tools.limits.policies_for_subject(subject)
        decision = await tools.limiter.peek(charges)
    rows: list[tuple[str, ...]] = [
        ("POLICY", "GROUP", "CHARGE", "COST", "USED", "LIMIT", "REMAINING", "NEXT RELEASE")
    ]
    rows += [
        _row(verdict, tools.limits.charging_of(verdict.group), _costs(charge, tools.limits))
        for charge, verdict in zip(charges, decision.verdicts, strict=True)
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


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


async def _reset(settings: Settings, subject: str) -> str:
    async with _tools(settings) as tools:
        deleted = await tools.limiter.reset(subject, tools.limits.policies_for_subject(subject))
    return f"{subject}: forgotten ({deleted} {'key' if deleted == 1 else 'keys'})"


async def _block(settings: Settings, subject: str, seconds: int) -> str:
    async with _tools(settings) as tools:
        await tools.limiter.block(subject, duration_ms=seconds * 1000)
    return f"{subject}: blocked for {seconds} s; `limits reset {subject}` ends it"


def _normal(subject: str) -> str:
    try:
        return parse_subject(subject)
    except ValueError as error:
        raise CommandError(str(error)) from error
