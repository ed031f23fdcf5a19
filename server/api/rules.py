"""What a route asks of its caller: a role, and the limits it is under."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from server.domain.identity.tokens import Role

# The group of config/ratelimits.toml for paths and methods that are not there.
UNMATCHED_GROUP = "unmatched"


LookUp = Callable[[web.Request], Any]
NameReader = Callable[[web.Request], Awaitable[str | None]]


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
