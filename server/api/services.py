"""What handlers and middlewares find on the application and on a request."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from server.api.pagination import Cursors
from server.api.state import state_of
from server.dashboard.keeper import HistoryKeeper
from server.dashboard.refusals import Refusals
from server.domain.catalog.catalog import Catalog
from server.domain.identity.accounts import Accounts
from server.domain.identity.callers import Callers
from server.domain.identity.tokens import Caller
from server.domain.study.ratings import Ratings
from server.domain.study.reading import Reading
from server.domain.writing import Writer
from server.errors import ServiceUnavailable, Unauthenticated
from server.ratelimit import Limiter
from server.ratelimit.reloading import RateLimitsFile
from server.settings import Settings
from server.stores.cache.cache import Cache
from server.stores.postgres.database import Database
from server.stores.postgres.schema import SchemaWatch
from server.stores.redis.link import RedisLink
from server.telemetry.health import Health
from server.telemetry.metrics.index import Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything that app.py has wired, by name."""

    settings: Settings
    database: Database
    schema: SchemaWatch
    redis: RedisLink
    limiter_redis: RedisLink  # the same, unless RATE_LIMIT_REDIS_URL names another
    cache: Cache
    metrics: Metrics
    health: Health
    refusals: Refusals
    history: HistoryKeeper
    limiter: Limiter
    rate_limits: RateLimitsFile
    callers: Callers
    accounts: Accounts
    catalog: Catalog
    reading: Reading
    writer: Writer
    ratings: Ratings


@dataclass(slots=True)
class Readiness:
    """Whether requests are welcome: not before everything has started, and not once the shutdown has begun."""

    is_ready: bool = False
    is_draining: bool = False


SERVICES = web.AppKey("services", Services)
CURSORS = web.AppKey("cursors", Cursors)
READINESS = web.AppKey("readiness", Readiness)


def services_of(request: web.Request) -> Services:
    """The services of the application that a request came to."""
    return request.app[SERVICES]


def caller_of(request: web.Request) -> Caller:
    """The caller, of routes that require a role: there is always one."""
    caller = state_of(request).caller
    if caller is None:
        raise Unauthenticated
    return caller


def checked_caller_of(request: web.Request) -> Caller:
    """The caller, with rights that were read from the database a moment ago.

    Raises:
        Unauthenticated: there is no token, or it was refused.
        ServiceUnavailable: the database could not be asked.
    """
    state = state_of(request)
    if state.caller is None:
        raise state.refusal or Unauthenticated()
    if not state.caller.is_checked:
        raise ServiceUnavailable("What this account may do can't be checked now; try again shortly.")
    return state.caller
