"""The order of study: which cards of a class come when, and how a reader gets through them page by page."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

StudyMode = Literal["progressive", "random", "all"]
STUDY_MODES: tuple[StudyMode, ...] = get_args(StudyMode)

Card = dict[str, Any]
Progress = Mapping[str, Mapping[str, Any]]
# Values of JSON, so that a cursor can hold them.
Key = list[Any]

_MASTERED_FROM = 4
_random = random.Random()  # noqa: S311 - shuffles flashcards, guards nothing
_random_bits = _random.getrandbits
os.register_at_fork(after_in_child=_random.seed)  # workers would shuffle alike


@dataclass(frozen=True, slots=True)
class StudyPass:
    """One way through the cards of a class, page by page, however the progress on them changes meanwhile.

    Args:
        began: when, as an ISO timestamp as in nextReviewDate (such strings sort as the times do).
        seed: decides the order of `random`.
        takes_all: whether no card qualified for `progressive` when it began, so that all are studied.
        last: the key of the last card that was given; None before the first.
    """

    began: str
    seed: int
    takes_all: bool = False
    last: Key | None = None

    @classmethod
    def begin(cls, now: str) -> StudyPass:
        """A new one, in an order of its own."""
        return cls(now, _random_bits(32))

    def position(self) -> list[Any]:
        """What makes it again: `StudyPass(*position)`."""
        return [self.began, self.seed, self.takes_all, self.last]


def choose_cards(
    cards: Sequence[Card],
    progress: Progress,
    *,
    mode: StudyMode,
    on: StudyPass,
    limit: int,
    place_of: Callable[[Card], Key],
) -> tuple[list[Card], StudyPass | None]:
    """The next cards to study, and how it goes on; None at the end.

    progressive: those unseen, rated below 4, or due; unseen first, then by confidence, then the longest unseen;
    when none qualify, all of them in that order. A card that was rated since the pass began has been studied, and is on
    none of its later pages. random: all, shuffled. all: all, in the order of the course.

    Args:
        cards: each with an `id`, in the order of the course.
        progress: confidenceLevel, nextReviewDate and lastSeen by card id; unseen cards are missing.
        mode: as above.
        on: how far the reader is.
        limit: at most so many.
        place_of: the key by which cards are in the order of the course; no two have the same.
    """
    chosen = list(cards)
    key_of = place_of
    # Sorting is stable, and the order of the course breaks ties: so this may be less than the whole key.
    sort_key: Callable[[Card], Any] | None = None
    if mode == "random":
        chances = _chances(cards, on.seed)

        def key_of(card: Card) -> Key:
            return [chances[card["id"]]]

        def sort_key(card: Card) -> str:
            return chances[card["id"]]

    elif mode == "progressive":
        chosen, on = _progressive(cards, progress, on)

        def key_of(card: Card) -> Key:
            return [*_urgency(progress.get(card["id"])), place_of(card)]

        def sort_key(card: Card) -> tuple[int, int, str]:
            return _urgency(progress.get(card["id"]))

    if on.last is not None:
        chosen = [card for card in chosen if key_of(card) > on.last]
    if sort_key is not None:
        chosen.sort(key=sort_key)
    if len(chosen) <= limit:
        return chosen, None
    page = chosen[:limit]
    return page, replace(on, last=key_of(page[-1]))


def _progressive(cards: Sequence[Card], progress: Progress, on: StudyPass) -> tuple[list[Card], StudyPass]:
    """The cards that a pass is about, in no order yet; on its first page it becomes clear whether that is all."""
    if on.last is not None:
        return [card for card in cards if _is_left(progress.get(card["id"]), on)], on
    chosen = [card for card in cards if _qualifies(progress.get(card["id"]), on.began)]
    return (chosen, on) if chosen else (list(cards), replace(on, takes_all=True))


def _is_left(seen: Mapping[str, Any] | None, on: StudyPass) -> bool:
    """Whether a card is still to come, on a page after the first."""
    if seen is not None and seen["lastSeen"] > on.began:
        return False
    return on.takes_all or _qualifies(seen, on.began)


def _qualifies(seen: Mapping[str, Any] | None, now: str) -> bool:
    return seen is None or seen["confidenceLevel"] < _MASTERED_FROM or seen["nextReviewDate"] <= now


def _urgency(seen: Mapping[str, Any] | None) -> tuple[int, int, str]:
    return (0, 0, "") if seen is None else (1, seen["confidenceLevel"], seen["lastSeen"])


def _chances(cards: Sequence[Card], seed: int) -> dict[str, str]:
    """Where each card comes in a shuffled order: the same on every page, whatever cards come and go between them."""
    prefix = seed.to_bytes(4, "big")
    return {
        card_id: hashlib.blake2b(prefix + card_id.encode(), digest_size=6).hexdigest() + card_id
        for card_id in (card["id"] for card in cards)
    }
