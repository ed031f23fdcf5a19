"""Classes set to FSRS: cards come back when memory fades, and a change of the setting loses nothing."""

from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from server.clock import iso_timestamp
from server.domain.study.repetition import Review, remember_all
from tests.api.conftest import Api, Course
from tests.stores.postgres.databases import ask

START = datetime(2026, 3, 2, 9, tzinfo=UTC)
# A student's way with a card: when it was rated, in hours from the start, and how.
HISTORY = ((0, 3), (1, 4), (30, 4), (200, 5), (400, 1), (401, 4))
REVIEWS = [Review(level, START + timedelta(hours=hours)) for hours, level in HISTORY]


async def schedule_by(api: Api, course: Course, scheduler: str) -> None:
    """Set the scheduler of the class that has the cards r1, r2 and so on."""
    path = f"/api/admin/classes/{course.classes['Risk']}"
    answer = await api.request("PATCH", path, by="admin", json={"scheduler": scheduler})
    assert scheduler == (await answer.json())["scheduler"]


async def rate(api: Api, card: object, *reviews: Review) -> dict[str, Any]:
    """Send ratings in one batch: the card's progress."""
    ratings = [
        {
            "flashcardId": str(card),
            "confidenceLevel": review.confidence_level,
            "ratedAt": review.at.isoformat(),
        }
        for review in reviews
    ]
    answer = await api.post("/api/progress/cards", json={"ratings": ratings})
    assert 200 == answer.status, await answer.text()
    progress: dict[str, Any] = (await answer.json())["progress"][-1]
    return progress


def due_after(*reviews: Review) -> str:
    """When FSRS wants a card back."""
    return iso_timestamp(remember_all(None, reviews).due_at)


async def test_fsrs_says_when_and_the_contract_what(api: Api, course: Course) -> None:
    """The next review is that of FSRS, rating by rating; mastery follows from the level as everywhere."""
    await schedule_by(api, course, "fsrs")
    for count in range(1, len(REVIEWS) + 1):
        progress = await rate(api, course.cards["r1"], REVIEWS[count - 1])
        assert due_after(*REVIEWS[:count]) == progress["nextReviewDate"]
        assert iso_timestamp(REVIEWS[count - 1].at) == progress["lastSeenDate"]
        assert {1: "new", 3: "learning", 4: "mastered", 5: "mastered"}[HISTORY[count - 1][1]] == (
            progress["masteryStatus"]
        )


async def test_another_class_keeps_the_table(api: Api, course: Course) -> None:
    """The setting is the class's: in one batch each card is scheduled by its own."""
    await schedule_by(api, course, "fsrs")
    ratings = [
        {"flashcardId": str(course.cards[card]), "confidenceLevel": 4, "ratedAt": START.isoformat()}
        for card in ("r1", "a1")
    ]
    answer = await api.post("/api/progress/cards", json={"ratings": ratings})
    spaced, fixed = (await answer.json())["progress"]
    assert due_after(Review(4, START)) == spaced["nextReviewDate"]
    assert iso_timestamp(START + timedelta(days=3)) == fixed["nextReviewDate"]


@pytest.mark.parametrize("order", [(5, 4, 3, 2, 1, 0), (0, 2, 1, 5, 3, 4), (3, 0, 5, 1, 4, 2)])
async def test_the_order_of_arrival_does_not_matter(
    api: Api, course: Course, database_url: str, order: tuple[int, ...]
) -> None:
    """Whatever an offline device hands in late is taken in where it belongs; the newest rating stays the newest."""
    await schedule_by(api, course, "fsrs")
    await rate(api, course.cards["r2"], *REVIEWS)
    for index in order:
        progress = await rate(api, course.cards["r1"], REVIEWS[index])

    assert (due_after(*REVIEWS), 4, 6) == (
        progress["nextReviewDate"], progress["confidenceLevel"], progress["timesSeen"]
    )  # fmt: skip
    kept = "SELECT DISTINCT stability, difficulty, state, step, due_at, last_review_at, reviews FROM memory_states"
    assert 1 == len(ask(database_url, kept))


@pytest.mark.parametrize("fixed_from", range(5))
async def test_a_class_may_change_its_scheduler_and_back(api: Api, course: Course, fixed_from: int) -> None:
    """What was rated meanwhile is part of the memory when FSRS is back; meanwhile the table holds."""
    schedulers = ["fsrs"] * len(REVIEWS)
    schedulers[fixed_from : fixed_from + 2] = ["fixed"] * 2
    schedulers[-1] = "fsrs"
    for scheduler, reviews in itertools.groupby(
        zip(schedulers, REVIEWS, strict=True), key=lambda pair: pair[0]
    ):
        await schedule_by(api, course, scheduler)
        for _, review in reviews:
            progress = await rate(api, course.cards["r1"], review)
        if scheduler == "fixed":
            assert progress["nextReviewDate"] > iso_timestamp(review.at + timedelta(hours=11))
    assert due_after(*REVIEWS) == progress["nextReviewDate"]


async def test_devices_at_once_leave_one_memory(api: Api, course: Course, database_url: str) -> None:
    """Ratings that race are taken in one after the other: none is missing in the memory, none is in it twice."""
    await schedule_by(api, course, "fsrs")
    path = f"/api/progress/cards/{course.cards['r1']}"
    answers = await asyncio.gather(*(api.put(path, json={"confidenceLevel": 1 + n % 5}) for n in range(12)))
    assert {200} == {answer.status for answer in answers}

    log = ask(database_url, "SELECT confidence_level, rated_at FROM review_log ORDER BY rated_at, id")
    memory = remember_all(None, [Review(level, at) for level, at in log])
    assert [(12, memory.stability, memory.difficulty, memory.due_at)] == ask(
        database_url, "SELECT reviews, stability, difficulty, due_at FROM memory_states"
    )
    assert iso_timestamp(memory.due_at) == (await (await api.get(path)).json())["nextReviewDate"]


async def test_an_unknown_scheduler_is_refused(api: Api, course: Course) -> None:
    """The field is named, and what it takes."""
    path = f"/api/admin/classes/{course.classes['Risk']}"
    answer = await api.request("PATCH", path, by="admin", json={"scheduler": "sm2"})
    assert 400 == answer.status
    assert ["scheduler"] == [error["field"] for error in (await answer.json())["errors"]]
