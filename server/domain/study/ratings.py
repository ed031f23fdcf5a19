"""Ratings: a rated card becomes progress, a session's figures and a day of a streak, all or nothing.

One statement does all of it: `rate_card` for a single rating, by far the most frequent, in a class with the fixed
scheduler; `record_ratings` for all others (sql/schema.sql). It takes its locks in this order: the cards, the user's row
of user_stats, and the user's own rows. So what two devices of a user send at the same time happens one after the other.

What a rating means is decided here: the mastery, the next review, the day where the user is. For that the class of a
card, its scheduler and the user's time zone must be known before the statement. They change rarely, so they are
remembered from one rating to the next. The statement checks them under its locks, and does nothing if one is otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from datetime import time as time_of_day
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import orjson

from server.bounded_dict import BoundedDict
from server.domain.study.activity import ActiveDay, active_day
from server.domain.study.overlays import OverlaysSeen, OverlaysToSee
from server.domain.study.repetition import Review, SchedulerName, mastery_of, memorize, review_after
from server.domain.values import stored_zone
from server.domain.writing import (
    Answer,
    Consequences,
    IdempotencyKeyReused,
    KeyedRequest,
    Writer,
    vanished_as_not_found,
)
from server.errors import AccountGone, Conflict, MasteryError, NotFound
from server.stores.postgres.database import Database, Transaction

# How many cards and users a worker remembers. One more lookup in the database is needed for each of the others.
_MOST_REMEMBERED = 20_000
# How often a rating goes by assumptions. Then it looks under the locks, after which nothing of the user's changes.
ATTEMPTS = 3
_NOWHERE = UUID(int=0)


async def get_card_progress(database: Database, user_id: UUID, flashcard_id: UUID) -> dict[str, Any]:
    """A user's progress on a card, in the form of the API.

    Raises:
        NotFound: the user has not rated it.
    """
    row = await database.fetch_one("get_card_progress", user_id=user_id, flashcard_id=flashcard_id)
    if row is None:
        raise NotFound("There is no progress on this card.")
    progress: dict[str, Any] = orjson.loads(row["progress"])
    return progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Rating:
    """One judgement of one card; `rated_at` is None for one of this moment."""

    flashcard_id: UUID
    confidence_level: int
    session_id: UUID | None = None
    response_time_ms: int | None = None
    rated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a card is, and how its next review is chosen there."""

    class_id: UUID
    scheduler: SchedulerName


@dataclass(frozen=True, slots=True)
class _Assumed:
    """What a statement is made of, and what it checks.

    Attributes:
        places: of the cards; those without one are expected to be refused.
        zone: of the profile, by its name; None if it is not needed, or there is no such user.
        last_active_at: as far as is known.
        memories: rows of find_rating_facts for the cards whose class is set to FSRS.
    """

    places: Mapping[UUID, _Place]
    zone: str | None
    last_active_at: datetime | None
    memories: Sequence[Mapping[str, Any]] = ()

    @property
    def class_ids(self) -> set[UUID]:
        return {place.class_id for place in self.places.values()}


@dataclass(frozen=True, slots=True)
class _Request:
    """What is to be recorded."""

    user_id: UUID
    ratings: Sequence[Rating]
    zone: ZoneInfo | None
    keyed: KeyedRequest | None
    is_batch: bool
    card_ids: list[UUID]


