"""Ratings: what they change, in which order, and what happens beside them at the same time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
import structlog

from server.domain.editing.resources import (
    delete_class,
    delete_deck,
    delete_flashcard,
    update_deck,
    update_flashcard,
)
from server.domain.identity.tokens import Caller
from server.domain.study import ratings
from server.domain.study.ratings import Rating
from server.domain.study.repetition import Review, remember_all
from server.domain.writing import KeyedRequest
from server.errors import AccountGone, Conflict, NotFound
from server.stores.postgres.database import DatabaseUnavailable
from tests.domain.conftest import Course, Domain, open_domain
from tests.stores.postgres.databases import ask
from tests.support.postgres_wire import PostgresWire, through

NOW = datetime.now(UTC)
# As everything must that writes for a user.
_LOCK_FIGURES = "DO $$ BEGIN PERFORM FROM user_stats ORDER BY user_id FOR UPDATE; END $$;"


def rate(
    card: UUID, confidence: int = 3, *, hours_ago: float | None = None, session: UUID | None = None
) -> Rating:
    """A rating of this moment, or of some hours ago."""
    at = None if hours_ago is None else NOW - timedelta(hours=hours_ago)
    return Rating(flashcard_id=card, confidence_level=confidence, session_id=session, rated_at=at)


async def test_the_newest_rating_decides_and_all_of_them_count(
    domain: Domain, people: dict[str, Caller], course: Course
) -> None:
    """An offline device's older ratings count as seen and change nothing else, within a batch and between them."""
    user, card = people["user"].user_id, course.cards["r1"]
    (first, second, third) = await domain.record_ratings(
        user, [rate(card, 2, hours_ago=5), rate(card, 5, hours_ago=1), rate(card, 1, hours_ago=9)], zone=None
    )
    assert first == second == third
    assert (5, "mastered", 3) == (first["confidenceLevel"], first["masteryStatus"], first["timesSeen"])
    (late,) = await domain.record_ratings(user, [rate(card, 1, hours_ago=2)], zone=None)
    assert first | {"timesSeen": 4} == late
    (now,) = await domain.record_ratings(user, [rate(card, 3)], zone=None)
    assert (3, "learning", 5) == (now["confidenceLevel"], now["masteryStatus"], now["timesSeen"])


@pytest.mark.parametrize("cards", [["r1"], ["r1", "r2"]])
async def test_a_rating_is_of_the_day_that_its_moment_is_in(
    domain: Domain, people: dict[str, Caller], course: Course, cards: list[str]
) -> None:
    """What follows another host's rating of tomorrow is of tomorrow, where this host's day has not ended."""
    user, given = people["user"].user_id, [rate(course.cards[name]) for name in cards]
    await domain.record_ratings(user, given, zone=ZoneInfo("UTC"))
    domain.sql(
        "UPDATE user_stats SET last_active_at = last_active_at + interval '1 day' WHERE user_id = %s", user
    )
    await domain.record_ratings(user, given, zone=ZoneInfo("UTC"))
    assert [(2,)] == domain.sql("SELECT count(DISTINCT day) FROM review_log WHERE user_id = %s", user)


async def test_a_rating_of_now_is_the_newest_whatever_the_clocks_say(
    domain: Domain, people: dict[str, Caller], course: Course
) -> None:
    """A host whose clock is behind the one before still records the later rating."""
    user, card = people["user"].user_id, course.cards["r1"]
    await domain.record_ratings(user, [rate(card, 5)], zone=None)
    domain.sql(
        "WITH p AS (UPDATE user_card_progress SET last_seen_at = now() + interval '1 minute')"
        " UPDATE user_stats SET last_active_at = now() + interval '1 minute' WHERE user_id = %s",
        user,
    )
    (later,) = await domain.record_ratings(user, [rate(card, 1)], zone=None)
    assert (1, 2) == (later["confidenceLevel"], later["timesSeen"])


async def test_an_old_rating_makes_nobody_less_active(
    domain: Domain, people: dict[str, Caller], course: Course
) -> None:
    """What a device was late to send does not move the moment of the last activity back."""
    user = people["user"].user_id
    last_active = "SELECT last_active_at FROM user_stats WHERE user_id = %s"
    await domain.record_ratings(user, [rate(course.cards["r1"], hours_ago=1)], zone=None)
    assert [(NOW - timedelta(hours=1),)] == domain.sql(last_active, user)
    await domain.record_ratings(user, [rate(course.cards["r2"], hours_ago=9)], zone=None)
    assert [(NOW - timedelta(hours=1),)] == domain.sql(last_active, user)


