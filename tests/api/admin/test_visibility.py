"""What an administrator changes, the next read of every worker shows; what nobody could see stays cached."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
import redis

from server.development import free_port
from server.settings import Settings
from tests.api.admin.test_crud import CARDS, CLASSES, DECKS, create, patch
from tests.api.conftest import Api, Course, StartApi


@pytest.fixture
async def other(start_api: StartApi, settings: Settings) -> Api:
    """Another worker on the same database and Redis."""
    return await start_api(settings)


class Reader:
    """A student who reads through one worker, and sees whether the cache answered."""

    def __init__(self, api: Api, course: Course) -> None:
        self.api = api
        self.course = course

    async def read(self, path: str) -> Any:
        """The answer of a page, or its status where it is an error."""
        response = await self.api.get(path)
        return await response.json() if response.status == 200 else response.status

    async def classes(self) -> list[tuple[str, int, int]]:
        """Name, number of decks and number of cards of each class."""
        page = await self.read("/api/classes")
        return [(entry["name"], entry["deckCount"], entry["cardCount"]) for entry in page["classes"]]

    async def decks(self, class_name: str) -> list[tuple[str, int]]:
        """Name and number of cards of each deck of a class."""
        page = await self.read(f"/api/classes/{self.course.classes[class_name]}")
        return [(deck["name"], deck["cardCount"]) for deck in page["decks"]]

    async def questions(self, deck_name: str) -> Any:
        """The questions of a deck; 404 if students can't see it."""
        page = await self.read(f"/api/decks/{self.course.decks[deck_name]}/flashcards")
        return (
            page
            if page == 404
            else [card["question"].removeprefix("question ") for card in page["flashcards"]]
        )

    async def everything(self) -> list[Any]:
        """All of it: afterwards it is in the cache."""
        decks = [await self.questions(name) for name in self.course.decks]
        return [await self.classes(), await self.decks("Risk"), await self.decks("Assets"), *decks]


@pytest.fixture
async def reader(other: Api, course: Course) -> Reader:
    """A student on the other worker who has read everything before."""
    reader = Reader(other, course)
    await reader.everything()
    return reader


async def test_a_changed_class_is_seen_at_once(api: Api, course: Course, reader: Reader) -> None:
    """Its new name is in the list, on its page and on the pages of its decks; hidden, it takes them along."""
    path = f"/api/admin/classes/{course.classes['Risk']}"

    await patch(api, path, name="Hazards", icon="⚠")

    assert [("Hazards", 2, 5), ("Assets", 1, 1)] == await reader.classes()
    page = await reader.read(f"/api/classes/{course.classes['Risk']}")
    assert ("Hazards", "⚠") == (page["name"], page["icon"])
    deck = await reader.read(f"/api/decks/{course.decks['Law']}/flashcards")
    assert "Hazards" == deck["deck"]["className"]

    await patch(api, path, isPublished=False)

    assert [("Assets", 1, 1)] == await reader.classes()
    assert 404 == await reader.read(f"/api/classes/{course.classes['Risk']}")
    assert 404 == await reader.questions("Law")

    await patch(api, path, isPublished=True, order=5)

    assert [("Assets", 1, 1), ("Hazards", 2, 5)] == await reader.classes()
    assert ["l1", "l2"] == await reader.questions("Law")


async def test_a_changed_deck_is_seen_at_once(api: Api, course: Course, reader: Reader) -> None:
    """Renamed, moved to another class, hidden: the list of classes, both classes and the deck know."""
    path = f"/api/admin/decks/{course.decks['Law']}"

    await patch(api, path, name="Statutes", order=0)
    assert [("Analysis", 3), ("Statutes", 2)] == await reader.decks("Risk")

    await patch(api, path, classId=str(course.classes["Assets"]))
    assert [("Risk", 1, 3), ("Assets", 2, 3)] == await reader.classes()
    assert [("Analysis", 3)] == await reader.decks("Risk")
    assert [("Data", 1), ("Statutes", 2)] == await reader.decks("Assets")
    deck = await reader.read(f"/api/decks/{course.decks['Law']}/flashcards")
    assert "Assets" == deck["deck"]["className"]

    await patch(api, path, isPublished=False)
    assert [("Risk", 1, 3), ("Assets", 1, 1)] == await reader.classes()
    assert 404 == await reader.questions("Law")


async def test_a_changed_card_is_seen_at_once(api: Api, course: Course, reader: Reader) -> None:
    """Reworded, moved to a deck of another class, hidden: the decks and the numbers around them know."""
    path = f"/api/admin/flashcards/{course.cards['r2']}"

    await patch(api, path, question="anew", order=9)
    assert ["r1", "r3", "anew"] == await reader.questions("Analysis")

    await patch(api, path, deckId=str(course.decks["Data"]))
    assert ["r1", "r3"] == await reader.questions("Analysis")
    assert ["a1", "anew"] == await reader.questions("Data")
    assert [("Risk", 2, 4), ("Assets", 1, 2)] == await reader.classes()
    assert [("Analysis", 2), ("Law", 2)] == await reader.decks("Risk")

    await patch(api, path, isPublished=False)
    assert ["a1"] == await reader.questions("Data")
    assert [("Risk", 2, 4), ("Assets", 1, 1)] == await reader.classes()


