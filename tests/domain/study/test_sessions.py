"""Sessions: counted by the server, ended once."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from server.domain.identity.tokens import Caller
from server.domain.study.ratings import Rating
from server.errors import InvalidInput, NotFound
from tests.domain.conftest import Course, Domain


async def test_a_session_ended_twice_at_once_counts_once(
    domain: Domain, people: dict[str, Caller], course: Course
) -> None:
    """Ten ends of one session all answer the same, and its time is added a single time."""
    user = people["user"].user_id
    session = (await domain.start_session(user, [course.decks["Analysis"]]))["id"]
    ratings = [
        Rating(flashcard_id=course.cards[card], confidence_level=confidence, session_id=session)
        for card, confidence in (("r1", 5), ("r2", 2), ("r1", 4), ("l1", 5))
    ]
    await domain.record_ratings(user, ratings, zone=None)
    domain.sql("UPDATE study_sessions SET started_at = now() - interval '100 seconds'")

    answers = await asyncio.gather(*(domain.end_session(user, session) for _ in range(10)))

    assert 1 == len({repr(answer) for answer in answers})
    assert {"id": session, "cards_studied": 3, "average_confidence": 4} == {
        key: answers[0][key] for key in ("id", "cards_studied", "average_confidence")
    }
    assert 100 <= answers[0]["duration_seconds"] <= 130
    assert [(answers[0]["duration_seconds"],)] == domain.sql(
        "SELECT total_study_time_seconds FROM user_stats WHERE user_id = %s", user
    )
    assert answers[0] == await domain.end_session(user, session)


async def test_a_session_without_ratings(domain: Domain, people: dict[str, Caller], course: Course) -> None:
    """Nothing studied is no card and no average."""
    user = people["user"].user_id
    session = (await domain.start_session(user, [course.decks["Analysis"]]))["id"]
    ended = await domain.end_session(user, session)
    assert (0, None) == (ended["cards_studied"], ended["average_confidence"])


async def test_a_session_is_its_owners(domain: Domain, people: dict[str, Caller], course: Course) -> None:
    """Somebody else's session is as unknown as one that never was, and goes on running."""
    started = await domain.start_session(people["user"].user_id, [course.decks["Analysis"]])
    for session in (started["id"], uuid4()):
        with pytest.raises(NotFound):
            await domain.end_session(people["other"].user_id, session)
    assert [(None,)] == domain.sql("SELECT ended_at FROM study_sessions")


async def test_every_deck_must_be_there(domain: Domain, people: dict[str, Caller], course: Course) -> None:
    """Unknown decks, drafts and decks of drafts are named by their place; nothing is started."""
    decks = [course.decks["Analysis"], uuid4(), course.decks["draft deck"], course.decks["Hidden"]]
    with pytest.raises(InvalidInput) as caught:
        await domain.start_session(people["user"].user_id, decks)
    assert ["deckIds.1", "deckIds.2", "deckIds.3"] == sorted(caught.value.errors)
    assert [(0,)] == domain.sql("SELECT count(*) FROM study_sessions")


async def test_a_deck_named_twice_is_one(domain: Domain, people: dict[str, Caller], course: Course) -> None:
    """A repeated deck does no harm."""
    deck = course.decks["Analysis"]
    await domain.start_session(people["user"].user_id, [deck, deck])
    assert [(deck,)] == domain.sql("SELECT deck_id FROM study_session_decks")
