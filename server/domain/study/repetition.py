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

from server.stores.postgres.database import Database, Transaction

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


def mastery_of(confidence_level: int) -> Mastery:
    """4 and 5 are mastered, 3 is learning, 1 and 2 are new; whatever the scheduler."""
    if confidence_level > _LEARNING:
        return "mastered"
    return "learning" if confidence_level == _LEARNING else "new"


def review_after(confidence_level: int) -> timedelta:
    """How long after a review a card is due again, by the fixed table: 12 hours for 1 and 2, then 1, 3 and 7 days."""
    return _REVIEW_AFTER[confidence_level]


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


Row = Mapping[str, Any]
Reviews = Mapping[UUID, Sequence[Review]]


async def memorize(
    queries: Database | Transaction, user_id: UUID, facts: Sequence[Row], new_reviews: Reviews
) -> list[dict[str, Any]]:
    """What FSRS will know of a user's memory of cards after new reviews, for record_ratings.

    Args:
        queries: where the log is read, if it has reviews that a memory lacks.
        user_id: whose memory it is.
        facts: rows of find_rating_facts.
        new_reviews: by card, each from old to new; not in the log yet.

    Returns:
        For each of the facts the columns of memory_states and `logged`: how many reviews it takes for granted.
    """
    anew = [row["flashcard_id"] for row in facts if row["logged"] and not _is_continued(row, new_reviews)]
    log = await _read_log(queries, user_id, anew) if anew else {}
    return [_memorize(row, log.get(row["flashcard_id"]), new_reviews[row["flashcard_id"]]) for row in facts]


def _memorize(row: Row, log: Sequence[Review] | None, new_reviews: Sequence[Review]) -> dict[str, Any]:
    """The memory of one card. Args: log: its reviews, where the kept memory is not just moved on."""
    kept, logged = None, row["logged"]
    if log is not None:
        logged = len(log)
        new_reviews = sorted([*log, *new_reviews], key=lambda review: review.at)
    elif logged:
        kept = _memory(row)
    memory = remember_all(kept, new_reviews)
    return {
        "flashcard_id": row["flashcard_id"],
        "stability": memory.stability,
        "difficulty": memory.difficulty,
        "state": memory.phase,
        "step": memory.step,
        "due_at": memory.due_at,
        "last_review_at": memory.last_review_at,
        "reviews": len(new_reviews) if log is not None else logged + len(new_reviews),
        "logged": logged,
    }


def _is_continued(row: Row, new_reviews: Reviews) -> bool:
    """Whether the new reviews come after all that a kept memory was made of, and it lacks nothing of the log."""
    first = new_reviews[row["flashcard_id"]][0]
    return bool(row["logged"] == row["reviews"] and first.at >= row["last_review_at"])


async def _read_log(
    queries: Database | Transaction, user_id: UUID, flashcard_ids: Sequence[UUID]
) -> dict[UUID, list[Review]]:
    rows = await queries.fetch_all("list_reviews", user_id=user_id, flashcard_ids=list(flashcard_ids))
    log: dict[UUID, list[Review]] = {flashcard_id: [] for flashcard_id in flashcard_ids}
    for row in rows:
        log[row["flashcard_id"]].append(Review(row["confidence_level"], row["rated_at"]))
    return log


def _memory(row: Row) -> Memory:
    return Memory(
        stability=row["stability"],
        difficulty=row["difficulty"],
        phase=row["state"],
        step=row["step"],
        due_at=row["due_at"],
        last_review_at=row["last_review_at"],
    )