async def test_what_is_made_and_deleted_is_seen_at_once(api: Api, course: Course, reader: Reader) -> None:
    """A new class, deck and card appear; deleted, they are gone, with everything in them."""
    made = await create(api, CLASSES, course, name="New", order=9)
    deck = await create(api, DECKS, course, classId=made["id"])
    await create(api, CARDS, course, deckId=deck["id"])
    card = await create(api, CARDS, course, question="r4", order=9)

    assert [("Risk", 2, 6), ("Assets", 1, 1), ("New", 1, 1)] == await reader.classes()
    assert ["r1", "r2", "r3", "r4"] == await reader.questions("Analysis")

    for path in (
        f"/api/admin/flashcards/{card['id']}",
        f"/api/admin/decks/{course.decks['Law']}",
        f"/api/admin/classes/{made['id']}",
        f"/api/admin/classes/{course.classes['Assets']}",
    ):
        assert 204 == (await api.delete(path, by="admin")).status

    assert [("Risk", 1, 3)] == await reader.classes()
    assert ["r1", "r2", "r3"] == await reader.questions("Analysis")
    assert [("Analysis", 3)] == await reader.decks("Risk")
    assert [404, 404] == [await reader.questions("Law"), await reader.questions("Data")]
    assert 404 == await reader.read(f"/api/classes/{made['id']}")


async def test_an_import_is_seen_at_once(api: Api, course: Course, reader: Reader) -> None:
    """New and changed cards are on the page of the deck, and counted around it."""
    response = await api.post(
        f"/api/admin/decks/{course.decks['Law']}/import",
        by="admin",
        data=b"question,answer\nquestion l2,other\nnew,card\n",
        headers={"Content-Type": "text/csv"},
    )

    answer = await response.json()
    assert [1, 1, 0, "comma"] == [answer[name] for name in ("created", "updated", "unchanged", "dialect")]
    assert [("Risk", 2, 6), ("Assets", 1, 1)] == await reader.classes()
    assert [("Analysis", 3), ("Law", 3)] == await reader.decks("Risk")
    page = await reader.read(f"/api/decks/{course.decks['Law']}/flashcards")
    assert {"other", "card", "answer l1"} == {card["answer"] for card in page["flashcards"]}


@pytest.mark.parametrize("moved", ["deck", "card"])
async def test_progress_made_elsewhere_comes_back(api: Api, course: Course, other: Api, moved: str) -> None:
    """A deck or card that moves away, is studied there, and comes back shows that: no overlay is too old."""
    home = f"/api/classes/{course.classes['Risk']}"
    if moved == "deck":
        path, parent = f"/api/admin/decks/{course.decks['Law']}", "classId"
        away, back = course.classes["Assets"], course.classes["Risk"]
    else:
        path, parent = f"/api/admin/flashcards/{course.cards['l1']}", "deckId"
        away, back = course.decks["Data"], course.decks["Law"]

    async def studied() -> int:
        page = await (await other.get(home)).json()
        return sum(deck["studiedCount"] for deck in page["decks"])

    assert 0 == await studied()
    await patch(api, path, **{parent: str(away)})
    rated = await api.put(f"/api/progress/cards/{course.cards['l1']}", json={"confidenceLevel": 5})
    assert 200 == rated.status
    await patch(api, path, **{parent: str(back)})

    assert 1 == await studied()


async def test_a_change_leaves_other_pages_in_the_cache(api: Api, course: Course, reader: Reader) -> None:
    """A reworded card empties the page of its deck and no other; a draft's change empties nothing."""
    paths = ["/api/classes", f"/api/classes/{course.classes['Risk']}"]
    paths += [f"/api/decks/{course.decks[name]}/flashcards" for name in ("Law", "Data", "Analysis")]

    async def outcomes() -> list[str]:
        return [(await reader.api.get(path)).headers["X-Cache"] for path in paths]

    await patch(api, f"/api/admin/decks/{course.decks['draft deck']}", name="draft deck still")
    assert ["HIT"] * 5 == await outcomes()

    await patch(api, f"/api/admin/flashcards/{course.cards['r1']}", answer="anew")
    assert ["HIT", "HIT", "HIT", "HIT", "MISS"] == await outcomes()


async def test_an_invalidation_looks_for_no_keys(api: Api, course: Course, redis_url: str) -> None:
    """Every kind of write names the keys that it means: Redis sees neither SCAN nor KEYS."""
    with closing(redis.Redis.from_url(redis_url)) as client:
        client.config_resetstat()
        made = await create(api, CLASSES, course)
        deck = await create(api, DECKS, course, classId=made["id"])
        await create(api, CARDS, course, deckId=deck["id"])
        await patch(api, f"/api/admin/classes/{made['id']}", name="renamed")
        await api.delete(f"/api/admin/classes/{made['id']}", by="admin")

        used = set(client.info("commandstats"))

    assert "cmdstat_set" in used
    assert set() == used & {"cmdstat_scan", "cmdstat_keys", "cmdstat_flushdb", "cmdstat_flushall"}


async def test_writes_go_on_without_redis(start_api: StartApi, settings: Settings, course: Course) -> None:
    """An unreachable Redis fails no write, and the worker that wrote shows its own change."""
    api = await start_api(replace(settings, redis_url=f"redis://127.0.0.1:{free_port()}"))
    reader = Reader(api, course)
    await reader.everything()

    await patch(api, f"/api/admin/classes/{course.classes['Risk']}", name="Hazards")

    assert [("Hazards", 2, 5), ("Assets", 1, 1)] == await reader.classes()
