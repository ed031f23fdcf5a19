"""What a rating says of mastery, and by the fixed table, when the card comes back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, get_args

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