async def test_a_batch_is_all_or_nothing(domain: Domain, people: dict[str, Caller], course: Course) -> None:
    """One card that can not be rated, or one session that is not the user's, undoes the whole batch."""
    user = people["user"].user_id
    foreign = await domain.start_session(people["other"].user_id, [course.decks["Analysis"]])
    ended = await domain.start_session(user, [course.decks["Analysis"]])
    await domain.end_session(user, ended["id"])
    own = await domain.start_session(user, [course.decks["Analysis"]])
    good = rate(course.cards["r1"], session=own["id"])
    for bad, expected in (
        (rate(uuid4()), NotFound),
        (rate(course.cards["d1"]), NotFound),
        (rate(course.cards["draft a2"]), NotFound),
        (rate(course.cards["h1"]), NotFound),
        (rate(course.cards["r2"], session=foreign["id"]), NotFound),
        (rate(course.cards["r2"], session=uuid4()), NotFound),
        (rate(course.cards["r2"], session=ended["id"]), Conflict),
    ):
        for batch in ([good, bad], [bad, good]):
            with pytest.raises(expected):
                await domain.record_ratings(user, batch, zone=None)
    assert [(0,)] == domain.sql("SELECT count(*) FROM user_card_progress")
    assert [(0,)] == domain.sql("SELECT count(*) FROM session_cards")
    assert [(0, 0, None)] == domain.sql(
        "SELECT total_cards_studied, study_streak_days, last_active_date FROM user_stats WHERE user_id = %s",
        user,
    )


async def test_who_no_longer_exists_rates_nothing(domain: Domain, course: Course) -> None:
    """The bearer of a token whose account is gone is told so, not that something conflicts."""
    with pytest.raises(AccountGone):
        await domain.record_ratings(uuid4(), [rate(course.cards["r1"])], zone=None)
    with pytest.raises(AccountGone):
        await domain.start_session(uuid4(), [course.decks["Analysis"]])
    with pytest.raises(AccountGone):
        await domain.add_bookmark(uuid4(), course.cards["r1"])


async def test_two_devices_lose_no_rating(domain: Domain, people: dict[str, Caller], course: Course) -> None:
    """Batches of the same cards in other orders, at the same time: no deadlock, and every rating is counted."""
    user = people["user"].user_id
    cards = [course.cards[name] for name in ("r1", "r2", "r3", "l1", "l2", "a1")]
    generator = random.Random(7)  # noqa: S311 - shuffles cards, guards nothing

    async def send() -> None:
        await domain.record_ratings(
            user, [rate(card, generator.randint(1, 5)) for card in generator.sample(cards, 6)], zone=None
        )

    await asyncio.gather(*(send() for _ in range(20)))
    seen = domain.sql("SELECT flashcard_id, times_seen FROM user_card_progress WHERE user_id = %s", user)
    assert dict.fromkeys(cards, 20) == dict(seen)


async def test_deletions_beside_ratings(domain: Domain, people: dict[str, Caller], course: Course) -> None:
    """Ratings either happen before a deletion or find nothing: nobody deadlocks, no count drifts."""
    users = [people[name].user_id for name in ("user", "other", "admin")]
    cards = [course.cards[name] for name in ("r1", "r2", "r3", "l1", "l2")]
    for user in users:
        await domain.record_ratings(user, [rate(card) for card in cards], zone=None)

    async def study(user: UUID) -> None:
        left = cards
        while left:
            try:
                await domain.record_ratings(user, [rate(card) for card in reversed(left)], zone=None)
            except NotFound:
                left = left[:-1]

    async def delete() -> None:
        await domain.writer.run(lambda unit: delete_flashcard(unit, course.cards["l2"]))
        await domain.writer.run(lambda unit: delete_deck(unit, course.decks["Law"]))
        await domain.writer.run(lambda unit: delete_class(unit, course.classes["Risk"]))

    with structlog.testing.capture_logs() as events:
        await asyncio.gather(*(study(user) for user in users), delete())
    assert [] == [event for event in events if event["event"] == "database.transaction_retried"]
    assert_counters_are_exact(domain)