class Ratings:
    """Records ratings.

    Args:
        database: where they go.
        writer: runs them in the user's turn, and invalidates what they make stale.
    """

    def __init__(self, database: Database, writer: Writer) -> None:
        self._database = database
        self._writer = writer
        self._places: BoundedDict[UUID, _Place] = BoundedDict(_MOST_REMEMBERED)
        self._zones: BoundedDict[UUID, str] = BoundedDict(_MOST_REMEMBERED)

    def look_up_overlays(self, user_id: UUID, flashcard_id: UUID) -> OverlaysToSee | None:
        """Ask the cache for what a rating of the card will replace; None where the card's class is not known yet."""
        place = self._places.get(flashcard_id)
        return None if place is None else OverlaysToSee(self._writer.cache, user_id, (place.class_id,))

    async def record(
        self,
        user_id: UUID,
        ratings: Sequence[Rating],
        *,
        zone: ZoneInfo | None,
        keyed: KeyedRequest | None = None,
        is_batch: bool = False,
        overlays: OverlaysToSee | None = None,
    ) -> Answer:
        """Record ratings, and answer with the progress of their cards, in the order given.

        Args:
            user_id: whose ratings they are.
            ratings: one or more; a card may occur several times.
            zone: where the user's day begins; None for the profile's.
            keyed: under which key the request may be repeated.
            is_batch: whether the answer is `{"progress": [...]}`, or that of the one rating.
            overlays: from look_up_overlays.

        Raises:
            NotFound: a card can't be rated, or a session is not the user's.
            AccountGone: the user no longer exists.
            Conflict: a session has ended.
            IdempotencyKeyReused: the key was used for another request.
            TooManyAtOnce: the user's other writes take too long.
            DatabaseUnavailable: it may have happened, if `outcome_unknown` says so.
        """
        card_ids = [rating.flashcard_id for rating in ratings]
        if len(card_ids) > 1:
            card_ids = sorted(set(card_ids))
        request = _Request(user_id, ratings, zone, keyed, is_batch, card_ids)
        return await self._writer.run_statement(
            lambda unit: self._record(unit, request, overlays),
            user_id=user_id,
            is_repeatable=keyed is not None,
        )

    async def _record(self, unit: Consequences, request: _Request, overlays: OverlaysToSee | None) -> Answer:
        with vanished_as_not_found():
            assumed = self._recall(request) or await self._look(self._database, request)
            for _ in range(ATTEMPTS):
                answer = await self._attempt(self._database, unit, request, assumed, overlays)
                if answer is not None:
                    return answer
                assumed, overlays = await self._look(self._database, request), None

            async def under_the_locks(transaction: Transaction) -> Answer:
                await transaction.fetch_all("find_rateable_cards", flashcard_ids=request.card_ids)
                await transaction.fetch_all("lock_user_stats", user_id=request.user_id)
                assumed = await self._look(transaction, request)
                answer = await self._attempt(transaction, unit, request, assumed, None)
                if answer is None:
                    raise Conflict("The card's class is being changed; try again.")
                return answer

            return await self._database.run_transaction(under_the_locks)

    def _recall(self, request: _Request) -> _Assumed | None:
        """What is remembered; None unless it is enough."""
        places = {}
        for card_id in request.card_ids:
            place = self._places.get(card_id)
            if place is None or place.scheduler == "fsrs":
                return None
            places[card_id] = place
        zone = None
        if request.zone is None:
            zone = self._zones.get(request.user_id)
            if zone is None:
                return None
        return _Assumed(places, zone, None)

    async def _look(self, queries: Database | Transaction, request: _Request) -> _Assumed:
        """What the database says, which is remembered."""
        rows = await queries.fetch_all(
            "find_rating_facts", user_id=request.user_id, flashcard_ids=request.card_ids
        )
        zone, last_active_at = rows[0]["time_zone"], rows[0]["last_active_at"]
        if zone is not None:
            self._zones[request.user_id] = zone
        cards = [row for row in rows if row["flashcard_id"] is not None]
        places = {row["flashcard_id"]: _Place(row["class_id"], row["scheduler"]) for row in cards}
        for card_id, place in places.items():
            self._places[card_id] = place
        return _Assumed(
            places,
            zone if request.zone is None else None,
            last_active_at,
            [row for row in cards if row["scheduler"] == "fsrs"],
        )

    async def _attempt(
        self,
        queries: Database | Transaction,
        unit: Consequences,
        request: _Request,
        assumed: _Assumed,
        overlays: OverlaysToSee | None,
    ) -> Answer | None:
        """Record the ratings if everything is as assumed; None if it is not, and nothing has happened."""
        if overlays is None:
            overlays = OverlaysToSee(unit.cache, request.user_id, assumed.class_ids)
        unit.stale.update(overlays.keys)
        is_single = len(request.ratings) == 1 and not (request.is_batch or assumed.memories)
        run = _rate_card if is_single else _record_ratings
        outcome, seen = await run(queries, request, assumed, overlays)
        if outcome.name == "unexpected":
            unit.stale.clear()
            return None
        if outcome.name == "replayed":
            unit.stale.update(outcome.stale)  # the first one may have died before it could say so
            return Answer(status=200, body=outcome.body, is_replay=True)
        if outcome.name != "recorded":
            unit.stale.clear()
            raise _refusal(outcome)
        _replace(unit, seen, assumed.places, outcome)
        return Answer(status=200, body=outcome.body)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """What came of the statement.

    Attributes:
        name: recorded, replayed, unexpected, key_reused, no_card, no_session, session_ended or no_user.
        body: of the answer.
        stale: the cache keys that a replayed request made stale.
        counts: rows as OverlaysSeen.replace takes them.
        missing: the cards that can't be rated.
    """

    name: str
    body: bytes = b""
    stale: Sequence[str] = ()
    counts: Sequence[Mapping[str, Any]] = ()
    missing: Sequence[UUID] = ()


