"""Which cards of a class to study now, and in which order."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

StudyMode = Literal["progressive", "random", "all"]
STUDY_MODES: tuple[StudyMode, ...] = get_args(StudyMode)

_MASTERED_FROM = 4


def choose_cards(
    cards: Sequence[dict[str, Any]],
    progress: Mapping[str, Mapping[str, Any]],
    *,
    mode: StudyMode,
    now: str,
    limit: int | None,
    generator: random.Random,
) -> list[dict[str, Any]]:
    """The cards to study.

    progressive: those unseen, rated below 4, or due; unseen first, then by confidence, then the longest unseen;
    when none qualify, all of them in that order. random: all, shuffled. all: all, in the order of the course.

    Args:
        cards: each with an `id`, in the order of the course.
        progress: confidenceLevel, nextReviewDate and lastSeen by card id; unseen cards are missing.
        mode: as above.
        now: the present as an ISO timestamp, as in nextReviewDate (such strings sort as the times do).
        limit: at most so many; None for all.
        generator: the source of chance for `random`.
    """
    if mode == "progressive":
        chosen = [card for card in cards if _qualifies(progress.get(card["id"]), now)] or list(cards)
        chosen.sort(
            key=lambda card: _urgency(progress.get(card["id"]))
        )  # stable: the course's order breaks ties
    else:
        chosen = list(cards)
        if mode == "random":
            generator.shuffle(chosen)
    return chosen[:limit]


def _qualifies(seen: Mapping[str, Any] | None, now: str) -> bool:
    return seen is None or seen["confidenceLevel"] < _MASTERED_FROM or seen["nextReviewDate"] <= now


def _urgency(seen: Mapping[str, Any] | None) -> tuple[int, int, str]:
    return (0, 0, "") if seen is None else (1, seen["confidenceLevel"], seen["lastSeen"])
