"""GET /api/classes and below: the course as a student reads it, published only."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from server.domain.study.study_order import STUDY_MODES
from tests.api.conftest import Api, Course, run_statement


async def body_of(api: Api, path: str, **options: Any) -> Any:
    """The body of a successful read."""
    response = await api.get(path, **options)
    assert 200 == response.status, await response.text()
    return await response.json()


async def test_the_list_of_classes_counts_published_decks_and_cards(api: Api, course: Course) -> None:
    """Drafts are neither listed nor counted, and classes come by order."""
    body = await body_of(api, "/api/classes")
    assert {
        "classes": [
            {"id": str(course.classes["Risk"]), "name": "Risk", "description": None, "order": 0, "icon": None,
             "color": None, "deckCount": 2, "cardCount": 5},
            {"id": str(course.classes["Assets"]), "name": "Assets", "description": None, "order": 1, "icon": None,
             "color": None, "deckCount": 1, "cardCount": 1},
        ],
        "nextCursor": None,
    } == body  # fmt: skip


async def test_a_class_shows_its_decks_and_the_readers_progress(api: Api, course: Course) -> None:
    """Each deck says how many of its published cards this reader has seen, and nobody else's."""
    risk = course.classes["Risk"]
    for name in ("r1", "r2", "l1"):
        rated = await api.put(f"/api/progress/cards/{course.cards[name]}", json={"confidenceLevel": 2})
        assert 200 == rated.status
    decks = [
        {"id": str(course.decks["Analysis"]), "name": "Analysis", "description": None, "cardCount": 3,
         "studiedCount": 2, "progress": 67, "order": 0},
        {"id": str(course.decks["Law"]), "name": "Law", "description": None, "cardCount": 2,
         "studiedCount": 1, "progress": 50, "order": 1},
    ]  # fmt: skip
    expected = {"id": str(risk), "name": "Risk", "description": None, "icon": None, "color": None}
    assert {**expected, "decks": decks} == await body_of(api, f"/api/classes/{risk}")
    nothing = [{**deck, "studiedCount": 0, "progress": 0} for deck in decks]
    assert {**expected, "decks": nothing} == await body_of(api, f"/api/classes/{risk}", by="other")


async def test_a_deck_shows_its_published_cards(api: Api, course: Course) -> None:
    """A deck comes with its class and its cards in their order."""
    deck = course.decks["Data"]
    assert {
        "deck": {"id": str(deck), "name": "Data", "description": None,
                 "classId": str(course.classes["Assets"]), "className": "Assets"},
        "flashcards": [{"id": str(course.cards["a1"]), "question": "question a1", "answer": "answer a1",
                        "explanation": "explanation a1", "category": None, "order": 0}],
        "total": 1,
    } == await body_of(api, f"/api/decks/{deck}/flashcards")  # fmt: skip


async def test_a_class_is_studied_in_its_modes(api: Api, course: Course) -> None:
    """The page has the class, the mode, how many cards there are, and each card with the reader's progress or null."""
    path = f"/api/classes/{course.classes['Risk']}/study"
    rated = await (
        await api.put(f"/api/progress/cards/{course.cards['r1']}", json={"confidenceLevel": 3})
    ).json()
    page = await body_of(api, path)
    assert ("progressive", {"id": str(course.classes["Risk"]), "name": "Risk"}, 5) == (
        page["mode"], page["class"], page["totalCards"]
    )  # fmt: skip
    assert ["r2", "r3", "l1", "l2", "r1"] == [card["question"].split()[1] for card in page["flashcards"]]
    assert {
        "id": str(course.cards["r1"]), "deckId": str(course.decks["Analysis"]), "deckName": "Analysis",
        "question": "question r1", "answer": "answer r1", "explanation": "explanation r1", "category": None, "order": 0,
        "progress": {"confidenceLevel": 3, "masteryStatus": "learning", "nextReviewDate": rated["nextReviewDate"]},
    } == page["flashcards"][-1]  # fmt: skip
    assert page["flashcards"][0]["progress"] is None
    in_order = await body_of(api, f"{path}?mode=all&limit=2")
    assert (["r1", "r2"], 5) == (
        [card["question"].split()[1] for card in in_order["flashcards"]], in_order["totalCards"]
    )  # fmt: skip
    shuffled = await body_of(api, f"{path}?mode=random")
    assert {"r1", "r2", "r3", "l1", "l2"} == {card["question"].split()[1] for card in shuffled["flashcards"]}


