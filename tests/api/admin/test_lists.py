"""The lists of /api/admin: filters, and pages that neither lose nor repeat a row."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from tests.api.admin.test_crud import CARDS, CLASSES, DECKS, Kind, create, every_kind, refusal
from tests.api.conftest import Api, Course, run_statement


async def page_of(api: Api, kind: Kind, **query: Any) -> dict[str, Any]:
    """One page of a list."""
    response = await api.get(kind.path, by="admin", params=query)
    assert 200 == response.status, await response.text()
    page: dict[str, Any] = await response.json()
    return page


async def names_of(api: Api, kind: Kind, **query: Any) -> list[str]:
    """The names, or questions, of everything in a list, page by page."""
    names: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = await page_of(api, kind, **query, **cursor)
        names += [row["question" if kind is CARDS else "name"] for row in page[kind.plural]]
        if page["nextCursor"] is None:
            return names
        cursor = {"cursor": page["nextCursor"]}


@every_kind
async def test_a_list_says_of_each_row_what_the_row_itself_says(api: Api, course: Course, kind: Kind) -> None:
    """A row of the list and the answer of its own path are the same."""
    made = await create(api, kind, course, **kind.complete)

    rows = (await page_of(api, kind))[kind.plural]

    assert [made] == [row for row in rows if row["id"] == made["id"]]


async def test_drafts_are_listed_in_order(api: Api, course: Course) -> None:
    """Everything is listed, published or not, in the order in which students see it."""
    del course
    assert ["Risk", "Assets", "draft class"] == await names_of(api, CLASSES)
    assert {"Analysis", "Law", "draft deck", "Data", "Hidden"} == set(await names_of(api, DECKS))
    assert 9 == len(await names_of(api, CARDS))


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
@every_kind
async def test_pages_hold_every_row_once(api: Api, course: Course, kind: Kind, limit: int) -> None:
    """Whatever the size of the pages, also with rows of equal order and name, and names that need many bytes."""
    for name in ("same", "same", "same", "🔑" * 255, "Zulu", "älter"):
        await create(api, kind, course, **({"question": name} if kind is CARDS else {"name": name}))
    expected = await names_of(api, kind)

    assert expected == await names_of(api, kind, limit=limit)
    assert 3 == expected.count("same")


async def test_decks_and_cards_come_in_the_order_of_their_parent(api: Api, course: Course) -> None:
    """Within a class, and within a deck, by order."""
    class_id, deck_id = str(course.classes["Risk"]), str(course.decks["Analysis"])
    await create(api, DECKS, course, name="Last", order=9)
    await create(api, CARDS, course, question="last", order=9)

    assert ["Analysis", "Law", "draft deck", "Last"] == await names_of(api, DECKS, classId=class_id, limit=2)
    assert ["question r1", "question r2", "question r3", "last"] == await names_of(
        api, CARDS, deckId=deck_id, limit=3
    )


async def test_filters_choose_and_combine(api: Api, course: Course) -> None:
    """Each filter alone, and together; what matches nothing is an empty list."""
    risk, assets = str(course.classes["Risk"]), str(course.classes["Assets"])
    data = str(course.decks["Data"])

    assert ["Risk", "Assets"] == await names_of(api, CLASSES, published="true")
    assert ["draft class"] == await names_of(api, CLASSES, published="false")
    assert ["Risk"] == await names_of(api, CLASSES, q="ISK")
    assert ["Analysis", "Law"] == await names_of(api, DECKS, classId=risk, published="true")
    assert ["draft deck"] == await names_of(api, DECKS, classId=risk, q="dEcK")
    assert ["question a1"] == await names_of(api, CARDS, deckId=data, published="true")
    assert ["question a1", "question draft a2"] == await names_of(api, CARDS, classId=assets)
    assert [] == await names_of(api, CARDS, classId=risk, deckId=data)
    assert ["question l2"] == await names_of(api, CARDS, q="ANSWER l2")
    url = api.services.settings.database_url
    run_statement(url, "UPDATE flashcards SET category = 'Law, exam' WHERE question = 'question l1'")
    assert ["question l1"] == await names_of(api, CARDS, q="EXAM")
    for kind in (DECKS, CARDS):
        assert [] == await names_of(api, kind, classId=str(uuid4()))


async def test_a_filter_text_is_taken_literally(api: Api, course: Course) -> None:
    """Signs that mean something in patterns mean themselves; space around the text does not count."""
    for name in ("100% sure", "under_score", "back\\slash", "quote's", "%(name)s"):
        await create(api, CLASSES, course, name=name)

    for text, expected in (
        ("0%", ["100% sure"]), ("_", ["under_score"]), ("\\", ["back\\slash"]), ("'", ["quote's"]),
        ("%(name)s", ["%(name)s"]), (" sure ", ["100% sure"]), (".*", []),
    ):  # fmt: skip
        assert expected == await names_of(api, CLASSES, q=text)


@every_kind
async def test_bad_parameters_are_refused_by_name(api: Api, kind: Kind) -> None:
    """Unknown, malformed and repeated parameters are 400 with the parameter's name."""
    bad = [
        ("limit", "0"), ("limit", "101"), ("limit", "x"), ("cursor", "x"), ("cursor", "x" * 3000),
        ("published", "yes"), ("published", ""), ("q", ""), ("q", "x" * 201), ("q", "a\0b"), ("sort", "name"),
    ]  # fmt: skip
    bad += [("classId", "x")] if kind is not CLASSES else [("classId", str(uuid4()))]
    bad += [("deckId", "x")] if kind is CARDS else []

    for name, value in bad:
        response = await api.get(kind.path, by="admin", params={name: value})
        assert [name] == list(await refusal(response, 400)), (name, value)
    repeated = await api.get(f"{kind.path}?limit=1&limit=2", by="admin")
    assert ["limit"] == list(await refusal(repeated, 400))


async def test_a_cursor_is_of_one_list_and_its_filters(api: Api, course: Course) -> None:
    """A cursor of another list, or of the same list with other filters, is 400."""
    del course
    cursor = (await page_of(api, CLASSES, limit=1))["nextCursor"]

    for path in ("/api/admin/decks", "/api/admin/flashcards", "/api/classes"):
        assert 400 == (await api.get(path, by="admin", params={"cursor": cursor})).status
    filtered = await api.get("/api/admin/classes", by="admin", params={"cursor": cursor, "published": "true"})
    assert ["cursor"] == list(await refusal(filtered, 400))
    assert 2 == len((await page_of(api, CLASSES, cursor=cursor))["classes"])
