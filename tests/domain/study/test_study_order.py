"""Which cards come when, against the rules read literally."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from server.domain.study.reading import choose_cards

NOW = "2026-01-15T12:00:00.000Z"
TIMES = st.integers(1, 28).map(lambda day: f"2026-01-{day:02}T12:00:00.000Z")
SEEN = st.fixed_dictionaries(
    {"confidenceLevel": st.integers(1, 5), "nextReviewDate": TIMES, "lastSeen": TIMES}
)


def seeded(seed: int) -> random.Random:
    """A source of chance that repeats itself."""
    return random.Random(seed)  # noqa: S311 - shuffles flashcards, guards nothing


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


@given(course=courses(), limit=st.one_of(st.none(), st.integers(1, 15)))
def test_progressive_mode_follows_the_rules(
    course: tuple[list[dict[str, Any]], dict[str, dict[str, Any]]], limit: int | None
) -> None:
    """Unseen, weak or due; unseen first, then by confidence, then the longest unseen; when none qualify, all."""
    cards, seen = course
    chosen = choose_cards(cards, seen, mode="progressive", now=NOW, limit=limit, generator=seeded(0))
    assert naive(cards, seen)[:limit] == chosen


@given(course=courses(), limit=st.one_of(st.none(), st.integers(1, 15)), seed=st.integers())
def test_the_other_modes_choose_from_everything(
    course: tuple[list[dict[str, Any]], dict[str, dict[str, Any]]], limit: int | None, seed: int
) -> None:
    """`all` keeps the course's order; `random` deals every card at most once; neither changes what it was given."""
    cards, seen = course
    generator = seeded(seed)
    before = list(cards)
    assert cards[:limit] == choose_cards(cards, seen, mode="all", now=NOW, limit=limit, generator=generator)
    dealt = choose_cards(cards, seen, mode="random", now=NOW, limit=limit, generator=generator)
    ids = [card["id"] for card in dealt]
    assert len(cards[:limit]) == len(set(ids)) == len(ids)
    assert set(ids) <= {card["id"] for card in cards}
    assert before == cards


def test_a_card_is_due_in_the_millisecond_that_it_is_due_at() -> None:
    """Of three mastered cards those whose time has come are chosen: the millisecond before counts, and this one."""
    due = ["2026-01-15T11:59:59.999Z", NOW, "2026-01-15T12:00:00.001Z"]
    seen = {at: {"confidenceLevel": 5, "nextReviewDate": at, "lastSeen": "2026-01-01"} for at in due}
    cards = [{"id": at} for at in due]
    chosen = choose_cards(cards, seen, mode="progressive", now=NOW, limit=None, generator=seeded(0))
    assert due[:2] == [card["id"] for card in chosen]


def test_random_mode_is_not_always_the_same() -> None:
    """Ten cards come in many orders."""
    cards = [{"id": str(number)} for number in range(10)]
    generator = seeded(1)
    orders = {
        tuple(
            card["id"]
            for card in choose_cards(cards, {}, mode="random", now=NOW, limit=None, generator=generator)
        )
        for _ in range(20)
    }
    assert len(orders) > 15