async def test_the_profiles_time_zone_is_used_unless_the_request_names_one(
    domain: Domain, people: dict[str, Caller], course: Course
) -> None:
    """X-Time-Zone, else the profile's zone, decides which day it is."""
    user = people["user"].user_id
    domain.sql("UPDATE users SET time_zone = 'Pacific/Kiritimati' WHERE id = %s", user)
    for zone in (None, ZoneInfo("Etc/GMT+12")):
        domain.sql("DELETE FROM user_active_days WHERE user_id = %s", user)
        before = datetime.now(UTC)
        await domain.record_ratings(user, [rate(course.cards["r1"])], zone=zone)
        days = {
            moment.astimezone(zone or ZoneInfo("Pacific/Kiritimati")).date()
            for moment in (before, datetime.now(UTC))
        }
        ((day,),) = domain.sql("SELECT last_active_date FROM user_stats WHERE user_id = %s", user)
        assert day in days


def assert_counters_are_exact(domain: Domain) -> None:
    """The kept figures are what a recount gives."""
    recount = domain.sql(
        "SELECT s.user_id, s.new_cards, s.learning_cards, s.mastered_cards, count(p.*) FILTER (WHERE"
        " p.mastery_status = 'new'), count(p.*) FILTER (WHERE p.mastery_status = 'learning'),"
        " count(p.*) FILTER (WHERE p.mastery_status = 'mastered')"
        " FROM user_stats s LEFT JOIN user_card_progress p USING (user_id) GROUP BY s.user_id"
    )
    assert [] == [row for row in recount if row[1:4] != row[4:]]


@pytest.mark.parametrize("seed", range(3))
async def test_counters_equal_a_recount_whatever_happens(
    domain: Domain, people: dict[str, Caller], course: Course, seed: int
) -> None:
    """After random ratings, batches and deletions of cards, decks, classes and users the counters are exact."""
    generator = random.Random(seed)  # noqa: S311 - makes up a test, guards nothing
    cards = [course.cards[name] for name in ("r1", "r2", "r3", "l1", "l2", "a1")]
    users = [caller.user_id for caller in people.values()]

    async def some_ratings(user: UUID) -> None:
        chosen = [
            rate(generator.choice(cards), generator.randint(1, 5)) for _ in range(generator.randint(1, 8))
        ]
        try:
            await domain.record_ratings(user, chosen, zone=None)
        except (NotFound, AccountGone):
            return

    async def run(statement: str, value: UUID) -> None:
        await asyncio.to_thread(domain.sql, _LOCK_FIGURES + statement, value)

    write = domain.writer.run
    changes: list[Callable[[], Awaitable[object]]] = [
        lambda: write(lambda unit: delete_flashcard(unit, course.cards["r2"])),
        lambda: write(lambda unit: delete_deck(unit, course.decks["Law"])),
        lambda: write(lambda unit: update_deck(unit, course.decks["Data"], {"is_published": False})),
        lambda: write(
            lambda unit: update_flashcard(unit, course.cards["r3"], {"deck_id": course.decks["Data"]})
        ),
        lambda: run("DELETE FROM users WHERE id = %s", users[1]),
        lambda: run("DELETE FROM user_card_progress WHERE user_id = %s", users[0]),
        lambda: run("UPDATE user_card_progress SET mastery_status = 'learning' WHERE user_id = %s", users[2]),
    ]
    generator.shuffle(changes)
    changes.append(lambda: write(lambda unit: delete_class(unit, course.classes["Risk"])))
    for change in changes:
        await asyncio.gather(*(some_ratings(generator.choice(users)) for _ in range(6)), change())
        assert_counters_are_exact(domain)


async def test_what_was_assumed_is_looked_up_again_where_it_changed(
    domain: Domain, people: dict[str, Caller], course: Course
) -> None:
    """The time zone of the profile and the class of a card may change between two ratings of one worker."""
    user, card = people["user"].user_id, course.cards["r1"]
    await domain.record_ratings(user, [rate(card)], zone=None)
    domain.sql("UPDATE users SET time_zone = 'Pacific/Kiritimati' WHERE id = %s", user)
    domain.sql("UPDATE flashcards SET deck_id = %s WHERE id = %s", course.decks["Data"], card)
    domain.sql("DELETE FROM user_active_days WHERE user_id = %s", user)
    before = datetime.now(UTC)
    (progress,) = await domain.record_ratings(user, [rate(card, 5)], zone=None)
    days = {
        moment.astimezone(ZoneInfo("Pacific/Kiritimati")).date() for moment in (before, datetime.now(UTC))
    }
    assert 2 == progress["timesSeen"]
    assert {day for (day,) in domain.sql("SELECT day FROM user_active_days WHERE user_id = %s", user)} <= days
    assert [(course.decks["Data"], 0, 0, 1)] == domain.sql(
        "SELECT deck_id, new_cards, learning_cards, mastered_cards FROM user_deck_stats WHERE user_id = %s",
        user,
    )


