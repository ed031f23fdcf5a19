"""GET /api/classes and below: the course as a student reads it."""

from __future__ import annotations

from tests.api.conftest import Api, Course


async def test_the_list_of_classes_counts_published_decks_and_cards(api: Api, course: Course) -> None:
    """Drafts are neither listed nor counted, and classes come by order."""
    response = await api.get("/api/classes")

    assert 200 == response.status
    body = await response.json()
    assert [
        {"id": str(course.classes["Risk"]), "name": "Risk", "description": None, "order": 0, "icon": None,
         "color": None, "deckCount": 2, "cardCount": 5},
        {"id": str(course.classes["Assets"]), "name": "Assets", "description": None, "order": 1, "icon": None,
         "color": None, "deckCount": 1, "cardCount": 1},
    ] == body["classes"]  # fmt: skip
    assert body["nextCursor"] is None
