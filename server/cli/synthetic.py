"""Made-up students: their accounts, what they studied and when, drawn from a seed."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID
from zoneinfo import ZoneInfo

from server.domain.study.activity import ActiveDay, active_days
from server.domain.study.repetition import (
    Mastery,
    Memory,
    Review,
    SchedulerName,
    mastery_of,
    remember,
    review_after,
)

# Few study very much and many a little: the n-th busiest in proportion to (n + _HEAD) ** -_SKEW, as Zipf's law has it.
_SKEW, _HEAD, _WEIGHT_UNIT = 0.9, 5, 10**12
_CONFIDENCE = ((1, 2, 3, 4, 5), (6, 9, 20, 35, 30))
_TIMES_SEEN = ((1, 2, 3, 4, 5, 8, 13), (40, 25, 14, 9, 6, 4, 2))
_TIME_ZONES = (
    ("UTC", "Europe/Berlin", "America/New_York", "America/Los_Angeles", "Asia/Kolkata", "Asia/Tokyo"),
    (10, 30, 25, 15, 12, 8),
)
_FIRST_NAMES = ("Ada", "Alan", "Barbara", "Donald", "Edsger", "Frances", "Grace", "Ken", "Leslie", "Niklaus")
_LAST_NAMES = ("Allen", "Dijkstra", "Hopper", "Knuth", "Lamport", "Liskov", "Lovelace", "Turing", "Wirth")
_CARDS_A_SITTING = 20
_SECONDS_A_CARD = (6, 40)
# One sitting in so many is a session of the service; the others rate without one, as offline clients do.
_SITTINGS_A_SESSION = 4
_CARDS_A_DECK = 50
_DECKS_A_CLASS = 20
# The second of each four classes is set to FSRS.
_CLASSES_A_SCHEDULER = 4


@dataclass(frozen=True, slots=True)
class Deck:
    """A deck and its cards."""

    id: UUID
    class_id: UUID
    scheduler: SchedulerName
    card_ids: list[UUID]


@dataclass(frozen=True, slots=True)
class Rated:
    """A card, what its last rating said, and what FSRS made of that where the class is set to it."""

    card_id: UUID
    deck_id: UUID
    confidence_level: int
    mastery_status: Mastery
    times_seen: int
    seen_at: datetime
    review_at: datetime
    memory: Memory | None


@dataclass(frozen=True, slots=True)
class Session:
    """An ended session over ratings of its time."""

    id: UUID
    started_at: datetime
    duration_seconds: int
    rated: list[Rated]


@dataclass(frozen=True, slots=True)
class Student:
    """A user with everything that they did."""

    id: UUID
    email: str
    name: str
    time_zone: str
    created_at: datetime
    rated: list[Rated]
    sessions: list[Session]
    last_active_at: datetime | None
    active_days: list[ActiveDay]


def make_decks(cards: int, random: Random) -> list[Deck]:
    """So many cards, fifty a deck, twenty decks a class."""
    decks: list[Deck] = []
    class_id = random_uuid(random)
    for first in range(0, cards, _CARDS_A_DECK):
        if decks and len(decks) % _DECKS_A_CLASS == 0:
            class_id = random_uuid(random)
        number_of_class = len(decks) // _DECKS_A_CLASS
        scheduler: SchedulerName = "fsrs" if number_of_class % _CLASSES_A_SCHEDULER == 1 else "fixed"
        size = min(_CARDS_A_DECK, cards - first)
        card_ids = [random_uuid(random) for _ in range(size)]
        decks.append(Deck(random_uuid(random), class_id, scheduler, card_ids))
    return decks


def share_ratings(ratings: int, users: int, cards: int, random: Random) -> list[int]:
    """How many cards each user has rated: `ratings` in all, and none more than there are cards.

    Raises:
        ValueError: they can't have rated so many.
    """
    if ratings > users * cards:
        raise ValueError(f"{users} users can rate at most {users * cards} times, each card once")
    weights = [int((rank + _HEAD) ** -_SKEW * _WEIGHT_UNIT) + 1 for rank in range(users)]
    left, weight_left = ratings, sum(weights)
    shares = []
    for weight in weights:
        # In proportion of what is left, rounded up: later users weigh less, so the rest always finds room.
        share = min(cards, -(-left * weight // weight_left))
        shares.append(share)
        left -= share
        weight_left -= weight
    random.shuffle(shares)
    return shares


def make_students(
    shares: Sequence[int], decks: Sequence[Deck], *, until: datetime, seed: int, random: Random
) -> Iterator[Student]:
    """One student after another.

    Args:
        shares: how many cards each has rated.
        decks: the course.
        until: the end of the story; the last day before it is the present.
        seed: makes the addresses of two data sets differ.
        random: the source of chance.
    """
    course = [(card_id, deck) for deck in decks for card_id in deck.card_ids]
    around = course + course
    for number, share in enumerate(shares, start=1):
        zone = random.choices(*_TIME_ZONES)[0]
        first = random.randrange(len(course))
        cards = around[first : first + share]
        # Half of them studied within a day and a half; a few have not been seen for months.
        ended_at = until - timedelta(seconds=int(random.expovariate(1 / 2.5) * random.random() * 86_400) + 1)
        sittings = list(_sittings(cards, ended_at, random))
        rated = [card for sitting in sittings for card in sitting]
        yield Student(
            id=random_uuid(random),
            email=f"student-{number}.{seed}@example.com",
            name=f"{random.choice(_FIRST_NAMES)} {random.choice(_LAST_NAMES)}",
            time_zone=zone,
            created_at=ended_at - timedelta(days=2 * len(sittings) + 30),
            rated=rated,
            sessions=[
                _session(sitting, random)
                for sitting in sittings
                if random.randrange(_SITTINGS_A_SESSION) == 0
            ],
            last_active_at=rated[0].seen_at if rated else None,
            active_days=_active_days(sittings, ZoneInfo(zone)),
        )


def random_uuid(random: Random) -> UUID:
    """A version 4 UUID from a source of chance that can be seeded."""
    return UUID(int=random.getrandbits(128), version=4)


def _sittings(
    cards: Sequence[tuple[UUID, Deck]], ended_at: datetime, random: Random
) -> Iterator[list[Rated]]:
    """The cards in sittings, newest first, and newest first in each."""
    moment = ended_at
    for first in range(0, len(cards), _CARDS_A_SITTING):
        sitting = cards[first : first + _CARDS_A_SITTING]
        levels = random.choices(*_CONFIDENCE, k=len(sitting))
        times = random.choices(*_TIMES_SEEN, k=len(sitting))
        pace = timedelta(seconds=random.randint(*_SECONDS_A_CARD))
        rated = []
        for (card_id, deck), level, seen in zip(sitting, levels, times, strict=True):
            memory = _memory(level, moment) if deck.scheduler == "fsrs" else None
            due_at = moment + review_after(level) if memory is None else memory.due_at
            rated.append(Rated(card_id, deck.id, level, mastery_of(level), seen, moment, due_at, memory))
            moment -= pace
        yield rated
        moment -= timedelta(seconds=random.randint(3600, 2 * 86_400))


def _memory(level: int, at: datetime) -> Memory:
    """What FSRS knows after one review: but for the moment, always the same."""
    first = _first_memory(level)
    return replace(first, due_at=at + (first.due_at - first.last_review_at), last_review_at=at)


@functools.cache
def _first_memory(level: int) -> Memory:
    return remember(None, Review(level, datetime(2000, 1, 1, tzinfo=UTC)))


def _session(sitting: list[Rated], random: Random) -> Session:
    started_at = sitting[-1].seen_at - timedelta(seconds=5)
    duration = int((sitting[0].seen_at - started_at).total_seconds()) + 5
    return Session(random_uuid(random), started_at, duration, sitting)


def _active_days(sittings: Sequence[Sequence[Rated]], zone: ZoneInfo) -> list[ActiveDay]:
    """The days of the sittings, by their first and last cards: none lasts longer than a quarter of an hour."""
    return active_days((rated.seen_at for sitting in sittings for rated in (sitting[0], sitting[-1])), zone)
