"""The OpenAPI document is whole, and what it promises happens."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Any

import jsonschema_rs
import orjson
import pytest
from aiohttp import FormData

from server.api.openapi.document import openapi_document
from server.api.openapi.operations import OPERATIONS
from server.api.routes import ROUTES
from tests.api.conformance import check_answer, document, documented_responses
from tests.api.conftest import Api, Course

PASSWORD = "correct horse battery"
DECK_FILES = {
    "text/tab-separated-values": "Question\tAnswer\nWhat is risk?\tLikelihood times impact\n",
    "text/csv": "Question,Answer\nWhat is risk?,Likelihood times impact\n",
    "text/plain": "#separator:tab\n#html:false\nWhat is risk?\tLikelihood times impact\n",
    "application/json": '[{"question": "What is risk?", "answer": "Likelihood times impact"}]',
}


def test_every_route_is_in_the_document() -> None:
    """Each method of each path, no other; and no handler is described that no route has."""
    described = {
        f"{method.upper()} {path}" for path, methods in document()["paths"].items() for method in methods
    }
    assert {f"{route.method} {route.path}" for route in ROUTES} == described
    assert {route.handler for route in ROUTES} == set(OPERATIONS)


def test_operations_have_names_of_their_own() -> None:
    """Generated clients name their methods by them."""
    names = Counter(
        operation["operationId"] for methods in document()["paths"].values() for operation in methods.values()
    )
    assert {} == {name: count for name, count in names.items() if count > 1}


def test_operations_keep_their_names() -> None:
    """A client that is generated anew finds the methods that it has called before."""
    paths = document()["paths"]
    for method, path, name in (
        ("get", "/", "home.showHome"),
        ("get", "/dashboard", "dashboard.showPage"),
        ("get", "/api/health", "operations.health"),
        ("get", "/api/classes/{classId}", "classes.getClass"),
        ("get", "/api/decks/{deckId}/flashcards", "classes.listFlashcards"),
        ("put", "/api/progress/cards/{flashcardId}", "study.rateCard"),
        ("patch", "/api/profile", "profile.changeProfile"),
        ("get", "/api/admin/decks/{deckId}", "adminDecks.getDeck"),
        ("get", "/api/admin/decks/{deckId}/export", "adminImports.exportDeck"),
        ("get", "/api/admin/analytics/users", "admin.listUsers"),
    ):
        assert name == paths[path][method]["operationId"]


def test_nothing_is_said_twice_or_left_open() -> None:
    """Apispec warns of schemas that it gave two names; every schema is one, and every reference leads somewhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        described = orjson.loads(openapi_document.__wrapped__())
    assert "3.1.0" == described["openapi"]
    for name, schema in described["components"]["schemas"].items():
        jsonschema_rs.Draft202012Validator({**schema, "components": described["components"]})
        assert not name[-1].isdigit(), name
    for reference in _references(described):
        found: Any = described
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]


def test_everything_is_described() -> None:
    """Each operation, parameter, property, header, response, tag and named enum says what it is."""
    described = document()
    things = {"info": described["info"], **{f"tag {tag['name']}": tag for tag in described["tags"]}}
    for kind, components in described["components"].items():
        for name, component in components.items():
            things[f"{kind} {name}"] = component
            for field, schema in component.get("properties", {}).items():
                things[f"{name}.{field}"] = schema
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            things[f"{method} {path}"] = operation
            assert operation["summary"]
            for parameter in operation["parameters"]:
                if "$ref" not in parameter:
                    things[f"{method} {path} {parameter['name']}"] = parameter
    assert [] == [name for name, thing in things.items() if len(thing.get("description", "")) < 5]


def test_public_operations_say_that_they_need_no_token() -> None:
    """Without `security` a reader of the document would have to guess."""
    for route in ROUTES:
        security = document()["paths"][route.path][route.method.lower()]["security"]
        assert (route.audience == "public") == (security in ([], [{}, {"bearer": []}])), route


