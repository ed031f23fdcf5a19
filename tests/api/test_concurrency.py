"""Several devices of one student at once: nothing is lost, and nothing is counted twice."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

from server.cli.counters import check_counters
from tests.api.conftest import Api, Course
from tests.stores.postgres.databases import ask


async def start_session(api: Api, course: Course) -> str:
    """The id of a new session."""
    started = await api.post("/api/sessions", json={"deckIds": [str(course.decks["Analysis"])]})
    session_id: str = (await started.json())["sessionId"]
    return session_id


async def test_devices_that_rate_the_same_card(api: Api, course: Course, database_url: str) -> None:
    """Each rating is seen once, and what is kept is what one of them was answered last."""
    path = f"/api/progress/cards/{course.cards['r1']}"
    answers = await asyncio.gather(*(api.put(path, json={"confidenceLevel": 1 + n % 5}) for n in range(20)))

    bodies = [await answer.json() for answer in answers]
    assert list(range(1, 21)) == sorted(body["timesSeen"] for body in bodies)
    last = max(bodies, key=lambda body: body["timesSeen"])
    assert last == await (await api.get(path)).json()
    assert 0 == check_counters(database_url).differences


async def test_a_batch_and_single_ratings_at_once(api: Api, course: Course, database_url: str) -> None:
    """Batches that name the same cards in any order, and single ratings between them: every one counts, none fails."""
    chance = random.Random(4)  # noqa: S311 - orders cards
    cards = [str(course.cards[name]) for name in ("r1", "r2", "r3", "l1", "l2")]
    expected: Counter[str] = Counter()
    requests = []
    for _ in range(10):
        chosen = [chance.choice(cards) for _ in range(8)]
        expected.update(chosen)
        ratings = [{"flashcardId": card, "confidenceLevel": chance.randint(1, 5)} for card in chosen]
        requests.append(api.post("/api/progress/cards", json={"ratings": ratings}))
        single = chance.choice(cards)
        expected[single] += 1
        requests.append(api.put(f"/api/progress/cards/{single}", json={"confidenceLevel": 3}))

    assert {200} == {answer.status for answer in await asyncio.gather(*requests)}
    seen = ask(database_url, "SELECT flashcard_id::text, times_seen FROM user_card_progress")
    assert expected == dict(seen)
    assert 0 == check_counters(database_url).differences


async def test_ratings_beside_the_end_of_their_session(api: Api, course: Course, database_url: str) -> None:
    """A rating comes before the end and is counted in the session, or after it and is refused: 409."""
    session_id = await start_session(api, course)
    rating = {"confidenceLevel": 4, "sessionId": session_id}
    paths = [f"/api/progress/cards/{course.cards[name]}" for name in ("r1", "r2", "r3")] * 4
    ratings = [api.put(path, json=rating) for path in paths]
    ends = [api.post(f"/api/sessions/{session_id}/end") for _ in range(3)]

    answers = await asyncio.gather(*ratings[:6], *ends, *ratings[6:])

    ended = [answer for answer in answers if answer.method == "POST"]
    rated = [answer.status for answer in answers if answer.method == "PUT"]
    assert {200, 409} >= set(rated)
    figures = [(await answer.json())["session"] for answer in ended]
    assert [figures[0]] * 3 == figures
    assert [(rated.count(200),)] == ask(database_url, "SELECT count(*) FROM session_cards")
    counted = ask(database_url, "SELECT count(DISTINCT flashcard_id) FROM session_cards")
    assert [(figures[0]["cardsStudied"],)] == counted
    assert figures[0] == (await (await api.post(f"/api/sessions/{session_id}/end")).json())["session"]


async def test_a_session_ended_at_once_by_two_devices_counts_once(
    api: Api, course: Course, database_url: str
) -> None:
    """Both get the same figures, and its time is added to the total a single time."""
    session_id = await start_session(api, course)
    aged = "UPDATE study_sessions SET started_at = started_at - interval '100 seconds' RETURNING 1"
    assert [(1,)] == ask(database_url, aged)

    ends = await asyncio.gather(*(api.post(f"/api/sessions/{session_id}/end") for _ in range(5)))

    (figures,) = {str(await end.json()): (await end.json())["session"] for end in ends}.values()
    stats = await (await api.get("/api/stats")).json()
    assert figures["studyDuration"] == stats["totalStudyTime"] >= 100


async def test_a_bookmark_set_and_removed_at_once(api: Api, course: Course, database_url: str) -> None:
    """Every request succeeds, and exactly as many bookmarks are new as were missing."""
    path = f"/api/bookmarks/{course.cards['r1']}"
    added = await asyncio.gather(*(api.put(path) for _ in range(5)))
    assert [200, 200, 200, 200, 201] == sorted(answer.status for answer in added)
    assert 1 == len({await answer.text() for answer in added})

    mixed = await asyncio.gather(*(api.request(("PUT", "DELETE")[n % 2], path) for n in range(12)))
    assert {200, 201, 204} >= {answer.status for answer in mixed}
    assert ask(database_url, "SELECT count(*) FROM bookmarks") in ([(0,)], [(1,)])


async def rate_offline(api: Api, card: object, level: int, hour: int) -> dict[str, Any]:
    """Send a rating that was made on 2 March 2026, at an hour of UTC."""
    rating = {"flashcardId": str(card), "confidenceLevel": level, "ratedAt": f"2026-03-02T{hour:02}:00:00Z"}
    answer = await api.post("/api/progress/cards", json={"ratings": [rating]})
    progress: dict[str, Any] = (await answer.json())["progress"][0]
    return progress


async def test_an_older_rating_comes_late(api: Api, course: Course) -> None:
    """It counts as seen; level and next review stay those of the newer one."""
    newer = await rate_offline(api, course.cards["r1"], 5, hour=12)
    late = await rate_offline(api, course.cards["r1"], 1, hour=9)
    assert {**newer, "timesSeen": 2} == late
    assert "2026-03-09T12:00:00.000Z" == late["nextReviewDate"]
