"""Who may use which route: one table over all routes, and every kind of caller."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import jwt
import pytest

from server.api.assets import asset_names
from server.api.routes import ROUTES
from tests.api.conftest import SECRET_KEY, Api, Course

Audience = Literal["public", "user", "admin"]

# Every route, and who may use it: a route that is not here fails the tests.
AUDIENCES: dict[str, Audience] = {
    "GET /api/health": "public",
    "GET /": "public",
    "GET /livez": "public",
    "GET /readyz": "public",
    "GET /api/metrics": "public",
    "POST /api/metrics": "public",
    "GET /api/metrics/cache": "admin",
    "POST /api/metrics/cache/reset": "admin",
    "GET /api/openapi.json": "public",
    "GET /api/docs": "public",
    "GET /api/docs/{file}": "public",
    "GET /api/dashboard": "admin",
    "GET /dashboard": "public",
    "GET /dashboard/{file}": "public",
    "POST /api/auth/register": "public",
    "POST /api/auth/login": "public",
    "POST /api/auth/refresh": "public",
    "POST /api/auth/logout": "public",
    "POST /api/auth/password": "user",
    "POST /api/auth/reset": "public",
    "GET /api/auth/me": "user",
    "GET /api/auth/me/export": "user",
    "DELETE /api/auth/me": "user",
    "GET /api/profile": "user",
    "PATCH /api/profile": "user",
    "GET /api/classes": "user",
    "GET /api/classes/{classId}": "user",
    "GET /api/classes/{classId}/study": "user",
    "GET /api/decks/{deckId}/flashcards": "user",
    "GET /api/study/due": "user",
    "GET /api/progress": "user",
    "GET /api/progress/class/{classId}": "user",
    "GET /api/progress/cards/{flashcardId}": "user",
    "GET /api/stats": "user",
    "GET /api/bookmarks": "user",
    "GET /api/sessions": "user",
    "PUT /api/progress/cards/{flashcardId}": "user",
    "POST /api/progress/cards": "user",
    "POST /api/sessions": "user",
    "POST /api/sessions/{sessionId}/end": "user",
    "PUT /api/bookmarks/{flashcardId}": "user",
    "DELETE /api/bookmarks/{flashcardId}": "user",
    "GET /api/admin/classes": "admin",
    "POST /api/admin/classes": "admin",
    "GET /api/admin/classes/{classId}": "admin",
    "PATCH /api/admin/classes/{classId}": "admin",
    "DELETE /api/admin/classes/{classId}": "admin",
    "GET /api/admin/decks": "admin",
    "POST /api/admin/decks": "admin",
    "GET /api/admin/decks/{deckId}": "admin",
    "PATCH /api/admin/decks/{deckId}": "admin",
    "DELETE /api/admin/decks/{deckId}": "admin",
    "POST /api/admin/decks/{deckId}/import": "admin",
    "POST /api/admin/decks/{deckId}/import/form": "admin",
    "GET /api/admin/decks/{deckId}/export": "admin",
    "GET /api/admin/flashcards": "admin",
    "POST /api/admin/flashcards": "admin",
    "GET /api/admin/flashcards/{flashcardId}": "admin",
    "PATCH /api/admin/flashcards/{flashcardId}": "admin",
    "DELETE /api/admin/flashcards/{flashcardId}": "admin",
    "GET /api/admin/users": "admin",
    "GET /api/admin/users/{userId}": "admin",
    "PATCH /api/admin/users/{userId}": "admin",
    "POST /api/admin/users/{userId}/password-reset": "admin",
    "GET /api/admin/analytics/users": "admin",
    "GET /api/admin/analytics/users/{userId}": "admin",
    "GET /api/admin/rate-limits/{subject}": "admin",
    "DELETE /api/admin/rate-limits/{subject}": "admin",
    "PUT /api/admin/rate-limits/{subject}/overrides/{policy}": "admin",
    "DELETE /api/admin/rate-limits/{subject}/overrides/{policy}": "admin",
}


def path_of(template: str, course: Course, api: Api) -> str:
    """A path that exists."""
    user_id = str(api.people["user"].user_id)
    values = {
        "{classId}": course.classes["Risk"],
        "{deckId}": course.decks["Analysis"],
        "{flashcardId}": course.cards["r1"],
        "{sessionId}": course.cards["r1"],
        "{userId}": user_id,
        "{subject}": f"user:{user_id}",
        "{policy}": "api",
        "{file}": asset_names()[0],
    }
    for name, value in values.items():
        template = template.replace(name, str(value))
    assert "{" not in template, f"{template}: say here what to put in"
    return template


def test_every_route_is_in_the_table() -> None:
    """A new route needs a line here, which says whom it is for."""
    assert set(AUDIENCES) == {f"{route.method} {route.path}" for route in ROUTES}


async def status_by_route(api: Api, course: Course, **options: Any) -> dict[str, int]:
    """What each route answers to a caller, without a body."""
    statuses = {}
    for route in AUDIENCES:
        method, _, template = route.partition(" ")
        response = await api.request(method, path_of(template, course, api), **options)
        statuses[route] = response.status
        if response.status == 401:
            assert "Bearer" == response.headers["WWW-Authenticate"], route
        if response.status in {401, 403}:
            assert "application/problem+json" == response.content_type, route
    return statuses


@pytest.mark.parametrize("by", [None, "user", "admin"])
async def test_each_role_may_do_what_it_may(api: Api, course: Course, by: str | None) -> None:
    """Strangers get 401 and students 403 where they may not; nobody gets either where they may."""
    allowed = {None: {"public"}, "user": {"public", "user"}, "admin": {"public", "user", "admin"}}[by]
    refusal = 401 if by is None else 403
    wrong = {
        route: status
        for route, status in (await status_by_route(api, course, by=by)).items()
        if (status == refusal) != (AUDIENCES[route] not in allowed) or status >= 500
    }
    assert {} == wrong


def refused_tokens(api: Api) -> dict[str, str]:
    """Authorization headers that must not open anything, by what is wrong with them."""
    caller = api.people["admin"]
    good = api.tokens.issue(caller)
    now = datetime.now(UTC)
    claims = {
        "iss": "mastery", "sub": str(caller.user_id), "role": "admin", "iat": now, "exp": now + timedelta(hours=1)
    }  # fmt: skip

    def sign(key: str = SECRET_KEY, algorithm: str = "HS256", **changed: Any) -> str:
        merged = {name: value for name, value in (claims | changed).items() if value is not None}
        return jwt.encode(merged, key, algorithm=algorithm)

    header, payload, signature = good.split(".")
    tokens = {
        "expired": sign(exp=now - timedelta(seconds=60)),
        "not yet": sign(iat=now + timedelta(hours=1)),
        "other key": sign("another key that is long enough for HS256"),
        "other algorithm": sign(SECRET_KEY * 2, "HS512"),
        "algorithm none": jwt.encode(claims, "", algorithm="none"),
        "other issuer": sign(iss="https://example.com"),
        "no issuer": sign(iss=None),
        "no expiry": sign(exp=None),
        "no role": sign(role=None),
        "no subject": sign(sub=None),
        "an audience": sign(aud="somebody"),
        "unknown role": sign(role="root"),
        "list of roles": sign(role=["admin"]),
        "subject is no UUID": sign(sub="admin"),
        "plan is no text": sign(plan=7),
        "payload changed": f"{header}.{payload[:-2]}AA.{signature}",
        "signature missing": f"{header}.{payload}.",
        "garbage": "garbage",
        "empty": "",
        "dots": "..",
        "not ASCII": "é.é.é",
        "very long": "a" * 7000,
    }
    return {
        **{name: f"Bearer {token}" for name, token in tokens.items()},
        "basic": "Basic YWRtaW46YWRtaW4=",
        "no scheme": good,
        "wrong scheme": f"Token {good}",
        "two tokens": f"Bearer {good} {good}",
    }


async def test_a_refused_token_opens_nothing(api: Api, course: Course) -> None:
    """Whatever is wrong with a token, its bearer is a stranger: 401 where a role is needed."""
    wrong = {}
    for name, header in refused_tokens(api).items():
        response = await api.get("/api/auth/me", by=None, headers={"Authorization": header})
        if response.status != 401:
            wrong[name] = response.status
    assert {} == wrong
    statuses = await status_by_route(
        api, course, by=None, headers={"Authorization": refused_tokens(api)["expired"]}
    )
    assert {} == {
        route: status
        for route, status in statuses.items()
        if (status == 401) != (AUDIENCES[route] != "public")
    }


async def test_an_expired_token_says_so(api: Api) -> None:
    """The client can tell a token to refresh from one to throw away."""
    expired = await api.get(
        "/api/auth/me", by=None, headers={"Authorization": refused_tokens(api)["expired"]}
    )
    assert ("invalid_token", "The access token has expired.") == (
        (await expired.json())["code"],
        (await expired.json())["detail"],
    )


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_scheme_has_no_case(api: Api, scheme: str) -> None:
    """Authentication schemes are compared without case (RFC 9110, section 11.1)."""
    token = api.tokens.issue(api.people["user"])
    response = await api.get("/api/auth/me", by=None, headers={"Authorization": f"{scheme}  {token} "})
    assert 200 == response.status
