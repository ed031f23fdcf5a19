"""/api/admin/rate-limits: the rate limits of a client, with what is excepted from them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import structlog
from aiohttp import web

from server.api.admin.schemas import OverrideSchema
from server.api.requests import read_json, refuse_query
from server.api.responses import json_response
from server.api.services import caller_of, services_of
from server.api.writes import answer, no_content, write
from server.clock import iso_timestamp
from server.domain.identity.subjects import parse_subject
from server.domain.writing import Answer, Unit
from server.errors import Conflict, InvalidInput, LimitsUnreadable, ServiceUnavailable
from server.ratelimit.limits import RateLimits
from server.ratelimit.overrides import ANY_POLICY, MAX_OVERRIDES, Override, OverridesFull
from server.ratelimit.policies import Charge, Verdict
from server.ratelimit.subjects import Listing, Network
from server.stores.redis.link import RedisReplyError, RedisUnavailable

log = structlog.get_logger(__name__)

_OVERRIDE = OverrideSchema()


async def show_rate_limits(request: web.Request) -> web.Response:
    """What a client has used of each policy; looking consumes nothing."""
    subject = _subject(request)
    refuse_query(request)
    services = services_of(request)
    limits = services.rate_limits.current
    with _problems_of_redis(subject):
        charges = limits.policies_for_subject(subject)
        decision = await services.limiter.peek(charges)
        block_left_ms = await services.limiter.block_left_ms(subject)
    listed = limits.networks.find_subject(subject)
    policies = [
        _policy(charge, verdict, limits) for charge, verdict in zip(charges, decision.verdicts, strict=True)
    ]
    return json_response(
        {
            "subject": subject,
            "block": _block(block_left_ms, listed),
            "allowedNetwork": str(listed[1]) if listed is not None and listed[0] == "allow" else None,
            "overrides": [describe_override(override) for override in services.limiter.overrides.of(subject)],
            "source": decision.source,
            "policies": policies,
        }
    )


async def reset_rate_limits(request: web.Request) -> web.Response:
    """Forget what a client has used."""
    subject = _subject(request)
    services = services_of(request)

    async def work(unit: Unit) -> Answer:
        # In Redis, which no rollback reaches; a reset that happens twice is still one.
        with _problems_of_redis(subject):
            await services.limiter.reset(subject, services.rate_limits.current.policies_for_subject(subject))
        admin_id = str(caller_of(request).user_id)
        unit.afterwards.append(
            partial(log.info, "audit.rate_limits_reset", subject=subject, admin_id=admin_id)
        )
        return no_content()

    return await write(request, work)


async def override_rate_limit(request: web.Request) -> web.Response:
    """Give a client another limit under a policy for a time, or none (`*`: none under all policies).

    It is in force in every worker within a second. An exemption ends the client's block.
    """
    subject, policy = _subject(request), request.match_info["policy"]
    services = services_of(request)
    changes = await read_json(request, _OVERRIDE)
    limit, seconds = changes["limit"], changes["seconds"]
    _check_policy(services.rate_limits.current, subject, policy, limit)

    async def work(unit: Unit) -> Answer:
        # In Redis, which no rollback reaches; an override that is set twice is still one.
        with _problems_of_redis(subject):
            try:
                await services.limiter.override(subject, [policy], limit=limit, duration_ms=seconds * 1000)
            except OverridesFull as error:
                raise Conflict(f"There are {MAX_OVERRIDES} overrides; end some of them first.") from error
        unit.afterwards.append(
            partial(
                log.info,
                "audit.rate_limit_overridden",
                subject=subject,
                policy=policy,
                limit=limit,
                seconds=seconds,
                admin_id=caller_of(request).user_key,
            )
        )
        return answer(
            describe_override(Override(subject, policy, limit, datetime.now(UTC).timestamp() + seconds))
        )

    return await write(request, work)


async def end_override(request: web.Request) -> web.Response:
    """End what holds for a client instead of a policy's limit; what the file says of it stays."""
    subject, policy = _subject(request), request.match_info["policy"]
    services = services_of(request)
    _check_policy(services.rate_limits.current, subject, policy, None)

    async def work(unit: Unit) -> Answer:
        with _problems_of_redis(subject):
            await services.limiter.overrides.end(subject, [policy])
        unit.afterwards.append(
            partial(
                log.info,
                "audit.rate_limit_override_ended",
                subject=subject,
                policy=policy,
                admin_id=caller_of(request).user_key,
            )
        )
        return no_content()

    return await write(request, work)


def describe_override(override: Override) -> dict[str, Any]:
    """An override in the form of the API."""
    ends_at = datetime.fromtimestamp(override.ends_at, UTC)
    return {
        "policy": override.policy,
        "limit": override.limit,
        "endsAt": iso_timestamp(ends_at),
        "source": override.source,
    }


def _block(left_ms: int | None, listed: tuple[Listing, Network] | None) -> dict[str, Any] | None:
    """Why a client is refused: by its network, which has no end, or by an operator."""
    if listed is not None and listed[0] == "block":
        return {"endsAt": None, "network": str(listed[1])}
    if left_ms is None:
        return None
    ends_at = datetime.now(UTC) + timedelta(milliseconds=left_ms)
    return {"endsAt": iso_timestamp(ends_at), "network": None}


def _check_policy(limits: RateLimits, subject: str, policy: str, limit: int | None) -> None:
    """Refuse a policy under which the client is never counted, and one limit for all policies."""
    known = sorted({charge.policy.name for charge in limits.policies_for_subject(subject)})
    if policy == ANY_POLICY and limit is not None:
        raise InvalidInput(errors={"limit": "Must be null for all policies."})
    if policy not in (ANY_POLICY, *known):
        raise InvalidInput(errors={"policy": f"Must be * or one of {', '.join(known)}."})


@contextmanager
def _problems_of_redis(subject: str) -> Iterator[None]:
    """Answer what Redis refuses with a problem: one client's keys may hold anything, and others can be served."""
    try:
        yield
    except RedisUnavailable as error:
        raise ServiceUnavailable("The rate limits can't be reached.") from error
    except RedisReplyError as error:
        log.warning("rate_limits.unreadable", subject=subject, error=str(error))
        raise LimitsUnreadable from error


def _subject(request: web.Request) -> str:
    try:
        return parse_subject(request.match_info["subject"])
    except ValueError as error:
        raise InvalidInput(errors={"subject": str(error)}) from error


def _policy(charge: Charge, verdict: Verdict, limits: RateLimits) -> dict[str, Any]:
    """A verdict in the form of the API; times in milliseconds."""
    calendar = verdict.policy.calendar
    return {
        "policy": verdict.policy.name,
        "group": verdict.group,
        "limit": verdict.limit,
        "windowMs": verdict.policy.window_ms,
        "calendar": None if calendar is None else {"period": calendar.period, "zone": calendar.zone},
        "charge": limits.charging_of(verdict.group),
        "cost": charge.cost,
        "routeCosts": limits.route_costs(verdict.group),
        "remaining": verdict.remaining,
        "nextReleaseMs": verdict.next_release_ms,
        "allowed": verdict.allowed,
    }
