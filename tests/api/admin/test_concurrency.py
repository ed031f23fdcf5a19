"""Administrators and students who write at the same moment: nothing is lost, nobody is counted wrongly."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import Any

import psycopg2
import pytest

from tests.api.admin.test_crud import CARDS, CLASSES, DECKS, Kind, create, every_kind, patch
from tests.api.conftest import Api, Course


def kept_and_counted(url: str) -> tuple[list[Any], list[Any]]:
    """The figures of every user as they are kept, and as a recount of their progress makes them."""
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT user_id::text, new_cards, learning_cards, mastered_cards FROM user_stats ORDER BY user_id"
        )
        kept = cursor.fetchall()
        cursor.execute(
            "SELECT u.id::text, count(*) FILTER (WHERE p.mastery_status = 'new'),"
            " count(*) FILTER (WHERE p.mastery_status = 'learning'),"
            " count(*) FILTER (WHERE p.mastery_status = 'mastered')"
            " FROM users AS u LEFT JOIN user_card_progress AS p ON p.user_id = u.id GROUP BY u.id ORDER BY u.id"
        )
        return kept, cursor.fetchall()


async def rate(api: Api, course: Course, *cards: str, by: str = "user", confidence: int = 4) -> None:
    """Rate cards by their names in the course."""
    ratings = [{"flashcardId": str(course.cards[card]), "confidenceLevel": confidence} for card in cards]
    response = await api.post("/api/progress/cards", by=by, json={"ratings": ratings})
    assert 200 == response.status, await response.text()


@every_kind
async def test_two_patches_of_different_fields_both_hold(api: Api, course: Course, kind: Kind) -> None:
    """However they interleave, each field has the value that was sent for it."""
    made = await create(api, kind, course)
    path = f"{kind.path}/{made['id']}"
    text = "question" if kind is CARDS else "name"

    for number in range(5):
        changes: list[dict[str, Any]] = [
            {text: f"text {number}"}, {"order": number + 1}, {"isPublished": number % 2 == 1},
        ]  # fmt: skip
        await asyncio.gather(*(patch(api, path, **change) for change in changes))

        row = await (await api.get(path, by="admin")).json()
        assert {key: value for change in changes for key, value in change.items()} == {
            key: row[key] for key in (text, "order", "isPublished")
        }


async def test_a_card_that_two_move_is_in_one_place_and_counted_once(api: Api, course: Course) -> None:
    """Moves of one card and changes of its text at once: all are answered 200, and every page agrees."""
    path = f"/api/admin/flashcards/{course.cards['r1']}"
    targets = [str(course.decks[name]) for name in ("Law", "Data", "Analysis", "Law", "Data")]

    await asyncio.gather(
        *(patch(api, path, deckId=target) for target in targets),
        *(patch(api, path, answer=f"answer {number}") for number in range(3)),
    )

    home = (await (await api.get(path, by="admin")).json())["deckId"]
    holders = [
        str(deck_id)
        for name, deck_id in course.decks.items()
        if name in {"Law", "Data", "Analysis"}
        and "question r1"
        in [
            card["question"]
            for card in (await (await api.get(f"/api/decks/{deck_id}/flashcards")).json())["flashcards"]
        ]
    ]
    assert [home] == holders
    classes = (await (await api.get("/api/classes")).json())["classes"]
    assert 6 == sum(entry["cardCount"] for entry in classes)


async def test_imports_into_one_deck_at_once_make_each_card_once(api: Api, course: Course) -> None:
    """The second import knows the cards of the first."""
    body = b"question\tanswer\n" + b"".join(b"q%d\ta%d\n" % (number, number) for number in range(200))
    responses = await asyncio.gather(
        *(
            api.post(
                f"/api/admin/decks/{course.decks['Law']}/import",
                by="admin",
                data=body,
                headers={"Content-Type": "text/tab-separated-values"},
            )
            for _ in range(4)
        )
    )

    counts = [await response.json() for response in responses]
    assert [0, 0, 0, 200] == sorted(count["created"] for count in counts)
    assert [0, 200, 200, 200] == sorted(count["unchanged"] for count in counts)


@pytest.mark.parametrize(
    ("path", "left"),
    [("flashcards/{card}", 3), ("decks/{deck}", 1), ("classes/{class_}", 1)],
    ids=["a card", "a deck", "a class"],
)
async def test_a_deletion_takes_the_progress_along(
    api: Api, course: Course, database_url: str, path: str, left: int
) -> None:
    """Progress, bookmarks and sessions of what is deleted go, and the figures of each student are right after it."""
    deck_id = str(course.decks["Analysis"])
    session = await (await api.post("/api/sessions", json={"deckIds": [deck_id]})).json()
    rating = {"confidenceLevel": 2, "sessionId": session["sessionId"]}
    await api.put(f"/api/progress/cards/{course.cards['r1']}", json=rating)
    await api.put(f"/api/bookmarks/{course.cards['r1']}")
    await rate(api, course, "r2", confidence=3)
    await rate(api, course, "r3", "a1")
    await rate(api, course, "r1", "r2", by="other")
    target = path.format(
        card=course.cards["r1"], deck=course.decks["Analysis"], class_=course.classes["Risk"]
    )

    assert 204 == (await api.delete(f"/api/admin/{target}", by="admin")).status

    kept, counted = kept_and_counted(database_url)
    assert kept == counted
    stats = await (await api.get("/api/stats")).json()
    assert left == stats["totalCardsStudied"]
    assert [] == (await (await api.get("/api/bookmarks")).json())["bookmarks"]
    assert 404 == (await api.get(f"/api/progress/cards/{course.cards['r1']}")).status
    ended = await api.post(f"/api/sessions/{session['sessionId']}/end")
    assert (200, 0) == (ended.status, (await ended.json())["session"]["cardsStudied"])


async def test_hiding_and_moving_leave_the_progress(api: Api, course: Course, database_url: str) -> None:
    """What a student knows stays known while a card is hidden or somewhere else, and shows when it is back."""
    await rate(api, course, "r1", "r2", "l1")
    classes = f"/api/classes/{course.classes['Risk']}"
    card = f"/api/admin/flashcards/{course.cards['r1']}"

    await patch(api, card, isPublished=False)
    assert (2, 4) == await studied_of(api, classes)
    await patch(api, card, isPublished=True, deckId=str(course.decks["Data"]))
    assert (1, 2) == await studied_of(api, f"/api/classes/{course.classes['Assets']}")
    await patch(api, card, deckId=str(course.decks["Analysis"]))

    assert (3, 5) == await studied_of(api, classes)
    kept, counted = kept_and_counted(database_url)
    assert kept == counted
    assert 3 == (await (await api.get("/api/stats")).json())["totalCardsStudied"]


async def studied_of(api: Api, path: str) -> tuple[int, int]:
    """How many cards of a class the student has studied, of how many."""
    decks = (await (await api.get(path)).json())["decks"]
    return sum(deck["studiedCount"] for deck in decks), sum(deck["cardCount"] for deck in decks)


async def test_ratings_while_decks_are_deleted_keep_the_figures_right(
    api: Api, course: Course, database_url: str
) -> None:
    """Students rate while what they rate is deleted: each rating is recorded or refused, and no figure is off."""
    made = await create(api, CLASSES, course)
    decks = [await create(api, DECKS, course, classId=made["id"]) for _ in range(4)]
    cards = [await create(api, CARDS, course, deckId=deck["id"]) for deck in decks for _ in range(5)]

    async def rate_all(by: str) -> set[int]:
        statuses = set()
        for card in cards:
            response = await api.put(f"/api/progress/cards/{card['id']}", by=by, json={"confidenceLevel": 3})
            statuses.add(response.status)
        return statuses

    async def delete_all() -> set[int]:
        paths = [
            f"/api/admin/flashcards/{cards[0]['id']}",
            *(f"/api/admin/decks/{deck['id']}" for deck in decks),
        ]
        responses = [
            await api.delete(path, by="admin") for path in [*paths, f"/api/admin/classes/{made['id']}"]
        ]
        return {response.status for response in responses}

    *rated, deleted = await asyncio.gather(rate_all("user"), rate_all("other"), delete_all())

    assert {204} == deleted
    assert set().union(*rated) <= {200, 404, 409}
    kept, counted = kept_and_counted(database_url)
    assert kept == counted
    assert 0 == sum(row[2] for row in kept)
