"""Lists to their end: nothing twice, nothing lost, and no cursor but the list's own."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from tests.api.conftest import Api, Course, run_statement


async def walk(api: Api, path: str, name: str, **options: Any) -> list[dict[str, Any]]:
    """All entries of a list, page by page."""
    entries: list[dict[str, Any]] = []
    cursor = ""
    for _ in range(100):
        joint = "&" if "?" in path else "?"
        response = await api.get(f"{path}{joint}limit=3{cursor}", **options)
        assert 200 == response.status, await response.text()
        page = await response.json()
        assert page.keys() == {name, "nextCursor"}
        entries += page[name]
        if page["nextCursor"] is None:
            return entries
        assert 3 == len(page[name])
        cursor = f"&cursor={page['nextCursor']}"
    pytest.fail("the list does not end")


async def test_classes_come_by_order_then_name(api: Api) -> None:
    """Ties in the order, names in any script and of any length, names that differ by case: each once, sorted."""
    url = api.services.settings.database_url
    names = ["b", "B", "a", "A", "é", "e", "Z", "漢" * 255, "\U0001f393" * 255, "same", "same", "same"]
    for number, name in enumerate(names):
        run_statement(
            url,
            "INSERT INTO classes (name, sort_order, is_published) VALUES (%s, %s, true)",
            name,
            number % 2,
        )
    seen = await walk(api, "/api/classes", "classes")
    assert len(names) == len({entry["id"] for entry in seen}) == len(seen)
    assert sorted((number % 2, name) for number, name in enumerate(names)) == [
        (entry["order"], entry["name"]) for entry in seen
    ]


@pytest.mark.parametrize(
    ("sort", "figure"),
    [("recent", "lastActiveDate"), ("studied", "totalCardsStudied"), ("streak", "studyStreakDays")],
)
async def test_users_are_ranked_to_the_end(api: Api, sort: str, figure: str) -> None:
    """Users who tie, and users who never studied, come each exactly once, and those without figures last."""
    url = api.services.settings.database_url
    run_statement(
        url, "INSERT INTO users (email) SELECT 'u' || n || '@example.com' FROM generate_series(1, 20) AS n"
    )
    run_statement(
        url,
        "UPDATE user_stats SET new_cards = 7, study_streak_days = 3, streak_lapses_at = now() + interval '1 day',"
        " last_active_at = '2026-01-05Z', last_active_date = '2026-01-05'"
        " WHERE user_id IN (SELECT id FROM users ORDER BY id LIMIT 9)",
    )
    run_statement(
        url,
        "UPDATE user_stats SET new_cards = 9, study_streak_days = 5, streak_lapses_at = now() + interval '1 day',"
        " last_active_at = '2026-01-06Z', last_active_date = '2026-01-06'"
        " WHERE user_id IN (SELECT id FROM users ORDER BY id DESC LIMIT 4)",
    )
    # A streak that has lapsed without anybody having looked ranks as none.
    run_statement(url, "UPDATE user_stats SET study_streak_days = 99, streak_lapses_at = now() - interval '1 hour'"
                       " WHERE study_streak_days = 0")  # fmt: skip
    users = await walk(api, f"/api/admin/analytics/users?sort={sort}", "users", by="admin")
    assert 23 == len({user["id"] for user in users}) == len(users)
    nothing: Any = "" if sort == "recent" else 0
    figures = [user[figure] or nothing for user in users]
    assert sorted(figures, reverse=True) == figures
    assert {user["studyStreakDays"] for user in users} == {0, 3, 5}


async def test_bookmarks_come_newest_first(api: Api, course: Course) -> None:
    """Bookmarks of one moment, too, come each once; of unpublished cards none; and only the reader's."""
    url = api.services.settings.database_url
    for name in ("r1", "r2", "r3", "l1", "l2", "a1"):
        assert 201 == (await api.put(f"/api/bookmarks/{course.cards[name]}")).status
    await api.put(f"/api/bookmarks/{course.cards['r1']}", by="other")
    run_statement(
        url,
        "UPDATE bookmarks SET created_at = '2026-01-01Z' WHERE flashcard_id <> %s",
        str(course.cards["a1"]),
    )
    run_statement(url, "UPDATE flashcards SET is_published = false WHERE id = %s", str(course.cards["l2"]))
    seen = await walk(api, "/api/bookmarks", "bookmarks")
    assert "question a1" == seen[0]["question"]
    assert {"question r1", "question r2", "question r3", "question l1", "question a1"} == {
        bookmark["question"] for bookmark in seen
    }
    assert 5 == len(seen)
    assert {
        "flashcardId": str(course.cards["a1"]), "question": "question a1", "answer": "answer a1",
        "deckId": str(course.decks["Data"]), "deckName": "Data",
        "classId": str(course.classes["Assets"]), "className": "Assets",
    } == {key: value for key, value in seen[0].items() if key != "createdAt"}  # fmt: skip
    assert 1 == len(await walk(api, "/api/bookmarks", "bookmarks", by="other"))


