"""The examples of the document are sent as they stand, and do what they are for."""

from __future__ import annotations

from typing import Any

from server.api.openapi.texts import EXAMPLES
from tests.api.conformance import document
from tests.api.conftest import Api, Course


def schemas_of_bodies() -> set[str]:
    """The names of the schemas that JSON bodies have."""
    names = set()
    for methods in document()["paths"].values():
        for operation in methods.values():
            schema = (
                operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
            )
            if schema is not None:
                names.add(schema.get("items", schema)["$ref"].rpartition("/")[2])
    return names


def test_every_body_has_an_example() -> None:
    """Each schema of a body has one in the document."""
    schemas = document()["components"]["schemas"]
    assert schemas_of_bodies() == set(EXAMPLES)
    assert all([EXAMPLES[name]] == schemas[name]["examples"] for name in EXAMPLES)


async def test_the_examples_are_accepted(api: Api, course: Course) -> None:
    """A student's and an administrator's day, by the examples alone: only ids and tokens are this test's own."""
    sent = set()

    async def send(method: str, path: str, name: str, *, bearer: str | None = None, **own: Any) -> Any:
        body = EXAMPLES[name]
        assert own.keys() <= body.keys(), name
        sent.add(name)
        headers = {} if bearer is None else {"Authorization": f"Bearer {bearer}"}
        by = "admin" if path.startswith("/api/admin") else None
        response = await api.request(method, path, by=by, json={**body, **own}, headers=headers)
        assert response.status < 300, f"{method} {path}: {await response.text()}"
        return await response.json() if response.content_type == "application/json" else None

    registered = await send("POST", "/api/auth/register", "RegisterRequest")
    tokens = await send("POST", "/api/auth/login", "LoginRequest")
    await send("POST", "/api/auth/refresh", "RefreshRequest", refreshToken=registered["refreshToken"])
    me = tokens["accessToken"]
    await send("PATCH", "/api/profile", "ProfileChanges", bearer=me)
    deck, card = str(course.decks["Analysis"]), str(course.cards["r1"])
    session = await send("POST", "/api/sessions", "SessionRequest", bearer=me, deckIds=[deck])
    path = f"/api/progress/cards/{card}"
    await send("PUT", path, "RatingRequest", bearer=me, sessionId=session["sessionId"])
    ratings = [{**rating, "flashcardId": card} for rating in EXAMPLES["RatingsRequest"]["ratings"]]
    await send("POST", "/api/progress/cards", "RatingsRequest", bearer=me, ratings=ratings)

    made = await send("POST", "/api/admin/classes", "ClassRequest")
    await send("PATCH", f"/api/admin/classes/{made['id']}", "ClassChanges")
    made = await send("POST", "/api/admin/decks", "DeckRequest", classId=made["id"])
    await send("PATCH", f"/api/admin/decks/{made['id']}", "DeckChanges")
    path = f"/api/admin/decks/{made['id']}/import"
    imported = await api.post(path, by="admin", json=[EXAMPLES["FileCard"]])
    assert 1 == (await imported.json())["created"]
    sent.add("FileCard")
    made = await send("POST", "/api/admin/flashcards", "FlashcardRequest", deckId=str(course.decks["Law"]))
    await send("PATCH", f"/api/admin/flashcards/{made['id']}", "FlashcardChanges")
    student = registered["user"]["id"]
    await send("PUT", f"/api/admin/rate-limits/user:{student}/overrides/standard", "OverrideRequest")
    await send("PATCH", f"/api/admin/users/{student}", "AccountChangesRequest")

    await send("POST", "/api/auth/password", "PasswordRequest", bearer=me)
    reset = await (await api.post(f"/api/admin/users/{student}/password-reset", by="admin")).json()
    await send("POST", "/api/auth/reset", "ResetRequest", token=reset["token"])
    new = EXAMPLES["ResetRequest"]["newPassword"]
    await send("DELETE", "/api/auth/me", "DeletionRequest", bearer=me, password=new)
    assert set(EXAMPLES) == sent
