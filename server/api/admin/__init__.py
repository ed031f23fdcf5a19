"""/api/admin: figures of the students, and the rate limits of a client."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from uuid import UUID

import structlog
from aiohttp import web

from server.api.requests import path_id, read_query, refuse_query
from server.api.responses import json_response
from server.api.schemas import UsersQuerySchema
from server.api.services import CURSORS, caller_of, services_of
from server.api.writes import no_content, write
from server.domain.identity.subjects import parse_subject
from server.domain.study import analytics
from server.domain.writing import Answer, Unit
from server.errors import InvalidInput, LimitsUnreadable, ServiceUnavailable
from server.ratelimit.limits import RateLimits
from server.ratelimit.policies import Charge, Verdict
from server.stores.redis.link import RedisReplyError, RedisUnavailable

log = structlog.get_logger(__name__)

_USERS = UsersQuerySchema()


async def list_users(request: web.Request) -> web.Response:
    """A page of users with their figures."""
    query = read_query(request, _USERS)
    cursors = request.app[CURSORS]
    listing = f"users:{query['sort']}"
    position = cursors.read(listing, query["cursor"])
    before = None if position is None else (position[0], UUID(position[1]))
    rows = await analytics.list_users(
        services_of(request).database, query["sort"], before=before, page_size=query["limit"] + 1
    )
    page, next_cursor = cursors.page(listing, rows, query["limit"], lambda row: (row["rank"], str(row["id"])))
    return json_response(
        {"users": [analytics.describe_user_figures(row) for row in page], "nextCursor": next_cursor}
    )


async def get_user(request: web.Request) -> web.Response:
    """One user's figures, with their progress class by class."""
    user_id = path_id(request, "userId")
    refuse_query(request)
    return json_response(await analytics.get_user_figures(services_of(request).database, user_id))


async def show_rate_limits(request: web.Request) -> web.Response:
    """What a client has used of each policy; looking consumes nothing."""
    subject = _subject(request)
    refuse_query(request)
    services = services_of(request)
    limits = services.rate_limits.current
    with _problems_of_redis(subject):
        charges = limits.policies_for_subject(subject)
        decision = await services.limiter.peek(charges)
    policies = [
        _policy(charge, verdict, limits) for charge, verdict in zip(charges, decision.verdicts, strict=True)
    ]
    return json_response({"subject": subject, "source": decision.source, "policies": policies})


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
    return {
        "policy": verdict.policy.name,
        "group": verdict.group,
        "limit": verdict.limit,
        "windowMs": verdict.policy.window_ms,
        "charge": limits.charging_of(verdict.group),
        "cost": charge.cost,
        "routeCosts": limits.route_costs(verdict.group),
        "remaining": verdict.remaining,
        "nextReleaseMs": verdict.next_release_ms,
        "allowed": verdict.allowed,
    }