async def test_sessions_come_newest_first(api: Api, course: Course) -> None:
    """All of them, or those of a deck; running ones without figures."""
    for deck in ("Analysis", "Law", "Analysis", "Data", "Analysis", "Law", "Analysis"):
        assert 201 == (await api.post("/api/sessions", json={"deckIds": [str(course.decks[deck])]})).status
    seen = await walk(api, "/api/sessions", "sessions")
    assert 7 == len({session["id"] for session in seen}) == len(seen)
    times = [session["startedAt"] for session in seen]
    assert sorted(times, reverse=True) == times
    of_deck = await walk(api, f"/api/sessions?deckId={course.decks['Analysis']}", "sessions")
    assert 4 == len(of_deck)
    assert [] == await walk(api, "/api/sessions", "sessions", by="other")


async def test_a_cursor_belongs_to_its_list_and_its_reader(api: Api, course: Course) -> None:
    """Cursors of other lists, other orders, other readers or other keys are refused; one bit is enough."""
    for name in ("r1", "r2"):
        await api.put(f"/api/bookmarks/{course.cards[name]}", by="user")
        await api.put(f"/api/bookmarks/{course.cards[name]}", by="admin")
        for _ in range(2):
            await api.post("/api/sessions", json={"deckIds": [str(course.decks["Law"])]}, by="admin")
    lists = ["/api/classes?", "/api/bookmarks?", "/api/sessions?", f"/api/sessions?deckId={course.decks['Law']}&",
             "/api/admin/analytics/users?sort=recent&", "/api/admin/analytics/users?sort=studied&",
             "/api/admin/analytics/users?sort=streak&"]  # fmt: skip
    cursors = {
        path: (await (await api.get(f"{path}limit=1", by="admin")).json())["nextCursor"] for path in lists
    }
    assert all(cursors.values())
    accepted = {
        (path, origin)
        for path in lists
        for origin, cursor in cursors.items()
        if (await api.get(f"{path}limit=1&cursor={cursor}", by="admin")).status == 200
    }
    assert {(path, path) for path in lists} == accepted
    assert 400 == (await api.get(f"/api/bookmarks?cursor={cursors['/api/bookmarks?']}", by="user")).status
    good = cursors["/api/classes?"]
    for spoilt in (
        good[:-1],
        good[1:],
        f"{good}A",
        good.swapcase(),
        good[:20] + ("A" if good[20] != "A" else "B") + good[21:],
    ):
        assert 400 == (await api.get(f"/api/classes?cursor={spoilt}")).status


async def test_a_page_continues_where_the_one_before_ended(api: Api, course: Course) -> None:
    """What is removed or added between two pages neither repeats nor hides anything else."""
    names = ["r1", "r2", "r3", "l1", "l2"]
    for name in names:
        await api.put(f"/api/bookmarks/{course.cards[name]}")
    first = await (await api.get("/api/bookmarks?limit=2")).json()
    assert ["question l2", "question l1"] == [bookmark["question"] for bookmark in first["bookmarks"]]
    await api.delete(f"/api/bookmarks/{course.cards['l1']}")  # the very one that the cursor names
    await api.put(f"/api/bookmarks/{course.cards['a1']}")
    rest = await (await api.get(f"/api/bookmarks?limit=9&cursor={first['nextCursor']}")).json()
    assert ["question r3", "question r2", "question r1"] == [
        bookmark["question"] for bookmark in rest["bookmarks"]
    ]
    assert UUID(rest["bookmarks"][0]["flashcardId"]) == course.cards["r3"]
