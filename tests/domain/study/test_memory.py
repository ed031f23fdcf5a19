"""FSRS: what a review does to a memory, whatever it was before."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from server.domain.study.repetition import Memory, Review, remember, remember_all

START = datetime(2026, 3, 2, 9, tzinfo=UTC)
LEVELS = st.integers(1, 5)
# From the next breath to several years.
GAPS = st.timedeltas(timedelta(0), timedelta(days=2000))
HISTORIES = st.lists(st.tuples(GAPS, LEVELS), max_size=12)


def reviews_of(history: list[tuple[timedelta, int]]) -> list[Review]:
    """Reviews, each a while after the one before."""
    at, reviews = START, []
    for gap, level in history:
        at += gap
        reviews.append(Review(level, at))
    return reviews


def memory_of(history: list[tuple[timedelta, int]]) -> tuple[Memory | None, datetime]:
    """The memory after a history, and when that was."""
    reviews = reviews_of(history)
    return (remember_all(None, reviews), reviews[-1].at) if reviews else (None, START)


@given(history=HISTORIES, gap=GAPS, level=LEVELS)
def test_a_card_is_due_after_its_review(
    history: list[tuple[timedelta, int]], gap: timedelta, level: int
) -> None:
    """Never at once, never in the past; and the numbers stay in their ranges."""
    memory, at = memory_of(history)
    after = remember(memory, Review(level, at + gap))
    assert after.due_at > after.last_review_at == at + gap
    assert after.stability > 0
    assert 1 <= after.difficulty <= 10
    assert (after.step is None) == (after.phase == "review")


@given(history=HISTORIES, gap=GAPS)
def test_a_better_rating_is_never_due_earlier(history: list[tuple[timedelta, int]], gap: timedelta) -> None:
    """From the same memory at the same moment, the due time grows with the rating."""
    memory, at = memory_of(history)
    dues = [remember(memory, Review(level, at + gap)).due_at for level in range(1, 6)]
    assert sorted(dues) == dues


@given(history=st.lists(st.tuples(GAPS, LEVELS), min_size=1, max_size=12), cut=st.integers(0, 12))
def test_a_memory_can_be_made_in_parts(history: list[tuple[timedelta, int]], cut: int) -> None:
    """A kept memory that is moved on equals one made of the whole log: nothing depends on chance or on the clock."""
    reviews = reviews_of(history)
    memory = None
    for part in (reviews[:cut], reviews[cut:]):
        memory = remember_all(memory, part) if part else memory
    assert remember_all(None, reviews) == memory


def test_a_card_on_its_way() -> None:
    """Short steps while it is learned, growing intervals while it is known, a short step when it is forgotten."""
    memory: Memory | None = None
    at, steps = START, []
    for level in (4, 4, 4, 5, 1, 3, 4):
        memory = remember(memory, Review(level, at))
        steps.append((level, memory.phase, memory.due_at - at))
        at = memory.due_at
    assert [
        (4, "learning", timedelta(minutes=10)),
        (4, "review", timedelta(days=2)),
        (4, "review", timedelta(days=11)),
        (5, "review", timedelta(days=77)),
        (1, "relearning", timedelta(minutes=10)),
        (3, "relearning", timedelta(minutes=15)),
        (4, "review", timedelta(days=4)),
    ] == steps


def test_1_and_2_are_forgotten_3_is_not() -> None:
    """A 2 is a wrong answer as a 1 is; a 3 is remembered, with difficulty."""
    known = remember(remember(None, Review(5, START)), Review(5, START + timedelta(days=8)))
    at = known.due_at
    first, second, third = (remember(known, Review(level, at)) for level in (1, 2, 3))
    assert first == second
    assert ("relearning", "review") == (second.phase, third.phase)
    assert second.stability < known.stability < third.stability
