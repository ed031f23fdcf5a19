"""Which cards come when, against the rules read literally."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.domain.study.study_order import STUDY_MODES, StudyMode, StudyPass, choose_cards

NOW = "2026-01-15T12:00:00.000Z"
TIMES = st.integers(1, 28).map(lambda day: f"2026-01-{day:02}T12:00:00.000Z")
SEEN = st.fixed_dictionaries(
    {
        "confidenceLevel": st.integers(1, 5),
        "nextReviewDate": TIMES,
        "lastSeen": TIMES.filter(lambda time: time <= NOW),
    }
)


@st.composite
def courses(draw: st.DrawFn) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """Cards in the order of their course, some of them seen."""
    cards = [{"id": f"card {number}"} for number in range(draw(st.integers(0, 12)))]
    seen = {card["id"]: draw(SEEN) for card in cards if draw(st.booleans())}
    return cards, seen


def naive(cards: list[dict[str, Any]], seen: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Insertion by pairwise comparison, as a person would sort index cards."""

    def qualifies(card: dict[str, Any]) -> bool:
        if card["id"] not in seen:
            return True
        progress = seen[card["id"]]
        return bool(progress["confidenceLevel"] < 4 or progress["nextReviewDate"] <= NOW)

    def goes_before(one: dict[str, Any], other: dict[str, Any]) -> bool:
        first, second = seen.get(one["id"]), seen.get(other["id"])
        if first is None or second is None:
            return first is None and second is not None
        if first["confidenceLevel"] != second["confidenceLevel"]:
            return bool(first["confidenceLevel"] < second["confidenceLevel"])
        return bool(first["lastSeen"] < second["lastSeen"])

    chosen = [card for card in cards if qualifies(card)] or cards
    pile: list[dict[str, Any]] = []
    for card in chosen:
        place = len(pile)
        while place > 0 and goes_before(card, pile[place - 1]):
            place -= 1
        pile.insert(place, card)
    return pile


def place_of(card: dict[str, Any]) -> list[Any]:
    """Where a card of `courses` is in its course."""
    return [int(card["id"].split()[1])]


def choose(
    course: tuple[list[dict[str, Any]], dict[str, dict[str, Any]]],
    mode: StudyMode,
    limit: int = 1000,
    on: StudyPass | None = None,
) -> tuple[list[dict[str, Any]], StudyPass | None]:
    """The next cards of a pass; of one that begins now where none is given."""
    cards, seen = course
    given = on or StudyPass(NOW, seed=0)
    return choose_cards(cards, seen, mode=mode, on=given, limit=limit, place_of=place_of)


@given(course=courses(), limit=st.integers(1, 15))
def test_progressive_mode_follows_the_rules(
    course: tuple[list[dict[str, Any]], dict[str, dict[str, Any]]], limit: int
) -> None:
    """Unseen, weak or due; unseen first, then by confidence, then the longest unseen; when none qualify, all."""
    assert naive(*course)[:limit] == choose(course, "progressive", limit)[0]


@given(course=courses(), limit=st.integers(1, 15), seed=st.integers(0, 2**32 - 1))
def test_the_other_modes_choose_from_everything(
    course: tuple[list[dict[str, Any]], dict[str, dict[str, Any]]], limit: int, seed: int
) -> None:
    """`all` keeps the course's order; `random` deals every card at most once; neither changes what it was given."""
    cards, _ = course
    before = list(cards)
    assert cards[:limit] == choose(course, "all", limit)[0]
    dealt = [card["id"] for card in choose(course, "random", limit, StudyPass(NOW, seed))[0]]
    assert len(cards[:limit]) == len(set(dealt)) == len(dealt)
    assert set(dealt) <= {card["id"] for card in cards}
    assert before == cards


@given(course=courses(), limit=st.integers(1, 5), mode=st.sampled_from(STUDY_MODES), chance=st.randoms())
def test_a_pass_brings_each_card_once_whatever_is_rated_between_its_pages(
    course: tuple[list[dict[str, Any]], dict[str, dict[str, Any]]],
    limit: int,
    mode: StudyMode,
    chance: random.Random,
) -> None:
    """Page by page it is what one large page would have been, less what was rated elsewhere before it came."""
    cards, seen = course
    seen = dict(seen)
    whole = [card["id"] for card in choose((cards, seen), mode)[0]]
    given, elsewhere, on = [], set(), StudyPass(NOW, seed=0)
    for _ in range(len(cards) + 1):
        page, following = choose((cards, seen), mode, limit, on)
        given += [card["id"] for card in page]
        for card in chance.sample(cards, k=min(2, len(cards))):
            rated = chance.choice([card, *page])["id"]
            if rated not in given:
                elsewhere.add(rated)
            seen[rated] = {
                "confidenceLevel": chance.randint(1, 5),
                "nextReviewDate": "2026-02",
                "lastSeen": "2026-02",
            }
        if following is None:
            break
        on = StudyPass(*json.loads(json.dumps(following.position())))
    else:
        pytest.fail("the pass does not end")
    if mode == "progressive":
        whole = [card for card in whole if card in given or card not in elsewhere]
    assert whole == given


def test_cards_that_come_and_go_leave_the_others_in_their_places() -> None:
    """A card that is published or withdrawn between two pages makes no other one come twice or not at all."""
    cards = [{"id": f"card {number}"} for number in range(0, 20, 2)]
    for mode in STUDY_MODES:
        first, on = choose((cards, {}), mode, 4)
        changed = [card for card in cards if card != first[-1]] + [{"id": "card 99"}]
        changed = sorted([*changed, {"id": "card 1"}], key=place_of)
        second, _ = choose((changed, {}), mode, 100, on)
        stayed = {card["id"] for card in cards} - {card["id"] for card in first}
        assert stayed == {card["id"] for card in second} - {"card 1", "card 99"}, mode
        assert len(second) == len({card["id"] for card in second})


def test_a_card_is_due_in_the_millisecond_that_it_is_due_at() -> None:
    """Of three mastered cards those whose time has come are chosen: the millisecond before counts, and this one."""
    due = ["2026-01-15T11:59:59.999Z", NOW, "2026-01-15T12:00:00.001Z"]
    cards = [{"id": f"card {number}"} for number in range(3)]
    seen = {
        f"card {number}": {"confidenceLevel": 5, "nextReviewDate": at, "lastSeen": "2026-01-01"}
        for number, at in enumerate(due)
    }
    assert cards[:2] == choose((cards, seen), "progressive")[0]


def test_random_mode_is_not_always_the_same() -> None:
    """Ten cards come in many orders."""
    cards = [{"id": f"card {number}"} for number in range(10)]
    orders = {
        tuple(card["id"] for card in choose((cards, {}), "random", on=StudyPass.begin(NOW))[0])
        for _ in range(20)
    }
    assert len(orders) > 15
