"""What handlers and middlewares find on the application and on a request, and what a route asks of its caller."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from server.dashboard.keeper import HistoryKeeper, Refusals
from server.domain.catalog.catalog import Catalog
from server.domain.identity.accounts import Accounts
from server.domain.identity.callers import Callers
from server.domain.identity.tokens import Caller, Role
from server.domain.replica_reads import ReplicaReads
from server.domain.study.ratings import Ratings
from server.domain.study.reading import Reading
from server.domain.writing import Writer
from server.errors import MasteryError, ServiceUnavailable, Unauthenticated
from server.net import Address
from server.ratelimit import Limiter
from server.ratelimit.reloading import RateLimitsFile
from server.settings import Settings
from server.stores.cache.cache import Cache
from server.stores.postgres.database import Database
from server.stores.postgres.replica import Replica
from server.stores.postgres.schema import SchemaWatch
from server.stores.redis.link import RedisLink
from server.telemetry.context import RequestContext
from server.telemetry.health import Health
from server.telemetry.metrics.index import Metrics
from server.telemetry.timings import Timings

# The group of config/ratelimits.toml for paths and methods that are not there.
UNMATCHED_GROUP = "unmatched"
LookUp = Callable[[web.Request], Any]
NameReader = Callable[[web.Request], Awaitable[str | None]]


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
    replica: Replica | None
    replica_reads: ReplicaReads
    ratings: Ratings


@dataclass(slots=True)
class Readiness:
    """Whether requests are welcome: not before everything has started, and not once the shutdown has begun."""

    is_ready: bool = False
    is_draining: bool = False


SERVICES = web.AppKey("services", Services)
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


class RequestState:
    """One object a request, made by the outermost link: finding several things on a request would cost more."""

    __slots__ = (
        "address", "caller", "client_ip", "context", "error_code", "limit_lines", "limit_outcome", "looked_up",
        "refusal", "request_id", "timings",
    )  # fmt: skip

    def __init__(self, context: RequestContext, timings: Timings, address: Address, client_ip: str) -> None:
        self.request_id = context.request_id
        # The same objects as `current_request` and `current_timings` give to code that does not have the request.
        self.context = context
        self.timings = timings
        self.address = address
        self.client_ip = client_ip
        # Set by authentication: the caller, or why the token was refused; neither for a request without a token.
        self.caller: Caller | None = None
        self.refusal: MasteryError | None = None
        # Set by the rate limit: the outcome, the headers for whatever answer the request gets in the end, and the
        # cache read that the route has started in the same call.
        self.limit_outcome = "unlimited"
        self.limit_lines = ""
        self.looked_up: Any = None
        # Set with every problem that is answered: its stable code.
        self.error_code: str | None = None


STATE = web.RequestKey("state", RequestState)
# Set by handlers whose requests have a cost that is known only afterwards.
SETTLED_COST = web.RequestKey("settled_cost", int)


def settle_cost(request: web.Request, units: int) -> None:
    """Charge a request so many units in the end, for routes that settle; once, and before its answer.

    Its decision has charged what the rate limits file says. More is charged as far as the limits have room.

    Raises:
        ValueError: it is below 0.
        RuntimeError: the request's cost is settled already.
    """
    if units < 0:
        raise ValueError(f"a request costs 0 units or more, not {units}")
    if SETTLED_COST in request:
        raise RuntimeError("the cost of this request is settled already")
    request[SETTLED_COST] = units


def state_of(request: web.Request) -> RequestState:
    """The state of a request."""
    return request[STATE]


@dataclass(frozen=True, slots=True)
class Rule:
    """The role and the rate limits of a route.

    Args:
        role: what the caller must have; None for a public route.
        limits: the route group in config/ratelimits.toml; None for routes that are never limited.
        accepts_unchecked: whether the role that the caller had when the database last answered is enough.
        look_up: asks the cache for what the handler will need, so that it travels with the limiter's question.
        name: reads the subject that the body names, for policies that count by it; None where it names none.
        route: method and path, as the rate limits file names a route with a cost of its own.
        settles: whether the handler reports what the request has cost (`settle_cost`).
    """

    role: Role | None
    limits: str | None
    accepts_unchecked: bool = False
    look_up: LookUp | None = None
    name: NameReader | None = None
    route: str = ""
    settles: bool = False


UNMATCHED = Rule(role=None, limits=UNMATCHED_GROUP)
Rules = Mapping[web.AbstractRoute, Rule]
RULES = web.AppKey("rules", dict[web.AbstractRoute, Rule])


def rule_of(request: web.Request, rules: Rules) -> Rule:
    """The rule of the route that a request matched."""
    return rules.get(request.match_info.route, UNMATCHED)
