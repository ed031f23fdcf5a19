"""Ratings, sessions and bookmarks over HTTP: shapes, statuses, and other people's things."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from tests.api.conftest import Api, Course, run_statement


def moment(text: str) -> datetime:
    """A time of the API."""
    assert text.endswith("Z")
    assert 24 == len(text)
    return datetime.fromisoformat(text)


async def test_a_rating_answers_with_the_cards_progress(api: Api, course: Course) -> None:
    """A rating upserts one row, which reading it gives back; each rating counts and moves the next review."""
    path = f"/api/progress/cards/{course.cards['r1']}"
    for times, confidence, status, days in ((1, 5, "mastered", 7), (2, 1, "new", 0.5), (3, 3, "learning", 1)):
        before = datetime.now(UTC) - timedelta(seconds=1)
        response = await api.put(path, json={"confidenceLevel": confidence, "responseTime": 0})
        assert 200 == response.status
        progress = await response.json()
        assert {
            "flashcardId": str(course.cards["r1"]), "confidenceLevel": confidence, "masteryStatus": status,
            "timesSeen": times,
        } == {key: value for key, value in progress.items() if not key.endswith("Date")}  # fmt: skip
        seen = moment(progress["lastSeenDate"])
        assert before <= seen <= datetime.now(UTC)
        assert timedelta(days=days) == moment(progress["nextReviewDate"]) - seen
        assert progress == await (await api.get(path)).json()
    assert 404 == (await api.get(path, by="other")).status


async def test_a_batch_answers_in_its_order(api: Api, course: Course) -> None:
    """An offline client's ratings carry their own times, and the answer follows the request."""
    hour_ago = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    names = ["l1", "r2", "l1"]
    ratings: list[dict[str, Any]] = [
        {"flashcardId": str(course.cards[name]), "confidenceLevel": 4, "ratedAt": hour_ago.isoformat()}
        for name in names
    ]
    response = await api.post("/api/progress/cards", json={"ratings": ratings})
    assert 200 == response.status
    progress = (await response.json())["progress"]
    assert [(str(course.cards[name]), names.count(name)) for name in names] == [
        (entry["flashcardId"], entry["timesSeen"]) for entry in progress
    ]
    assert {hour_ago} == {moment(entry["lastSeenDate"]) for entry in progress}
    ratings[1]["flashcardId"] = str(uuid4())
    refused = await api.post("/api/progress/cards", json={"ratings": ratings})
    assert 404 == refused.status
    assert ratings[1]["flashcardId"] in (await refused.json())["detail"]
    assert progress[0] == await (await api.get(f"/api/progress/cards/{course.cards['l1']}")).json()


async def test_a_session_from_start_to_end(api: Api, course: Course) -> None:
    """Started with 201, fed by ratings, ended with its figures; ended again the same; then closed to ratings."""
    response = await api.post("/api/sessions", json={"deckIds": [str(course.decks["Analysis"])]})
    started = await response.json()
    assert (201, {"sessionId", "startedAt"}) == (response.status, started.keys())
    moment(started["startedAt"])
    path = f"/api/progress/cards/{course.cards['r1']}"
    for confidence in (5, 4, 4):
        body = {"confidenceLevel": confidence, "sessionId": started["sessionId"]}
        assert 200 == (await api.put(path, json=body)).status
    ends = [await (await api.post(f"/api/sessions/{started['sessionId']}/end")).json() for _ in range(2)]
    assert ends[0] == ends[1]
    assert {"id": started["sessionId"], "cardsStudied": 1, "averageConfidence": 4.33} == {
        key: ends[0]["session"][key] for key in ("id", "cardsStudied", "averageConfidence")
    }
    assert ends[0]["session"].keys() == {"id", "cardsStudied", "studyDuration", "averageConfidence"}
    late = await api.put(path, json={"confidenceLevel": 1, "sessionId": started["sessionId"]})
    assert (409, 4) == (late.status, (await (await api.get(path)).json())["confidenceLevel"])


async def test_somebody_elses_session_is_not_there(api: Api, course: Course) -> None:
    """Neither a rating nor an end reaches it, and the answer is that of a session that never was."""
    started = await (await api.post("/api/sessions", json={"deckIds": [str(course.decks["Law"])]})).json()
    details = set()
    for session_id in (started["sessionId"], str(uuid4())):
        body = {"confidenceLevel": 3, "sessionId": session_id}
        rated = await api.put(f"/api/progress/cards/{course.cards['r1']}", by="other", json=body)
        ended = await api.post(f"/api/sessions/{session_id}/end", by="other")
        assert (404, 404) == (rated.status, ended.status)
        details |= {(await rated.json())["detail"], (await ended.json())["detail"]}
    assert 1 == len(details)
    url = api.services.settings.database_url
    assert [(0, 0)] == run_statement(
        url, "SELECT (SELECT count(*) FROM session_cards), (SELECT count(*) FROM user_card_progress)"
    )


async def test_bookmarks_are_idempotent(api: Api, course: Course) -> None:
    """201, then 200 with the same body; 204 whether it was there or not; drafts and unknown cards are 404."""
    path = f"/api/bookmarks/{course.cards['r1']}"
    first, second = await api.put(path), await api.put(path)
    assert (201, 200) == (first.status, second.status)
    body = await first.json()
    assert body == await second.json()
    assert ({"flashcardId", "createdAt"}, str(course.cards["r1"])) == (body.keys(), body["flashcardId"])
    assert [204, 204] == [(await api.delete(path)).status for _ in range(2)]
    assert 204 == (await api.delete(f"/api/bookmarks/{uuid4()}")).status
    for card in (course.cards["draft a2"], course.cards["d1"], course.cards["h1"], uuid4()):
        assert 404 == (await api.put(f"/api/bookmarks/{card}")).status


async def test_bookmarks_at_once_are_one(api: Api, course: Course) -> None:
    """Ten identical requests make one bookmark: one is new, nine find it."""
    path = f"/api/bookmarks/{course.cards['r1']}"
    statuses = [response.status for response in await asyncio.gather(*(api.put(path) for _ in range(10)))]
    assert [200] * 9 + [201] == sorted(statuses)


async def test_an_account_that_was_deleted_is_told_so(api: Api, course: Course) -> None:
    """A token outlives its account for a moment: what it tries meanwhile is 401, not an error of ours."""
    assert 200 == (await api.get("/api/classes")).status  # the caller is known now
    run_statement(api.services.settings.database_url, "DELETE FROM users WHERE email = 'user@example.com'")
    card = course.cards["r1"]
    answers = [
        await api.get("/api/auth/me"),
        await api.get("/api/stats"),
        await api.put(f"/api/progress/cards/{card}", json={"confidenceLevel": 3}),
        await api.put(f"/api/bookmarks/{card}"),
        await api.post("/api/sessions", json={"deckIds": [str(course.decks["Law"])]}),
    ]
    assert [(401, "account_gone")] * 5 == [
        (answer.status, (await answer.json())["code"]) for answer in answers
    ]
