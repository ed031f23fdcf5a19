"""FSRS: a student's memory of a card, and when it will have faded to 90 %.

The algorithm is that of the library `fsrs` with its default parameters (github.com/open-spaced-repetition/py-fsrs).
It knows four ratings and calls them forgotten, remembered with serious difficulty, after a hesitation, and easily. In
the same words SuperMemo's SM-2 defines its grades: 1 and 2 are wrong answers, 3 is "recalled with serious difficulty",
4 "after a hesitation", 5 "perfect" (super-memory.com/english/ol/sm2.htm). Hence the table below. "Hard" must not be
given for a forgotten card: FSRS would take it for a success.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from fsrs import Card, Rating, Scheduler, State

from server.domain.study.scheduling import Review

MemoryPhase = Literal["learning", "review", "relearning"]

# Without fuzz, which would move each due day by chance: the same reviews give the same day.
_SCHEDULER = Scheduler(enable_fuzzing=False)
_RATINGS = {1: Rating.Again, 2: Rating.Again, 3: Rating.Hard, 4: Rating.Good, 5: Rating.Easy}
_STATES: dict[MemoryPhase, State] = {
    "learning": State.Learning,
    "review": State.Review,
    "relearning": State.Relearning,
}
_PHASES = {state: phase for phase, state in _STATES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What FSRS knows of one student's memory of one card.

    Args:
        stability: days until the probability of recall has fallen to 90 %.
        difficulty: from 1 (easy) to 10.
        phase: learning (new), review (known), relearning (forgotten again).
        step: which of the short steps of (re)learning comes next; None in review.
        due_at: when to review next.
        last_review_at: the moment of the newest review.
    """

    stability: float
    difficulty: float
    phase: MemoryPhase
    step: int | None
    due_at: datetime
    last_review_at: datetime


def remember(memory: Memory | None, review: Review) -> Memory:
    """The memory after a review.

    Args:
        memory: before it; None for a card that was never reviewed.
        review: not older than the memory's last one.
    """
    at = review.at.astimezone(UTC)
    card, _ = _SCHEDULER.review_card(_card(memory, at), _RATINGS[review.confidence_level], at)
    if card.stability is None or card.difficulty is None:
        raise RuntimeError("a reviewed card without a memory")
    return Memory(
        stability=card.stability,
        difficulty=card.difficulty,
        phase=_PHASES[card.state],
        step=card.step,
        due_at=card.due,
        last_review_at=at,
    )


def remember_all(memory: Memory | None, reviews: Iterable[Review]) -> Memory:
    """The memory after one review or more, from old to new."""
    for review in reviews:
        memory = remember(memory, review)
    if memory is None:
        raise ValueError("no memory without a review")
    return memory


def _card(memory: Memory | None, now: datetime) -> Card:
    # With an id and a due time of ours: the library would sleep for a millisecond to find a unique one.
    if memory is None:
        return Card(card_id=0, due=now)
    return Card(
        card_id=0,
        state=_STATES[memory.phase],
        step=memory.step,
        stability=memory.stability,
        difficulty=memory.difficulty,
        due=memory.due_at,
        last_review=memory.last_review_at,
    )
