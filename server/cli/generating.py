"""`python -m server generate`: made-up students and their ratings, for load tests and for looking at the analytics."""

from __future__ import annotations

import functools
import io
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from random import Random
from uuid import UUID
from zoneinfo import ZoneInfo

import psycopg2
import structlog
from psycopg2.extensions import connection as Connection  # noqa: N812 - the driver names its class in lower case
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from tqdm import tqdm

from server.cli.database import connected
from server.domain.identity.users import DEMO_IDS
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
from server.errors import CommandError

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
log = structlog.get_logger(__name__)

# What is kept in memory at a time, and what one COPY takes.
_BATCH_ROWS = 50_000
_TABLES = {
    "classes": "id, name, description, sort_order, is_published, scheduler",
    "decks": "id, class_id, name, sort_order, is_published",
    "flashcards": "id, deck_id, question, answer, explanation, sort_order, is_published",
    "users": "id, email, name, time_zone, created_at",
    "study_sessions": (
        "id, user_id, started_at, ended_at, cards_studied, duration_seconds, average_confidence"
    ),
    "study_session_decks": "session_id, user_id, deck_id",
    "user_card_progress": (
        "user_id, flashcard_id, deck_id, confidence_level, mastery_status, times_seen, last_seen_at, "
        "next_review_at, created_at"
    ),
    "review_log": "user_id, flashcard_id, confidence_level, rated_at",
    "memory_states": (
        "user_id, flashcard_id, stability, difficulty, state, step, due_at, last_review_at, reviews"
    ),
    "session_cards": "session_id, flashcard_id, confidence_level, response_time_ms, rated_at",
    "user_active_days": "user_id, day, first_at, lapses_at",
    "generated_activity": "user_id, study_seconds, last_active_at",
}
_MAKE_ACTIVITY = """
CREATE TEMPORARY TABLE generated_activity (
    user_id uuid, study_seconds bigint, last_active_at timestamptz
) ON COMMIT DROP
"""
# The counts of cards and the streaks are the triggers' work, also here: they count each COPY as one statement.
_WRITE_ACTIVITY = """
UPDATE user_stats AS s
   SET total_study_time_seconds = a.study_seconds, last_active_at = a.last_active_at
  FROM generated_activity AS a
 WHERE s.user_id = a.user_id
"""


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


class GenerateFailed(CommandError):
    """Nothing was generated; the message says why."""


@dataclass(frozen=True, slots=True)
class GenerateReport:
    """What was made."""

    users: int
    cards: int
    ratings: int
    sessions: int


def generate(
    url: str,
    *,
    users: int,
    cards: int,
    ratings: int,
    seed: int = 1,
    until: date | None = None,
    append: bool = False,
    progress: bool | None = None,
) -> GenerateReport:
    """Make students who study a made-up course: the same for the same arguments, all of it or nothing.

    It is one transaction, with the counters of every student exact at its end. Memory stays flat: students are made
    and written in batches. In the log of reviews is each card's newest rating.
    The second of each four classes is set to FSRS: its cards have memory states.

    Args:
        url: the database, migrated.
        users: how many students.
        cards: how many cards, in decks of fifty and classes of twenty decks.
        ratings: how many cards the students have rated altogether, each card once or several times.
        seed: for other students and another course.
        until: the day on which the story ends, at its beginning in UTC; by default today.
        append: whether to add to a database in which there are users already, other than the demo accounts.
        progress: whether to show a progress bar; by default, if standard error is a terminal.

    Raises:
        GenerateFailed: the numbers do not fit, other data is there, or no database; nothing is made then.
    """
    random = Random(seed)  # noqa: S311 - makes a story, guards nothing
    end = datetime.combine(until or datetime.now(UTC).date(), datetime.min.time(), tzinfo=UTC)
    if min(users, cards, ratings) < 1:
        raise GenerateFailed("users, cards and ratings are at least 1 each")
    try:
        shares = share_ratings(ratings, users, cards, random)
    except ValueError as error:
        raise GenerateFailed(str(error)) from None
    decks = make_decks(cards, random)
    students = make_students(shares, decks, until=end, seed=seed, random=random)
    hidden = not (sys.stderr.isatty() if progress is None else progress)
    with connected(url, failed="nothing was generated", error=GenerateFailed) as connection:
        try:
            with (
                connection,
                connection.cursor() as cursor,
                tqdm(total=ratings, unit=" ratings", unit_scale=True, disable=hidden, leave=False) as bar,
            ):
                _check_users(cursor, append=append)
                sessions = _write(cursor, decks, students, seed, bar.update)
        except psycopg2.errors.UniqueViolation:
            raise GenerateFailed(
                f"nothing was generated: seed {seed} has been used; choose another"
            ) from None
        _vacuum(connection)
    report = GenerateReport(users=users, cards=cards, ratings=ratings, sessions=sessions)
    log.info("generate.finished", users=users, cards=cards, ratings=ratings, sessions=sessions, seed=seed)
    return report


def _check_users(cursor: Cursor, *, append: bool) -> None:
    demo_ids = [str(user_id) for user_id in DEMO_IDS.values()]
    cursor.execute("SELECT EXISTS (SELECT FROM users WHERE id <> ALL(%s::uuid[]))", (demo_ids,))
    if not append and cursor.fetchone() == (True,):
        raise GenerateFailed("nothing was generated: there are users in this database; --append adds to them")


