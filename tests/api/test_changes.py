"""GET /api/study/due and GET /api/progress: what is due, and what has changed since a device was online last."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import psycopg2
import pytest

from tests.api.conftest import Api, Course, run_statement
from tests.api.test_reading import body_of


async def rate(api: Api, course: Course, *names: str, confidence: int = 3, by: str = "user") -> None:
    """Rate cards of the course, one after the other."""
    for name in names:
        path = f"/api/progress/cards/{course.cards[name]}"
        assert 200 == (await api.put(path, json={"confidenceLevel": confidence}, by=by)).status


async def changes(
    api: Api, course: Course, since: str | None, limit: int = 2
) -> tuple[list[str], str | None]:
    """The names of the cards whose progress has changed, over all pages, and `until` of the last one."""
    names = {str(card_id): name for name, card_id in course.cards.items()}
    options: dict[str, Any] = {"limit": limit, **({} if since is None else {"since": since})}
    changed = []
    while True:
        response = await api.get("/api/progress", params=options)
        page = await response.json()
        assert 200 == response.status, page
        changed += [names[entry["flashcardId"]] for entry in page["progress"]]
        if page["nextCursor"] is None:
            return changed, page["until"]
        assert page["until"] == since or since is None
        options["cursor"] = page["nextCursor"]


async def test_due_cards_are_counted_over_all_classes(api: Api, course: Course) -> None:
    """The reader's rated and published cards whose time has come; nobody else's, and no drafts."""
    assert {"dueCards": 0, "classes": []} == await body_of(api, "/api/study/due")
    await rate(api, course, "r1", "r2", "l1", "a1")
    await rate(api, course, "r3", by="other")
    assert {"dueCards": 0, "classes": []} == await body_of(api, "/api/study/due")
    url = api.services.settings.database_url
    run_statement(url, "UPDATE user_card_progress SET next_review_at = now() - interval '1 hour'")
    run_statement(url, "UPDATE flashcards SET is_published = false WHERE id = %s", str(course.cards["r2"]))
    assert {
        "dueCards": 3,
        "classes": [
            {"classId": str(course.classes["Risk"]), "className": "Risk", "dueCards": 2},
            {"classId": str(course.classes["Assets"]), "className": "Assets", "dueCards": 1},
        ],
    } == await body_of(api, "/api/study/due")


async def test_a_device_gets_what_has_changed_since_it_was_online(api: Api, course: Course) -> None:
    """All of it first, page by page in the order of the changes; from then on what is new, and nothing twice."""
    assert ([], None) == await changes(api, course, None)
    await rate(api, course, "r1", "l1", "r2", "l2", "r1")
    changed, until = await changes(api, course, None)
    assert ["l1", "r2", "l2", "r1"] == changed
    assert ([], until) == await changes(api, course, until)
    await rate(api, course, "r3", by="other")
    late = [{"flashcardId": str(course.cards["l2"]), "confidenceLevel": 1, "ratedAt": "2026-01-01T00:00:00Z"}]
    assert 200 == (await api.post("/api/progress/cards", json={"ratings": late})).status
    changed, later = await changes(api, course, until)
    assert ["l2"] == changed, "a late rating is a change of now"
    assert ([], later) == await changes(api, course, later)


async def test_an_unfinished_change_is_not_passed_over(api: Api, course: Course) -> None:
    """What commits after an answer comes with the next one, though it was written before."""
    await rate(api, course, "r1", "r2")
    user, card = str(api.people["user"].user_id), str(course.cards["r1"])
    with closing(psycopg2.connect(api.services.settings.database_url)) as connection:
        with connection.cursor() as cursor:
            cursor.execute("SELECT FROM user_stats WHERE user_id = %s FOR UPDATE", (user,))
            cursor.execute(
                "UPDATE user_card_progress SET times_seen = 9 WHERE user_id = %s AND flashcard_id = %s",
                (user, card),
            )
        _, until = await changes(api, course, None)
        in_the_future = (await body_of(api, "/api/health"))["timestamp"]
        _, until_of_a_fast_clock = await changes(api, course, in_the_future)
        connection.commit()
    assert until == until_of_a_fast_clock
    assert (["r1"], True) == ((await changes(api, course, until))[0], until is not None)


async def test_a_card_that_moves_is_no_change_of_progress(api: Api, course: Course) -> None:
    """Another deck takes the progress along, outside of the lock that orders a user's changes."""
    await rate(api, course, "l1")
    _, until = await changes(api, course, None)
    path, deck = f"/api/admin/flashcards/{course.cards['l1']}", str(course.decks["Analysis"])
    assert 200 == (await api.request("PATCH", path, json={"deckId": deck}, by="admin")).status
    assert ([], until) == await changes(api, course, until)


@pytest.mark.parametrize(
    "since", ["yesterday", "2026-01-01T00:00:00", "1999-01-01T00:00:00Z", "2999-01-01T00:00:00Z"]
)
async def test_since_is_a_moment_with_a_zone(api: Api, since: str) -> None:
    """What is no moment, has no zone, or can't be meant is refused by name."""
    response = await api.get("/api/progress", params={"since": since})
    assert (400, "since") == (response.status, (await response.json())["errors"][0]["field"])
