"""A rating leaves the reader's overlays in the cache as they are now: the next page is a hit, and right."""

from __future__ import annotations

import asyncio
import random
from contextlib import closing
from typing import Any

import pytest
import redis

from server.settings import Settings
from tests.api.conftest import Api, Course, StartApi, run_statement


@pytest.fixture
async def workers(settings: Settings, start_api: StartApi) -> list[Api]:
    """Two services over the same database and Redis."""
    return [await start_api(settings), await start_api(settings)]


def pages(course: Course) -> list[str]:
    """Every page that shows something of the reader, of both classes."""
    return [
        path
        for class_id in (course.classes["Risk"], course.classes["Assets"])
        for path in (
            f"/api/classes/{class_id}",
            f"/api/progress/class/{class_id}",
            f"/api/classes/{class_id}/study?mode=all",
        )
    ]


async def read_all(api: Api, course: Course, by: str = "user") -> tuple[dict[str, Any], set[str]]:
    """The pages by path, and which outcomes the cache had."""
    found, outcomes = {}, set()
    for path in pages(course):
        response = await api.get(path, by=by)
        found[path] = await response.json()
        outcomes.add(response.headers["X-Cache"])
    return found, outcomes


def empty(url: str) -> None:
    """Forget all that is cached."""
    with closing(redis.Redis.from_url(url)) as client:
        client.flushall()


async def rate(api: Api, course: Course, **levels: int) -> None:
    """Ratings of cards by their names, as one batch."""
    ratings = [
        {"flashcardId": str(course.cards[name.replace("_", " ")]), "confidenceLevel": level}
        for name, level in levels.items()
    ]
    response = await api.post("/api/progress/cards", json={"ratings": ratings})
    assert 200 == response.status, await response.text()


async def test_the_page_after_a_rating_is_a_hit_in_every_worker(
    workers: list[Api], course: Course, redis_url: str
) -> None:
    """Of a new card, a known one, a batch over two classes: each page is what the database says, without asking it."""
    one, other = workers
    await read_all(one, course)
    for levels in ({"r1": 2}, {"r1": 4}, {"r1": 3, "r2": 5, "l1": 1, "a1": 4}, {"a1": 1}):
        await rate(one, course, **levels)
        cached = [await read_all(api, course) for api in workers]
        assert {"HIT"} == cached[0][1] | cached[1][1]
        empty(redis_url)
        fresh, _ = await read_all(other, course)
        assert [fresh, fresh] == [cached[0][0], cached[1][0]]


async def test_a_rating_is_nobody_elses_business(workers: list[Api], course: Course) -> None:
    """The other student's pages stay as they are, and stay cached."""
    before, _ = await read_all(workers[0], course, by="other")
    await read_all(workers[0], course)
    await rate(workers[0], course, r1=5, a1=2)
    assert (before, {"HIT"}) == await read_all(workers[1], course, by="other")


async def test_what_is_not_cached_is_not_made(workers: list[Api], course: Course) -> None:
    """Who rates before reading anything finds pages that are loaded then."""
    await rate(workers[0], course, r1=4)
    found, outcomes = await read_all(workers[0], course)
    assert 1 == found[f"/api/progress/class/{course.classes['Risk']}"]["masteredCards"]
    assert "MISS" in outcomes


async def test_a_large_overlay_is_left_to_the_next_reader(
    workers: list[Api], course: Course, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of more cards than it pays to write anew with each rating is loaded by who asks for it; counts stay hits."""
    monkeypatch.setattr("server.domain.study.overlays._MOST_CARDS", 2)
    await rate(workers[0], course, r1=1, r2=2, r3=3)
    await read_all(workers[0], course)
    await rate(workers[0], course, r1=5)
    page, progress, study = pages(course)[:3]
    outcomes = [(await workers[1].get(path)).headers["X-Cache"] for path in (page, progress, study)]
    assert ["HIT", "HIT", "MISS"] == outcomes
    cached, _ = await read_all(workers[0], course)
    empty(redis_url)
    assert cached == (await read_all(workers[0], course))[0]


@pytest.mark.parametrize("change", ["hide", "show", "delete", "move"])
async def test_counts_of_another_set_of_cards_are_not_mixed(
    workers: list[Api], course: Course, database_url: str, redis_url: str, change: str
) -> None:
    """A card that came or went between the look and the rating is counted as the page of the class knows it."""
    one, other = workers
    await rate(one, course, r1=5, r2=4, a1=3)
    if change == "show":
        run_statement(
            database_url, "UPDATE flashcards SET is_published = false WHERE id = %s", str(course.cards["r2"])
        )
    await read_all(one, course)
    path = f"/api/admin/flashcards/{course.cards['r2']}"
    if change == "delete":
        response = await other.delete(path, by="admin")
    else:
        body = {
            "hide": {"isPublished": False},
            "show": {"isPublished": True},
            "move": {"deckId": str(course.decks["Data"])},
        }[change]
        response = await other.request("PATCH", path, by="admin", json=body)
    assert response.status in {200, 204}
    await rate(one, course, r3=3, a1=5)
    cached = [(await read_all(api, course))[0] for api in workers]
    empty(redis_url)
    fresh, _ = await read_all(one, course)
    assert [fresh, fresh] == cached


async def test_counts_of_a_set_of_cards_that_comes_back_are_right(
    workers: list[Api], course: Course, redis_url: str
) -> None:
    """Counts that were made while another card was shown are not found again when that card is hidden again."""
    api, _ = workers
    await rate(api, course, r1=5, r2=4)

    async def show(is_published: bool) -> None:
        path = f"/api/admin/flashcards/{course.cards['r2']}"
        answer = await api.request("PATCH", path, by="admin", json={"isPublished": is_published})
        assert 200 == answer.status

    await show(False)
    await read_all(api, course)
    await show(True)
    await read_all(api, course, by="other")  # the page of the class is cached with the card
    await rate(api, course, r3=3)
    await show(False)
    cached, _ = await read_all(api, course)
    empty(redis_url)
    assert (await read_all(api, course))[0] == cached


@pytest.mark.parametrize("seed", range(4))
async def test_after_whatever_happened_at_once_the_pages_are_right(
    workers: list[Api], course: Course, redis_url: str, seed: int
) -> None:
    """Devices that rate and read through both workers while an administrator edits: in the end nothing old is left."""
    chance = random.Random(seed)  # noqa: S311 - makes up a test, guards nothing
    cards = [str(course.cards[name]) for name in ("r1", "r2", "r3", "l1", "l2", "a1")]
    hidden = f"/api/admin/flashcards/{course.cards['l2']}"

    async def study() -> None:
        for _ in range(8):
            api = chance.choice(workers)
            if chance.random() < 0.5:
                await api.get(chance.choice(pages(course)))
            else:
                body = {"confidenceLevel": chance.randint(1, 5)}
                response = await api.put(f"/api/progress/cards/{chance.choice(cards)}", json=body)
                assert response.status in {200, 404}

    async def edit() -> None:
        for shown in (False, True, False):
            await workers[0].request("PATCH", hidden, by="admin", json={"isPublished": shown})

    await asyncio.gather(study(), study(), study(), edit())
    cached = [(await read_all(api, course))[0] for api in workers]
    empty(redis_url)
    fresh, _ = await read_all(workers[0], course)
    assert [fresh, fresh] == cached