async def _rate_card(
    queries: Database | Transaction, request: _Request, assumed: _Assumed, overlays: OverlaysToSee
) -> tuple[_Outcome, Sequence[OverlaysSeen]]:
    """Run the statement for a single rating: what came of it, and what the cache held before."""
    (rating,) = request.ratings
    level, keyed = rating.confidence_level, request.keyed
    here = request.zone or stored_zone(assumed.zone or "UTC")
    now = _now(assumed)
    day = active_day(rating.rated_at or now, here)
    place = assumed.places.get(rating.flashcard_id)
    class_id = str(_NOWHERE if place is None else place.class_id)
    seen = await overlays.arrive()  # before the counts are read
    # Moments and ids as text: the function's parameters have their types.
    row = await queries.fetch_one(
        "rate_card",
        user_id=str(request.user_id),
        flashcard_id=str(rating.flashcard_id),
        class_id=class_id,
        confidence_level=level,
        mastery_status=mastery_of(level),
        review_seconds=int(review_after(level).total_seconds()),
        response_time_ms=rating.response_time_ms,
        session_id=None if rating.session_id is None else str(rating.session_id),
        rated_at=None if rating.rated_at is None else str(rating.rated_at),
        day=str(day.day),
        lapses_at=str(day.lapses_at),
        now=str(now),
        now_until=str(_end_of(day, here)) if rating.rated_at is None else None,
        zone=assumed.zone,
        key=None if keyed is None else keyed.key,
        fingerprint=None if keyed is None else f"\\x{keyed.fingerprint.hex()}",
        stale=[] if keyed is None else sorted(overlays.keys),
        counts_wanted=any(one.has_counts for one in seen),
    )
    if row is None:
        raise RuntimeError("rate_card gave no row")
    name, detail, body = row["outcome"].split("\n", 2)
    if name == "no_card":
        return _Outcome(name=name, missing=[rating.flashcard_id]), seen
    if name == "replayed":
        return _Outcome(name=name, stale=detail.split(), body=body.encode()), seen
    if not detail:
        return _Outcome(name=name, body=body.encode()), seen
    deck_id, *numbers = detail.split()
    counts = [
        {"class_id": class_id, "deck_id": deck_id, "mastery_status": status, "cards": int(number)}
        for status, number in zip(("new", "learning", "mastered"), numbers, strict=True)
        if number != "0"
    ]
    return _Outcome(name=name, body=body.encode(), counts=counts), seen


async def _record_ratings(
    queries: Database | Transaction, request: _Request, assumed: _Assumed, overlays: OverlaysToSee
) -> tuple[_Outcome, Sequence[OverlaysSeen]]:
    """Run the statement for any number of ratings; as _rate_card."""
    keyed = request.keyed
    parameters = await _parameters(queries, request, assumed)
    seen = await overlays.arrive()  # before the counts are read
    row = await queries.fetch_one(
        "record_ratings",
        user_id=request.user_id,
        key=None if keyed is None else keyed.key,
        fingerprint=None if keyed is None else keyed.fingerprint,
        stale=sorted(overlays.keys),
        is_batch=request.is_batch,
        counts_wanted=any(one.has_counts for one in seen),
        **parameters,
    )
    if row is None:
        raise RuntimeError("record_ratings gave no row")
    outcome = _Outcome(
        name=row["outcome"],
        body=row["body"] or b"",
        stale=row["stale"] or (),
        counts=row["counts"] or (),
        missing=row["missing"] or (),
    )
    return outcome, seen


