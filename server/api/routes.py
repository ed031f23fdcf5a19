"""The whole API on one page: path, handler, role and rate limits of each route."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from aiohttp import hdrs, web

from server.api import assets, auth, operations, study
from server.api.admin import course, limits
from server.api.admin import imports as admin_import
from server.api.admin import users as admin_users
from server.api.services import UNMATCHED_GROUP, LookUp, NameReader, Rule
from server.domain.identity.tokens import Role
from server.ratelimit.subjects import SubjectKind

HandlerFunction = Callable[[web.Request], Awaitable[web.Response]]
# A `reader` is a user; while the database is unavailable, also one whose account can't be looked at again. Whatever
# changes something, or is an admin's, is for callers whose rights were read from the database a moment ago.
Audience = Literal["public", "reader", "user", "admin"]
_ROLES: dict[Audience, Role | None] = {"public": None, "reader": "user", "user": "user", "admin": "admin"}


@dataclass(frozen=True, slots=True)
class Route:
    """One line of the table below; `limits` is a group of config/ratelimits.toml, None for never limited.

    `look_up` sends what the handler needs from the cache together with the limiter's question: one round trip. `named`
    is a kind of subject that the body names, and what reads it. `settles`: the handler reports what a request has cost.
    """

    method: str
    path: str
    handler: HandlerFunction
    audience: Audience
    limits: str | None
    look_up: LookUp | None = None
    named: tuple[SubjectKind, NameReader] | None = None
    settles: bool = False

    @property
    def name(self) -> str:
        """Method and path, as in `POST /api/sessions`."""
        return f"{self.method} {self.path}"


ROUTES = (
    # Operations
    Route("GET", "/api/health", operations.health, "public", None),
    Route("GET", "/", assets.show_home, "public", None),
    Route("GET", "/livez", operations.livez, "public", None),
    Route("GET", "/readyz", operations.readyz, "public", None),
    Route("GET", "/api/metrics", operations.show_metrics, "public", None),
    Route("POST", "/api/metrics", operations.show_metrics_json, "public", None),
    # An admin, or the METRICS_TOKEN: the handler looks.
    Route("GET", "/api/metrics/cache", operations.show_cache_metrics, "public", None),
    Route("POST", "/api/metrics/cache/reset", operations.reset_cache_metrics, "admin", None),
    Route("GET", "/api/dashboard", operations.show_dashboard, "public", None),
    Route("GET", "/dashboard", operations.show_page, "public", None),
    Route("GET", "/dashboard/{file}", operations.show_file, "public", None),
    # Documentation
    Route("GET", "/api/openapi.json", assets.show_openapi, "public", None),
    Route("GET", "/api/docs", assets.show_documentation, "public", None),
    Route("GET", "/api/docs/{file}", assets.show_asset, "public", None),
    # Identity
    Route("POST", "/api/auth/register", auth.register, "public", "register"),
    Route("POST", "/api/auth/login", auth.login, "public", "login", named=("email", auth.name_email)),
    Route(
        "POST",
        "/api/auth/refresh",
        auth.refresh,
        "public",
        "refresh",
        named=("token-family", auth.name_family),
    ),
    Route("POST", "/api/auth/logout", auth.logout, "public", "writes"),
    # A wrong current password, or one-time token, is a failed login.
    Route(
        "POST",
        "/api/auth/password",
        auth.change_password,
        "user",
        "login",
        named=("email", auth.name_own_email),
    ),
    Route(
        "POST", "/api/auth/reset", auth.reset_password, "public", "login", named=("email", auth.name_nobody)
    ),
    Route("GET", "/api/auth/me", auth.get_me, "reader", "reads"),
    # Costs as much as all that is kept: not one of the reads.
    Route("GET", "/api/auth/me/export", auth.export_me, "user", "writes"),
    Route("DELETE", "/api/auth/me", auth.delete_me, "user", "login", named=("email", auth.name_own_email)),
    Route("GET", "/api/profile", auth.get_profile, "reader", "reads"),
    Route("PATCH", "/api/profile", auth.change_profile, "user", "writes"),
    # Reading
    Route("GET", "/api/classes", study.list_classes, "reader", "reads"),
    Route("GET", "/api/classes/{classId}", study.get_class, "reader", "reads", study.look_up_class),
    Route("GET", "/api/classes/{classId}/study", study.study_class, "reader", "reads"),
    Route("GET", "/api/decks/{deckId}/flashcards", study.list_flashcards, "reader", "reads"),
    Route("GET", "/api/study/due", study.get_due_counts, "reader", "reads"),
    Route("GET", "/api/progress", study.list_progress, "reader", "reads"),
    Route("GET", "/api/progress/class/{classId}", study.get_class_progress, "reader", "reads"),
    Route("GET", "/api/progress/cards/{flashcardId}", study.get_card_progress, "reader", "reads"),
    Route("GET", "/api/stats", study.get_stats, "reader", "reads"),
    Route("GET", "/api/bookmarks", study.list_bookmarks, "reader", "reads"),
    Route("GET", "/api/sessions", study.list_sessions, "reader", "reads"),
    # Studying
    Route(
        "PUT", "/api/progress/cards/{flashcardId}", study.rate_card, "user", "ratings", study.look_up_overlays
    ),
    Route("POST", "/api/progress/cards", study.rate_cards, "user", "ratings"),
    Route("POST", "/api/sessions", study.start_session, "user", "writes"),
    Route("POST", "/api/sessions/{sessionId}/end", study.end_session, "user", "writes"),
    Route("PUT", "/api/bookmarks/{flashcardId}", study.add_bookmark, "user", "writes"),
    Route("DELETE", "/api/bookmarks/{flashcardId}", study.delete_bookmark, "user", "writes"),
    # Administration
    Route("GET", "/api/admin/classes", course.list_classes, "admin", "admin-reads"),
    Route("POST", "/api/admin/classes", course.create_class, "admin", "admin-writes"),
    Route("GET", "/api/admin/classes/{classId}", course.get_class, "admin", "admin-reads"),
    Route("PATCH", "/api/admin/classes/{classId}", course.update_class, "admin", "admin-writes"),
    Route("DELETE", "/api/admin/classes/{classId}", course.delete_class, "admin", "admin-destructive"),
    Route("GET", "/api/admin/decks", course.list_decks, "admin", "admin-reads"),
    Route("POST", "/api/admin/decks", course.create_deck, "admin", "admin-writes"),
    Route("GET", "/api/admin/decks/{deckId}", course.get_deck, "admin", "admin-reads"),
    Route("PATCH", "/api/admin/decks/{deckId}", course.update_deck, "admin", "admin-writes"),
    Route("DELETE", "/api/admin/decks/{deckId}", course.delete_deck, "admin", "admin-destructive"),
    Route(
        "POST",
        "/api/admin/decks/{deckId}/import",
        admin_import.import_deck,
        "admin",
        "admin-destructive",
        settles=True,
    ),
    Route(
        "POST",
        "/api/admin/decks/{deckId}/import/form",
        admin_import.upload_deck,
        "admin",
        "admin-destructive",
        settles=True,
    ),
    Route("GET", "/api/admin/decks/{deckId}/export", admin_import.export_deck, "admin", "admin-reads"),
    Route("GET", "/api/admin/flashcards", course.list_flashcards, "admin", "admin-reads"),
    Route("POST", "/api/admin/flashcards", course.create_flashcard, "admin", "admin-writes"),
    Route("GET", "/api/admin/flashcards/{flashcardId}", course.get_flashcard, "admin", "admin-reads"),
    Route(
        "PATCH",
        "/api/admin/flashcards/{flashcardId}",
        course.update_flashcard,
        "admin",
        "admin-writes",
    ),
    Route(
        "DELETE",
        "/api/admin/flashcards/{flashcardId}",
        course.delete_flashcard,
        "admin",
        "admin-destructive",
    ),
    Route("GET", "/api/admin/users", admin_users.list_accounts, "admin", "admin-reads"),
    Route("GET", "/api/admin/users/{userId}", admin_users.get_account, "admin", "admin-reads"),
    Route("PATCH", "/api/admin/users/{userId}", admin_users.update_account, "admin", "admin-writes"),
    Route(
        "POST",
        "/api/admin/users/{userId}/password-reset",
        admin_users.reset_password,
        "admin",
        "admin-writes",
    ),
    Route("GET", "/api/admin/analytics/users", admin_users.list_users, "admin", "admin-reads"),
    Route("GET", "/api/admin/analytics/users/{userId}", admin_users.get_user, "admin", "admin-reads"),
    Route("GET", "/api/admin/rate-limits/{subject}", limits.show_rate_limits, "admin", "admin-reads"),
    Route(
        "DELETE", "/api/admin/rate-limits/{subject}", limits.reset_rate_limits, "admin", "admin-destructive"
    ),
    Route(
        "PUT",
        "/api/admin/rate-limits/{subject}/overrides/{policy}",
        limits.override_rate_limit,
        "admin",
        "admin-writes",
    ),
    Route(
        "DELETE",
        "/api/admin/rate-limits/{subject}/overrides/{policy}",
        limits.end_override,
        "admin",
        "admin-destructive",
    ),
)


def limit_groups() -> dict[str, frozenset[SubjectKind]]:
    """The groups of config/ratelimits.toml that there must be, with the kinds of subjects that every request names."""
    groups: dict[str, frozenset[SubjectKind]] = {UNMATCHED_GROUP: frozenset()}
    for route in ROUTES:
        if route.limits is not None:
            named = frozenset() if route.named is None else frozenset({route.named[0]})
            groups[route.limits] = groups.get(route.limits, named) & named
    return groups


def limited_routes() -> dict[str, str]:
    """The group of each limited route, by its name."""
    return {route.name: route.limits for route in ROUTES if route.limits is not None}


def add_routes(app: web.Application) -> dict[web.AbstractRoute, Rule]:
    """Put every route on an application, and answer with their rules; each GET answers HEAD as well."""
    rules = {}
    for route in ROUTES:
        rule = Rule(
            role=_ROLES[route.audience],
            limits=route.limits,
            accepts_unchecked=route.audience == "reader",
            look_up=route.look_up,
            name=None if route.named is None else route.named[1],
            route=route.name,
            settles=route.settles,
        )
        methods = (hdrs.METH_GET, hdrs.METH_HEAD) if route.method == hdrs.METH_GET else (route.method,)
        for method in methods:
            rules[app.router.add_route(method, route.path, route.handler)] = rule
    return rules