async def test_a_deck_is_read_page_by_page(api: Api, course: Course) -> None:
    """With a limit it comes in pages, each card once; without one it is whole and has no cursor."""
    path = f"/api/decks/{course.decks['Analysis']}/flashcards"
    whole = await body_of(api, path)
    assert ["deck", "flashcards", "total"] == list(whole)
    pages = [await body_of(api, f"{path}?limit=2")]
    while (cursor := pages[-1]["nextCursor"]) is not None:
        pages.append(await body_of(api, f"{path}?limit=2&cursor={cursor}"))
    assert [2, 1] == [len(page["flashcards"]) for page in pages]
    assert whole["flashcards"] == [card for page in pages for card in page["flashcards"]]
    assert [whole["total"]] * 2 == [page["total"] for page in pages]
    rest = await body_of(api, f"{path}?cursor={pages[0]['nextCursor']}")
    assert pages[1]["flashcards"] == rest["flashcards"]
    other = f"/api/decks/{course.decks['Law']}/flashcards"
    for wrong in (f"{other}?cursor={pages[0]['nextCursor']}", f"{path}?limit=0", f"{path}?limit=1001"):
        assert 400 == (await api.get(wrong)).status


@pytest.mark.parametrize("mode", STUDY_MODES)
async def test_a_class_is_studied_page_by_page(api: Api, course: Course, mode: str) -> None:
    """Each card comes once, though all of a page are rated before the next one; a cursor is of its mode and decks."""
    path = f"/api/classes/{course.classes['Risk']}/study?mode={mode}"
    seen, cursor = [], ""
    for size in (2, 2, 1):
        page = await body_of(api, f"{path}&limit=2{cursor}")
        assert (size, 5) == (len(page["flashcards"]), page["totalCards"])
        for card in page["flashcards"]:
            seen.append(card["question"].split()[1])
            await api.put(f"/api/progress/cards/{card['id']}", json={"confidenceLevel": 2})
        cursor = f"&cursor={page['nextCursor']}"
        if page["nextCursor"] is not None:
            for foreign in (
                f"{path}&decks={course.decks['Law']}",
                path.replace(mode, "random" if mode == "all" else "all"),
            ):
                assert 400 == (await api.get(f"{foreign}{cursor}")).status
            assert 400 == (await api.get(f"{path}{cursor}", by="other")).status
    assert page["nextCursor"] is None
    assert ["l1", "l2", "r1", "r2", "r3"] == sorted(seen)
    assert mode == "random" or ["r1", "r2", "r3", "l1", "l2"] == seen


async def test_students_see_categories(api: Api, course: Course) -> None:
    """A deck and what is studied of it show each card's category; what an older release has cached is made anew."""
    law, url = course.decks["Law"], api.services.settings.database_url
    path = f"/api/decks/{law}/flashcards"
    old = await body_of(api, path)
    for card in old["flashcards"]:
        del card["category"]
    run_statement(url, "UPDATE flashcards SET category = 'a,b' WHERE id = %s", str(course.cards["l1"]))
    await api.services.cache.invalidate([f"c:deck:{law}"])

    async def cached_by_an_older_release() -> Any:
        return old

    await api.services.cache.lookup(f"c:deck:{law}").value(cached_by_an_older_release)
    assert ["a,b", None] == [card["category"] for card in (await body_of(api, path))["flashcards"]]
    study = await body_of(api, f"/api/classes/{course.classes['Risk']}/study?mode=all&decks={law}")
    assert ["a,b", None] == [card["category"] for card in study["flashcards"]]


async def test_some_decks_of_a_class_are_studied(api: Api, course: Course) -> None:
    """The decks asked for, once each, in the order of the class; decks of elsewhere and drafts are refused."""
    path = f"/api/classes/{course.classes['Risk']}/study?mode=all&decks="
    law, analysis = course.decks["Law"], course.decks["Analysis"]
    page = await body_of(api, f"{path}{law},{analysis},{law}")
    assert ["r1", "r2", "r3", "l1", "l2"] == [card["question"].split()[1] for card in page["flashcards"]]
    assert page == await body_of(api, f"{path}{law}&decks={analysis},{law}"), "repeated as well"
    assert 2 == (await body_of(api, f"{path}{law}"))["totalCards"]
    for foreign in (course.decks["Data"], course.decks["draft deck"], uuid4()):
        refused = await api.get(f"{path}{law},{foreign}")
        assert (400, "decks") == (refused.status, (await refused.json())["errors"][0]["field"])


async def test_nothing_due_means_everything(api: Api, course: Course) -> None:
    """When every card is mastered and none is due, progressive mode offers all."""
    for name in ("r1", "r2", "r3", "l1", "l2"):
        await api.put(f"/api/progress/cards/{course.cards[name]}", json={"confidenceLevel": 5})
    page = await body_of(api, f"/api/classes/{course.classes['Risk']}/study")
    assert ["r1", "r2", "r3", "l1", "l2"] == [card["question"].split()[1] for card in page["flashcards"]]