def _write(
    cursor: Cursor,
    decks: Sequence[Deck],
    students: Iterable[Student],
    seed: int,
    on_rated: Callable[[int], object],
) -> int:
    course = _Batch()
    for order, deck in enumerate(decks):
        course.add_deck(deck, order, seed)
    course.write(cursor)
    cursor.execute(_MAKE_ACTIVITY)
    sessions = 0
    for batch in _one_ahead(_batches(students)):
        batch.write(cursor)
        cursor.execute(_WRITE_ACTIVITY)
        cursor.execute("TRUNCATE generated_activity")
        sessions += len(batch.rows["study_sessions"])
        on_rated(len(batch.rows["user_card_progress"]))
    return sessions


def _batches(students: Iterable[Student]) -> Iterator[_Batch]:
    batch = _Batch()
    for student in students:
        batch.add_student(student)
        if len(batch.rows["user_card_progress"]) + len(batch.rows["users"]) >= _BATCH_ROWS:
            yield batch
            batch = _Batch()
    yield batch


def _one_ahead(batches: Iterator[_Batch]) -> Iterator[_Batch]:
    """The batches, each made in a thread while the server is busy with the one before."""
    with ThreadPoolExecutor(max_workers=1) as maker:
        coming = maker.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = maker.submit(next, batches, None)
            yield batch


@dataclass(slots=True)
class _Batch:
    """Lines for COPY, by table; the tables in an order in which each finds what it refers to."""

    rows: dict[str, list[str]] = field(default_factory=lambda: {table: [] for table in _TABLES})

    def add_deck(self, deck: Deck, order: int, seed: int) -> None:
        """A deck with its cards, and its class if that is new."""
        rows = self.rows
        if not rows["decks"] or rows["decks"][-1].split("\t")[1] != str(deck.class_id):
            number = len(rows["classes"]) + 1
            about = f"A class of made-up cards, by seed {seed}."
            rows["classes"].append(
                f"{deck.class_id}\tSynthetic class {number}\t{about}\t{number}\ttrue\t{deck.scheduler}"
            )
        rows["decks"].append(f"{deck.id}\t{deck.class_id}\tSynthetic deck {order + 1}\t{order}\ttrue")
        rows["flashcards"] += [
            f"{card_id}\t{deck.id}\tWhat is term {number} of deck {order + 1}?\tThe definition of term {number}."
            f"\tBecause the source says so.\t{number}\ttrue"
            for number, card_id in enumerate(deck.card_ids, start=1)
        ]

    def add_student(self, student: Student) -> None:
        """A student with everything that they did."""
        rows = self.rows
        rows["users"].append(
            f"{student.id}\t{student.email}\t{student.name}\t{student.time_zone}\t{student.created_at}"
        )
        prefix = f"{student.id}\t"
        rows["user_card_progress"] += [
            f"{prefix}{rated.card_id}\t{rated.deck_id}\t{rated.confidence_level}\t{rated.mastery_status}"
            f"\t{rated.times_seen}\t{rated.seen_at}\t{rated.review_at}\t{rated.seen_at}"
            for rated in student.rated
        ]
        rows["review_log"] += [
            f"{prefix}{rated.card_id}\t{rated.confidence_level}\t{rated.seen_at}" for rated in student.rated
        ]
        rows["memory_states"] += [
            f"{prefix}{rated.card_id}\t{memory.stability!r}\t{memory.difficulty!r}\t{memory.phase}"
            f"\t{_null(memory.step)}\t{memory.due_at}\t{memory.last_review_at}\t1"
            for rated in student.rated
            if (memory := rated.memory) is not None
        ]
        for session in student.sessions:
            rated_cards = session.rated
            average = sum(rated.confidence_level for rated in rated_cards) / len(rated_cards)
            ended_at = rated_cards[0].seen_at
            rows["study_sessions"].append(
                f"{session.id}\t{student.id}\t{session.started_at}\t{ended_at}\t{len(rated_cards)}"
                f"\t{session.duration_seconds}\t{average:.2f}"
            )
            for deck_id in dict.fromkeys(rated.deck_id for rated in rated_cards):
                rows["study_session_decks"].append(f"{session.id}\t{student.id}\t{deck_id}")
            rows["session_cards"] += [
                f"{session.id}\t{rated.card_id}\t{rated.confidence_level}\t\\N\t{rated.seen_at}"
                for rated in rated_cards
            ]
        rows["user_active_days"] += [
            f"{prefix}{active.day}\t{active.first_at}\t{active.lapses_at}" for active in student.active_days
        ]
        if student.last_active_at is not None:
            studied = sum(session.duration_seconds for session in student.sessions)
            rows["generated_activity"].append(f"{student.id}\t{studied}\t{student.last_active_at}")

    def write(self, cursor: Cursor) -> None:
        """Copy it all into the database."""
        for table, columns in _TABLES.items():
            if self.rows[table]:
                lines = io.StringIO("\n".join(self.rows[table]))
                cursor.copy_expert(f"COPY {table} ({columns}) FROM STDIN", lines, size=1 << 20)


def _null(value: object) -> object:
    r"""A value in a line for COPY, where \N is null."""
    return r"\N" if value is None else value


def _vacuum(connection: Connection) -> None:
    """Leave the tables as they are in a service that has been running: known to the planner, all rows visible."""
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(
            "VACUUM (ANALYZE) users, user_stats, user_deck_stats, user_active_days, user_card_progress, "
            "review_log, memory_states, study_sessions, study_session_decks, session_cards, classes, decks, flashcards"
        )
