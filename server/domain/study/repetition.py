"""When a rated card comes back: by a fixed table, or by FSRS, a model of the student's memory.

With FSRS, the memory of a card follows from the log of its reviews. Usually a rating advances the stored memory. Where
the log has reviews that the memory lacks (the class had another scheduler for a while, or a device was offline), it is
computed anew from the whole log. So it depends on what was rated when, and not on the order of arrival.

The algorithm is that of the library `fsrs` with its default parameters (github.com/open-spaced-repetition/py-fsrs). It
has four ratings: forgotten, remembered with serious difficulty, after a hesitation, and easily. SuperMemo's SM-2
defines its grades in the same words: 1 and 2 are wrong answers, 3 is "recalled with serious difficulty", 4 "after a
hesitation", 5 "perfect" (super-memory.com/english/ol/sm2.htm). Hence the table of ratings below. "Hard" must not be
given for a forgotten card: FSRS would count it as a success.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args
from uuid import UUID

from fsrs import Card, Rating, Scheduler, State

from server.stores.postgres.database import Transaction

Mastery = Literal["new", "learning", "mastered"]
SchedulerName = Literal["fixed", "fsrs"]
SCHEDULERS: tuple[SchedulerName, ...] = get_args(SchedulerName)

MINIMUM_CONFIDENCE = 1
MAXIMUM_CONFIDENCE = 5
_LEARNING = 3
_REVIEW_AFTER = {
    1: timedelta(hours=12),
    2: timedelta(hours=12),
    3: timedelta(days=1),
    4: timedelta(days=3),
    5: timedelta(days=7),
}


@dataclass(frozen=True, slots=True)
class Review:
    """A card was rated at a moment."""

    confidence_level: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a card stands: its newest review, and when it is due again."""

    newest: Review
    due_at: datetime


def mastery_of(confidence_level: int) -> Mastery:
    """4 and 5 are mastered, 3 is learning, 1 and 2 are new; whatever the scheduler."""
    if confidence_level > _LEARNING:
        return "mastered"
    return "learning" if confidence_level == _LEARNING else "new"


def next_review(review: Review) -> datetime:
    """When a card is due again, by the fixed table: 12 hours for 1 and 2, then 1, 3 and 7 days."""
    return review.at + _REVIEW_AFTER[review.confidence_level]


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


Reviews = Mapping[UUID, Sequence[Review]]


async def memorize(transaction: Transaction, user_id: UUID, new_reviews: Reviews) -> dict[UUID, Standing]:
    """Bring a user's memories of cards up to date, and say when the cards are due.

    Args:
        transaction: in which the user's row is locked, and the reviews are in the log.
        user_id: whose memory it is.
        new_reviews: by card, each from old to new.
    """
    if not new_reviews:
        return {}
    rows = await transaction.fetch_all("list_memory_states", user_id=user_id, flashcard_ids=list(new_reviews))
    kept = {
        row["flashcard_id"]: _memory(row)
        for row in rows
        if _is_continued(row, new_reviews[row["flashcard_id"]])
    }
    counts = {row["flashcard_id"]: row["logged"] for row in rows}
    reviews = dict(new_reviews)
    anew = [flashcard_id for flashcard_id in new_reviews if flashcard_id not in kept]
    if anew:
        logged = await _read_log(transaction, user_id, anew)
        reviews |= logged
        counts |= {flashcard_id: len(entries) for flashcard_id, entries in logged.items()}
    memories = {
        flashcard_id: remember_all(kept.get(flashcard_id), entries)
        for flashcard_id, entries in reviews.items()
    }
    await _keep(transaction, user_id, memories, counts)
    return {
        flashcard_id: Standing(reviews[flashcard_id][-1], memory.due_at)
        for flashcard_id, memory in memories.items()
    }


def _is_continued(row: Mapping[str, Any], reviews: Sequence[Review]) -> bool:
    """Whether a kept memory lacks the new reviews, which come after all that it was made of, and nothing else."""
    return bool(row["logged"] == row["reviews"] + len(reviews) and reviews[0].at >= row["last_review_at"])


async def _read_log(
    transaction: Transaction, user_id: UUID, flashcard_ids: Sequence[UUID]
) -> dict[UUID, list[Review]]:
    rows = await transaction.fetch_all("list_reviews", user_id=user_id, flashcard_ids=list(flashcard_ids))
    log: dict[UUID, list[Review]] = {flashcard_id: [] for flashcard_id in flashcard_ids}
    for row in rows:
        log[row["flashcard_id"]].append(Review(row["confidence_level"], row["rated_at"]))
    return log


async def _keep(
    transaction: Transaction, user_id: UUID, memories: Mapping[UUID, Memory], counts: Mapping[UUID, int]
) -> None:
    await transaction.execute(
        "keep_memory_states",
        user_id=user_id,
        flashcard_ids=list(memories),
        stabilities=[memory.stability for memory in memories.values()],
        difficulties=[memory.difficulty for memory in memories.values()],
        states=[memory.phase for memory in memories.values()],
        steps=[memory.step for memory in memories.values()],
        due_ats=[memory.due_at for memory in memories.values()],
        last_review_ats=[memory.last_review_at for memory in memories.values()],
        review_counts=[counts[flashcard_id] for flashcard_id in memories],
    )


def _memory(row: Mapping[str, Any]) -> Memory:
    return Memory(
        stability=row["stability"],
        difficulty=row["difficulty"],
        phase=row["state"],
        step=row["step"],
        due_at=row["due_at"],
        last_review_at=row["last_review_at"],
    )