async def test_progress_in_a_class(api: Api, course: Course) -> None:
    """Published cards by mastery, and the share that was studied."""
    for name, confidence in (("r1", 1), ("r2", 3), ("l1", 5)):
        await api.put(f"/api/progress/cards/{course.cards[name]}", json={"confidenceLevel": confidence})
    risk = course.classes["Risk"]
    assert {
        "classId": str(risk), "totalCards": 5, "studiedCards": 3, "newCards": 1, "learningCards": 1,
        "masteredCards": 1, "progress": 60,
    } == await body_of(api, f"/api/progress/class/{risk}")  # fmt: skip


async def test_a_card_that_goes_out_of_print_goes_out_of_the_numbers(api: Api, course: Course) -> None:
    """Unpublishing is seen by counts, overlay and percentages alike once the content is invalidated."""
    url, risk = api.services.settings.database_url, course.classes["Risk"]
    for name in ("r1", "r2"):
        await api.put(f"/api/progress/cards/{course.cards[name]}", json={"confidenceLevel": 5})
    before = await body_of(api, f"/api/progress/class/{risk}")
    run_statement(url, "UPDATE flashcards SET is_published = false WHERE id = %s", str(course.cards["r1"]))
    await api.services.cache.invalidate([f"c:class:{risk}", f"c:deck:{course.decks['Analysis']}"])
    after = await body_of(api, f"/api/progress/class/{risk}")
    assert [(5, 2, 40), (4, 1, 25)] == [
        (progress["totalCards"], progress["studiedCards"], progress["progress"])
        for progress in (before, after)
    ]


async def test_what_is_not_published_is_not_there(api: Api, course: Course) -> None:
    """Drafts, what is inside of drafts, and what never was, are all 404 in the same words."""
    draft, hidden = course.classes["draft class"], course.decks["Hidden"]
    paths = [
        f"/api/classes/{draft}", f"/api/classes/{draft}/study", f"/api/progress/class/{draft}",
        f"/api/decks/{course.decks['draft deck']}/flashcards", f"/api/decks/{hidden}/flashcards",
        f"/api/progress/cards/{course.cards['r1']}",
    ]  # fmt: skip
    for path in paths:
        known = await api.get(path)
        unknown_path = path.replace(path.split("/")[-1 if "progress" in path else 3], str(uuid4()))
        unknown = await api.get(unknown_path)
        assert (404, 404) == (known.status, unknown.status), path
        assert (await known.json())["detail"] == (await unknown.json())["detail"]
        assert "no-store" == known.headers["Cache-Control"]


async def test_stats_are_the_readers(api: Api, course: Course) -> None:
    """The figures over everything; those of somebody who never studied are zero."""
    nothing = {"totalCardsStudied": 0, "studyStreakDays": 0, "totalStudyTime": 0, "lastActiveDate": None}
    assert nothing == await body_of(api, "/api/stats")
    await api.put(f"/api/progress/cards/{course.cards['r1']}", json={"confidenceLevel": 5})
    stats = await body_of(api, "/api/stats")
    assert (1, 1) == (stats["totalCardsStudied"], stats["studyStreakDays"])
    assert 10 == len(stats["lastActiveDate"])
    assert nothing == await body_of(api, "/api/stats", by="other")
    run_statement(
        api.services.settings.database_url,
        "UPDATE user_stats SET streak_lapses_at = now() - interval '1 second' WHERE study_streak_days > 0",
    )
    assert 0 == (await body_of(api, "/api/stats"))["studyStreakDays"]


async def test_head_answers_as_get_without_a_body(api: Api, course: Course) -> None:
    """HEAD has the status, the tag and the length of GET, and no body."""
    for path in (
        "/api/classes",
        f"/api/classes/{course.classes['Risk']}",
        "/api/stats",
        "/livez",
        "/nowhere",
    ):
        get, head = await api.get(path), await api.request("HEAD", path)
        assert (get.status, get.headers.get("ETag")) == (head.status, head.headers.get("ETag"))
        assert b"" == await head.read()


async def test_shared_content_is_cached_for_everyone(api: Api, course: Course) -> None:
    """The second reader of a class finds the content; one student's rating empties nobody else's cache."""

    async def outcome(by: str, path: str) -> str:
        return (await api.get(path, by=by)).headers["X-Cache"]

    risk, deck = f"/api/classes/{course.classes['Risk']}", f"/api/decks/{course.decks['Law']}/flashcards"
    assert ["MISS", "HIT"] == [await outcome(by, "/api/classes") for by in ("user", "other")]
    assert ["MISS", "HIT"] == [await outcome(by, deck) for by in ("user", "other")]
    assert ["MISS", "MISS", "HIT", "HIT"] == [
        await outcome(by, risk) for by in ("user", "other", "user", "other")
    ], "each reader's own part is missing once"
    await api.put(f"/api/progress/cards/{course.cards['r1']}", json={"confidenceLevel": 5})
    assert ["HIT", "HIT"] == [await outcome(by, risk) for by in ("other", "user")], (
        "the rater's is there anew"
    )
    assert "X-Cache" not in (await api.get("/api/stats")).headers