def test_roles_and_limits_are_those_of_the_routes() -> None:
    """401, 403 and 429 are documented where they happen, and a token where one is needed."""
    for route in ROUTES:
        operation = document()["paths"][route.path][route.method.lower()]
        statuses = set(operation["responses"])
        assert (route.limits is not None) == ("429" in statuses), route
        if route.audience != "public":
            assert [{"bearer": []}] == operation["security"], route
            assert "401" in statuses, route
        if route.audience == "admin":
            assert "403" in statuses, route


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"status": 418}, "not documented"),
        ({"headers": {}}, "no X-Request-ID"),
        ({"body": b'{"status": "ok"}'}, "timestamp"),
        ({"body": b'{"status": "ok", "timestamp": "2026-01-01T00:00:00.000Z", "more": 1}'}, "more"),
        ({"body": b'{"status": "ok", "timestamp": "yesterday"}'}, "timestamp"),
    ],
)
async def test_what_is_not_documented_is_found(api: Api, changed: dict[str, Any], complaint: str) -> None:
    """The check of this suite's answers tells a wrong status, header, field or value."""
    response = await api.get("/livez", by=None)
    answer: dict[str, Any] = {"status": 200, "headers": response.headers, "body": await response.read()}
    check_answer("GET", "/livez", **answer)
    with pytest.raises(AssertionError, match=complaint):
        check_answer("GET", "/livez", **(answer | changed))


async def test_every_documented_success_happens(api: Api, course: Course) -> None:
    """A student's and an administrator's day: it sees each status below 400 of each operation, all as documented."""
    seen = set()

    async def send(method: str, path: str, by: str | None, **options: Any) -> Any:
        response = await api.request(method, path, by=by, **options)
        assert response.status < 400, f"{method} {path}: {await response.text()}"
        known = documented_responses(method, response.request_info.url.raw_path)
        assert known is not None
        seen.add(f"{method} {known[0]} {response.status}")
        tag = response.headers.get("ETag")
        if tag is not None and response.status == 200:
            await send(method, path, by, headers={"If-None-Match": tag})
        return await response.json() if response.content_type == "application/json" else await response.text()

    await _operate(send)
    await _sign_in(send)
    await _study(send, course)
    await _administrate(send, api, course)
    promised = {
        f"{method.upper()} {path} {status}"
        for path, methods in document()["paths"].items()
        for method, operation in methods.items()
        for status in operation["responses"]
        if status < "400"
    }
    assert promised == seen


async def _operate(send: Any) -> None:
    for path in ("/", "/api/health", "/livez", "/readyz", "/api/metrics", "/api/docs", "/dashboard"):
        await send("GET", path, None)
    await send("POST", "/api/metrics", None)
    await send("GET", "/api/metrics/cache", "admin")
    await send("GET", "/api/dashboard", "admin")
    await send("POST", "/api/metrics/cache/reset", "admin")
    described = await send("GET", "/api/openapi.json", None)
    for folder in ("/api/docs", "/dashboard"):
        (file,) = described["paths"][f"{folder}/{{file}}"]["get"]["parameters"][:1]
        await send("GET", f"{folder}/{file['schema']['enum'][0]}", None)


async def _sign_in(send: Any) -> None:
    account = {"email": "somebody@example.com", "password": PASSWORD}
    await send("POST", "/api/auth/register", None, json=account)
    tokens = await send("POST", "/api/auth/login", None, json=account)
    tokens = await send("POST", "/api/auth/refresh", None, json={"refreshToken": tokens["refreshToken"]})
    await send("POST", "/api/auth/logout", None, json={"refreshToken": tokens["refreshToken"]})
    await send("GET", "/api/auth/me", "user")
    await send("GET", "/api/profile", "user")
    await send("PATCH", "/api/profile", "user", json={"timeZone": "Europe/Berlin"})