def _now(assumed: _Assumed) -> datetime:
    """The moment of ratings that name none. One after another, also where two hosts' clocks differ: the newest."""
    now = datetime.now(UTC)
    return now if assumed.last_active_at is None else max(now, assumed.last_active_at)


def _end_of(day: ActiveDay, here: ZoneInfo) -> datetime:
    return datetime.combine(day.day + timedelta(days=1), time_of_day.min, tzinfo=here)


async def _parameters(
    queries: Database | Transaction, request: _Request, assumed: _Assumed
) -> dict[str, Any]:
    """What record_ratings is to record, and what it is to check."""
    ratings = request.ratings
    now = _now(assumed)
    here = request.zone or stored_zone(assumed.zone or "UTC")
    today = active_day(now, here)
    days = [today if rating.rated_at is None else active_day(rating.rated_at, here) for rating in ratings]
    named = [rating.rated_at is not None for rating in ratings]
    # Any moment of today is as good as now, unless something was made of the moment itself.
    now_until: datetime | None = now
    if all(named):
        now_until = None
    elif not any(named) and not assumed.memories:
        now_until = _end_of(today, here)
    memories = None
    if assumed.memories:
        reviews: dict[UUID, list[Review]] = {}
        for rating, day in sorted(
            zip(ratings, days, strict=True), key=lambda entry: entry[1].first_at
        ):  # stable: the order given is the order of equals
            review = Review(rating.confidence_level, day.first_at)
            reviews.setdefault(rating.flashcard_id, []).append(review)
        memories = await memorize(queries, request.user_id, assumed.memories, reviews)
    places = assumed.places
    levels = [rating.confidence_level for rating in ratings]
    return {
        "zone": assumed.zone,
        "now": now,
        "now_until": now_until,
        "flashcard_ids": [rating.flashcard_id for rating in ratings],
        "confidence_levels": levels,
        "mastery_statuses": [mastery_of(level) for level in levels],
        "review_seconds": [int(review_after(level).total_seconds()) for level in levels],
        "response_times_ms": [rating.response_time_ms for rating in ratings],
        "session_ids": [rating.session_id for rating in ratings],
        "rated_ats": [rating.rated_at for rating in ratings],
        "days": [day.day for day in days],
        "lapses_ats": [day.lapses_at for day in days],
        "card_ids": request.card_ids,
        "class_ids": [
            places[card_id].class_id if card_id in places else _NOWHERE for card_id in request.card_ids
        ],
        "own_sessions": list({rating.session_id for rating in ratings if rating.session_id is not None}),
        "memories": None if memories is None else orjson.dumps(memories).decode(),
    }


def _refusal(outcome: _Outcome) -> MasteryError:
    """The error that stands for what the statement has refused."""
    if outcome.name == "no_card":
        return NotFound(f"There is no such card: {', '.join(sorted(map(str, outcome.missing))[:10])}.")
    if outcome.name == "no_session":
        return NotFound("There is no such session.")
    if outcome.name == "session_ended":
        return Conflict("The session has ended; rate without it or start another one.")
    return IdempotencyKeyReused() if outcome.name == "key_reused" else AccountGone()


def _replace(
    unit: Consequences, seen: Sequence[OverlaysSeen], places: Mapping[UUID, _Place], outcome: _Outcome
) -> None:
    """Say in the unit which overlays of the cache come after those that were seen there."""
    if not any(one.counts or one.cards for one in seen):
        return
    answered = orjson.loads(outcome.body)
    progress = {entry["flashcardId"]: entry for entry in answered.get("progress", [answered])}
    for one in seen:
        one.replace(
            unit,
            counts=[entry for entry in outcome.counts if entry["class_id"] == str(one.class_id)],
            rated=[
                progress[str(card_id)] for card_id, place in places.items() if place.class_id == one.class_id
            ],
        )