async def test_devices_at_once_make_one_memory(
    domain: Domain, people: dict[str, Caller], course: Course
) -> None:
    """Each computes a memory from what it has read; what the log then is, the memory is made of."""
    domain.sql("UPDATE classes SET scheduler = 'fsrs'")
    user, card = people["user"].user_id, course.cards["r1"]
    await asyncio.gather(
        *(domain.record_ratings(user, [rate(card, 1 + number % 5)], zone=None) for number in range(12))
    )
    log = [
        Review(level, at)
        for level, at in domain.sql("SELECT confidence_level, rated_at FROM review_log ORDER BY rated_at, id")
    ]
    memory = remember_all(None, log)
    assert [(12, memory.stability, memory.difficulty, memory.due_at, memory.due_at)] == domain.sql(
        "SELECT m.reviews, m.stability, m.difficulty, m.due_at, p.next_review_at"
        " FROM memory_states AS m JOIN user_card_progress AS p USING (user_id, flashcard_id)"
    )


@pytest.mark.parametrize("key", [None, "once"])
async def test_an_answer_that_was_lost_is_asked_for_again_under_a_key(
    database_url: str, redis_url: str, people: dict[str, Caller], course: Course, key: str | None
) -> None:
    """The rating has happened. Under its key it happens once, so it is sent again; without one nobody knows."""
    wire = PostgresWire(urlsplit(database_url).port or 0)
    user, card = people["user"].user_id, course.cards["r1"]
    keyed = None if key is None else KeyedRequest(user, key, bytes(32))
    async with wire.open(), open_domain(through(wire, database_url), redis_url) as domain:
        await domain.record_ratings(user, [rate(card)], zone=None)
        wire.cut_after = b"rate_card"
        record = domain.ratings.record(user, [rate(card)], zone=None, keyed=keyed)
        if key is None:
            with pytest.raises(DatabaseUnavailable) as caught:
                await record
            assert ("closed", True) == (caught.value.reason, caught.value.outcome_unknown)
        else:
            assert (await record).is_replay
    assert [(2,)] == ask(database_url, "SELECT times_seen FROM user_card_progress")


async def test_a_connection_that_ended_while_it_was_idle_loses_no_rating(
    database_url: str, redis_url: str, people: dict[str, Caller], course: Course
) -> None:
    """PostgreSQL was restarted, or a pooler has closed what it did not need: that is seen before anything is sent."""
    user, card = people["user"].user_id, course.cards["r1"]
    async with open_domain(database_url, redis_url) as domain:
        await domain.record_ratings(user, [rate(card)], zone=None)
        ask(
            database_url,
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
            " WHERE application_name = 'mastery' AND datname = current_database()",
        )
        (progress,) = await domain.record_ratings(user, [rate(card)], zone=None)
    assert 2 == progress["timesSeen"]


@pytest.mark.parametrize("scheduler", ["fixed", "fsrs"])
async def test_where_assumptions_fail_again_and_again_a_rating_looks_under_the_locks(
    domain: Domain, people: dict[str, Caller], course: Course, monkeypatch: pytest.MonkeyPatch, scheduler: str
) -> None:
    """In a transaction then, in the order of locks that holds everywhere: nothing of the user's changes meanwhile."""
    monkeypatch.setattr(ratings, "ATTEMPTS", 0)
    domain.sql("UPDATE classes SET scheduler = %s", scheduler)
    user, cards = people["user"].user_id, [course.cards["r1"], course.cards["r2"]]
    await asyncio.gather(
        *(domain.record_ratings(user, [rate(card) for card in cards], zone=None) for _ in range(6))
    )
    assert [(6,), (6,)] == domain.sql("SELECT times_seen FROM user_card_progress")
    assert_counters_are_exact(domain)