async def _study(send: Any, course: Course) -> None:
    class_id, deck_id, card_id = course.classes["Risk"], course.decks["Analysis"], course.cards["r1"]
    await send("GET", "/api/classes?limit=1", "user")
    started = await send("POST", "/api/sessions", "user", json={"deckIds": [str(deck_id)]})
    rating = {"confidenceLevel": 3, "sessionId": started["sessionId"], "responseTime": 1200}
    await send("GET", "/api/sessions", "user")
    headers = {"Idempotency-Key": "a rating", "X-Time-Zone": "Asia/Tokyo"}
    for _ in range(2):
        await send("PUT", f"/api/progress/cards/{card_id}", "user", json=rating, headers=headers)
    batch = [{"flashcardId": str(course.cards[card]), "confidenceLevel": 5} for card in ("r2", "r3")]
    await send("POST", "/api/progress/cards", "user", json={"ratings": batch})
    await send("POST", f"/api/sessions/{started['sessionId']}/end", "user")
    for _ in range(2):
        await send("PUT", f"/api/bookmarks/{card_id}", "user")
    for path in (
        f"/api/classes/{class_id}",
        f"/api/classes/{class_id}/study?mode=all&decks={deck_id}&limit=5",
        f"/api/decks/{deck_id}/flashcards",
        "/api/study/due",
        "/api/progress?since=2026-01-01T00:00:00Z",
        f"/api/progress/class/{class_id}",
        f"/api/progress/cards/{card_id}",
        "/api/stats",
        "/api/bookmarks",
        "/api/sessions",
    ):
        await send("GET", path, "user")
    await send("DELETE", f"/api/bookmarks/{card_id}", "user")


async def _administrate(send: Any, api: Api, course: Course) -> None:
    subject = f"user:{api.people['user'].user_id}"
    for path in (
        "/api/admin/analytics/users?limit=1",
        f"/api/admin/analytics/users/{api.people['user'].user_id}",
        f"/api/admin/rate-limits/{subject}",
    ):
        await send("GET", path, "admin")
    await send("DELETE", f"/api/admin/rate-limits/{subject}", "admin")
    override = f"/api/admin/rate-limits/{subject}/overrides/api"
    await send("PUT", override, "admin", json={"limit": 10_000_000, "seconds": 60})
    await send("DELETE", override, "admin")
    account = f"/api/admin/users/{api.people['other'].user_id}"
    await send("GET", "/api/admin/users?limit=1", "admin")
    await send("GET", account, "admin")
    await send("PATCH", account, "admin", json={"plan": "team"})
    reset = await send("POST", f"{account}/password-reset", "admin")
    await send("POST", "/api/auth/reset", None, json={"token": reset["token"], "newPassword": PASSWORD})
    passwords = {"currentPassword": PASSWORD, "newPassword": f"another {PASSWORD}"}
    await send("POST", "/api/auth/password", "other", json=passwords)
    await send("GET", "/api/auth/me/export", "other")
    await send("DELETE", "/api/auth/me", "other", json={"password": passwords["newPassword"]})
    for media_type, text in DECK_FILES.items():
        path = f"/api/admin/decks/{course.decks['Law']}/import"
        await send("POST", path, "admin", data=text, headers={"Content-Type": media_type})
    form = FormData()
    form.add_field("file", "Question,Answer\nQ,A\n", filename="deck.csv")
    await send("POST", f"{path}/form", "admin", data=form)
    await send(
        "GET",
        f"/api/admin/decks/{course.decks['Law']}/export",
        "admin",
        headers={"Accept": "application/json"},
    )
    new: dict[str, dict[str, Any]] = {
        "classes": {"name": "Operations"},
        "decks": {"name": "Incidents", "classId": str(course.classes["Risk"])},
        "flashcards": {"question": "1 + 1?", "answer": "2", "deckId": str(course.decks["Law"])},
    }
    for kind, values in new.items():
        made = await send("POST", f"/api/admin/{kind}", "admin", json=values)
        await send("GET", f"/api/admin/{kind}?limit=1", "admin")
        await send("GET", f"/api/admin/{kind}/{made['id']}", "admin")
        await send("PATCH", f"/api/admin/{kind}/{made['id']}", "admin", json={"isPublished": True})
        await send("DELETE", f"/api/admin/{kind}/{made['id']}", "admin")


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if "$ref" in value else []
        return own + [reference for inner in value.values() for reference in _references(inner)]
    if isinstance(value, list):
        return [reference for inner in value for reference in _references(inner)]
    return []
