"""/api/classes, /api/decks, /api/progress, /api/sessions, /api/bookmarks, /api/stats: what a student reads and does."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from aiohttp import web

from server.api.answers.study import (
    Bookmark,
    ClassDue,
    ListedBookmark,
    ListedSession,
    SessionFigures,
    StartedSession,
    Stats,
)
from server.api.pagination import CURSORS
from server.api.requests import path_id, read_json, read_query, refuse_query
from server.api.responses import page_response, tagged_response
from server.api.schemas import (
    ChangesQuerySchema,
    DeckQuerySchema,
    PageSchema,
    RatingSchema,
    RatingsSchema,
    SessionSchema,
    SessionsQuerySchema,
    StudyQuerySchema,
)
from server.api.services import caller_of, services_of, state_of
from server.api.whole_response import add_lines, header_line
from server.api.writes import answer, keyed_request, no_content, respond, write
from server.clock import exact_timestamp
from server.domain.catalog.catalog import position
from server.domain.identity.accounts import get_profile
from server.domain.study import activity, ratings, sessions
from server.domain.study.overlays import OverlaysToSee
from server.domain.study.ratings import Rating
from server.domain.study.reading import ClassPageLookup
from server.domain.study.sessions import (
    LAST_ID,
    NEWEST,
    Position,
    latest_change,
    list_changes,
    list_due_counts,
)
from server.domain.study.study_order import StudyPass
from server.domain.values import find_zone, stored_zone
from server.domain.writing import Answer, Unit

TIME_ZONE = "X-Time-Zone"
# Which zone counted, where the request's is none.
TIME_ZONE_USED = "X-Time-Zone-Used"

_PAGE = PageSchema()
_STUDY = StudyQuerySchema()
_DECK = DeckQuerySchema()
_CHANGES = ChangesQuerySchema()
_RATING = RatingSchema()
_RATINGS = RatingsSchema()
_SESSION = SessionSchema()
_SESSIONS_QUERY = SessionsQuerySchema()


async def list_classes(request: web.Request) -> web.Response:
    """The published classes, by order, then name."""
    query = read_query(request, _PAGE)
    cursors = request.app[CURSORS]
    after = cursors.read("classes", query["cursor"])
    classes = await services_of(request).catalog.list_published_classes()
    if after is not None:
        classes = [entry for entry in classes if position(entry) > after]
    page, next_cursor = cursors.page("classes", classes[: query["limit"] + 1], query["limit"], position)
    return tagged_response(request, {"classes": page, "nextCursor": next_cursor})


def look_up_class(request: web.Request) -> ClassPageLookup:
    """Ask for what get_class will need, together with the limiter's decision."""
    class_id = path_id(request, "classId")
    return services_of(request).reading.look_up_class(caller_of(request).user_id, class_id)


async def get_class(request: web.Request) -> web.Response:
    """A class with its decks and how far the caller is in each."""
    refuse_query(request)
    lookup: ClassPageLookup = state_of(request).looked_up or look_up_class(request)
    return page_response(request, lookup.page_at_hand() or await lookup.page())


async def study_class(request: web.Request) -> web.Response:
    """The cards of a class to study now.

    The answer has up to 1000 cards, and `nextCursor` leads to the next ones where there are more. Ratings between two
    pages bring no card twice: in `progressive`, what was rated meanwhile is on no later page. A client without cursors
    asks again after its ratings, or for some decks of a very large class.
    """
    class_id = path_id(request, "classId")
    query = read_query(request, _STUDY)
    user_id, cursors = caller_of(request).user_id, request.app[CURSORS]
    decks = "" if query["decks"] is None else ",".join(sorted({str(deck_id) for deck_id in query["decks"]}))
    listing = f"study:{user_id}:{class_id}:{query['mode']}:{decks}"
    reached = cursors.read(listing, query["cursor"])
    page, following = await services_of(request).reading.study(
        user_id,
        class_id,
        mode=query["mode"],
        deck_ids=query["decks"],
        limit=query["limit"],
        on=None if reached is None else StudyPass(*reached),
    )
    page["nextCursor"] = None if following is None else cursors.write(listing, following.position())
    return tagged_response(request, page)


async def list_flashcards(request: web.Request) -> web.Response:
    """A deck with its cards, all of them; with `limit` a page of them, up to 1000, and `nextCursor` to the next one.

    `total` is how many there are in all. What is added or moved between two pages brings none of the other cards twice.
    """
    deck_id = path_id(request, "deckId")
    query = read_query(request, _DECK)
    listing, cursors = f"deck:{deck_id}", request.app[CURSORS]
    after = cursors.read(listing, query["cursor"])
    deck = await services_of(request).catalog.get_deck(deck_id)
    if query["limit"] is None and after is None:
        return tagged_response(request, deck)
    cards = deck["flashcards"]
    start = 0 if after is None else bisect_right(cards, after, key=_place_of_card)
    limit = query["limit"] or len(cards)
    page, following = cursors.page(listing, cards[start : start + limit + 1], limit, _place_of_card)
    return tagged_response(request, deck | {"flashcards": page, "nextCursor": following})


def _place_of_card(card: dict[str, Any]) -> list[Any]:
    return [card["order"], card["id"]]


async def rate_card(request: web.Request) -> web.Response:
    """Record one rating; the answer is the card's progress."""
    flashcard_id = path_id(request, "flashcardId")
    rating = Rating(flashcard_id=flashcard_id, **await read_json(request, _RATING))
    return await _record(request, [rating], overlays=state_of(request).looked_up)


def look_up_overlays(request: web.Request) -> OverlaysToSee | None:
    """Ask for what rate_card will replace in the cache, together with the limiter's decision."""
    flashcard_id = path_id(request, "flashcardId")
    return services_of(request).ratings.look_up_overlays(caller_of(request).user_id, flashcard_id)


async def rate_cards(request: web.Request) -> web.Response:
    """Record a batch of ratings, all or none; the answer is the progress of each rating's card."""
    body = await read_json(request, _RATINGS)
    batch = [Rating(**entry) for entry in body["ratings"]]
    return await _record(request, batch, is_batch=True)


async def get_card_progress(request: web.Request) -> web.Response:
    """The caller's progress on a card."""
    flashcard_id = path_id(request, "flashcardId")
    refuse_query(request)
    database, user_id = services_of(request).database, caller_of(request).user_id
    return tagged_response(request, await ratings.get_card_progress(database, user_id, flashcard_id))


async def list_progress(request: web.Request) -> web.Response:
    """The caller's progress that has changed since a moment, the oldest change first; all of it without `since`.

    `until` of the last page is the `since` of the next time. Nothing is missed in between, however many devices rate:
    it is the moment of the last change that was visible, not that of the answer. A card that changes while the pages
    are read may come twice. Progress that went with its card is not listed.
    """
    query = read_query(request, _CHANGES)
    database, user_id, cursors = (
        services_of(request).database,
        caller_of(request).user_id,
        request.app[CURSORS],
    )
    since: datetime | None = query["since"]
    listing = f"progress:{user_id}:{since or ''}"
    reached = cursors.read(listing, query["cursor"])
    after = _position(reached) if reached else (since or "-infinity", LAST_ID)
    rows = await list_changes(database, user_id, after=after, page_size=query["limit"] + 1)
    page, next_cursor = cursors.page(
        listing, rows, query["limit"], lambda row: (row["changed_at"].isoformat(), str(row["flashcard_id"]))
    )
    until = since
    if next_cursor is None:
        # Not `since` itself: a client's clock may be ahead of a change that is not visible yet.
        until = page[-1]["changed_at"] if page else await latest_change(database, user_id)
    return tagged_response(
        request,
        {
            "progress": [orjson.loads(row["progress"]) for row in page],
            "until": None if until is None else exact_timestamp(until),
            "nextCursor": next_cursor,
        },
    )


async def get_due_counts(request: web.Request) -> web.Response:
    """How many cards are due for the caller, in all and by class; classes without any are left out."""
    refuse_query(request)
    rows = await list_due_counts(services_of(request).database, caller_of(request).user_id)
    due = sum(row["due_cards"] for row in rows)
    return tagged_response(request, {"dueCards": due, "classes": [ClassDue.of(row) for row in rows]})


async def get_class_progress(request: web.Request) -> web.Response:
    """The caller's progress in a class."""
    class_id = path_id(request, "classId")
    refuse_query(request)
    user_id = caller_of(request).user_id
    return tagged_response(request, await services_of(request).reading.get_class_progress(user_id, class_id))


async def get_stats(request: web.Request) -> web.Response:
    """The caller's figures over everything."""
    refuse_query(request)
    row = await activity.get_user_stats(services_of(request).database, caller_of(request).user_id)
    return tagged_response(request, Stats.of(row))


async def start_session(request: web.Request) -> web.Response:
    """Start a study session over decks."""
    body = await read_json(request, _SESSION)

    async def work(unit: Unit) -> Answer:
        started = await sessions.start_session(unit, caller_of(request).user_id, body["deck_ids"])
        return answer(StartedSession.of(started), status=201)

    return await write(request, work)


async def end_session(request: web.Request) -> web.Response:
    """End a session; the answer is what was counted."""
    session_id = path_id(request, "sessionId")

    async def work(unit: Unit) -> Answer:
        ended = await sessions.end_session(unit, caller_of(request).user_id, session_id)
        return answer({"session": SessionFigures.of(ended)})

    return await write(request, work)


async def list_sessions(request: web.Request) -> web.Response:
    """The caller's sessions, newest first; of one deck where `deckId` is given."""
    query = read_query(request, _SESSIONS_QUERY)
    user_id, deck_id = caller_of(request).user_id, query["deck_id"]
    cursors = request.app[CURSORS]
    listing = f"sessions:{user_id}:{deck_id or ''}"
    before = _position(cursors.read(listing, query["cursor"]))
    size, database = query["limit"] + 1, services_of(request).database
    if deck_id is None:
        rows = await sessions.list_sessions(database, user_id, before=before, page_size=size)
    else:
        rows = await sessions.list_deck_sessions(database, user_id, deck_id, before=before, page_size=size)
    page, next_cursor = cursors.page(
        listing, rows, query["limit"], lambda row: (row["started_at"].isoformat(), str(row["id"]))
    )
    return tagged_response(
        request, {"sessions": [ListedSession.of(row) for row in page], "nextCursor": next_cursor}
    )


async def add_bookmark(request: web.Request) -> web.Response:
    """Bookmark a card: 201 the first time, 200 afterwards."""
    flashcard_id = path_id(request, "flashcardId")

    async def work(unit: Unit) -> Answer:
        is_new, bookmark = await sessions.add_bookmark(unit, caller_of(request).user_id, flashcard_id)
        return answer(Bookmark.of(bookmark), status=201 if is_new else 200)

    return await write(request, work)


async def delete_bookmark(request: web.Request) -> web.Response:
    """Forget a bookmark."""
    flashcard_id = path_id(request, "flashcardId")

    async def work(unit: Unit) -> Answer:
        await sessions.delete_bookmark(unit, caller_of(request).user_id, flashcard_id)
        return no_content()

    return await write(request, work)


async def list_bookmarks(request: web.Request) -> web.Response:
    """The caller's bookmarks, newest first."""
    query = read_query(request, _PAGE)
    user_id, cursors = caller_of(request).user_id, request.app[CURSORS]
    listing = f"bookmarks:{user_id}"
    before = _position(cursors.read(listing, query["cursor"]))
    rows = await sessions.list_bookmarks(
        services_of(request).database, user_id, before=before, page_size=query["limit"] + 1
    )
    page, next_cursor = cursors.page(
        listing,
        rows,
        query["limit"],
        lambda row: (row["created_at"].isoformat(), str(row["flashcard_id"])),
    )
    return tagged_response(
        request, {"bookmarks": [ListedBookmark.of(row) for row in page], "nextCursor": next_cursor}
    )


async def _record(
    request: web.Request,
    given: Sequence[Rating],
    *,
    is_batch: bool = False,
    overlays: OverlaysToSee | None = None,
) -> web.Response:
    """Record ratings; a time zone that is none must not keep a student's work from being recorded."""
    user_id = caller_of(request).user_id
    name = request.headers.get(TIME_ZONE)
    zone = None if name is None else find_zone(name)
    replaces_header = name is not None and zone is None
    if replaces_header:
        zone = stored_zone((await get_profile(services_of(request).database, user_id))["timeZone"])
    recorded = await services_of(request).ratings.record(
        user_id,
        given,
        zone=zone,
        keyed=await keyed_request(request),
        is_batch=is_batch,
        overlays=overlays,
    )
    response = respond(recorded)
    if replaces_header and zone is not None:
        add_lines(response, header_line(TIME_ZONE_USED, zone.key))
    return response


def _position(cursor: list[Any] | None) -> Position:
    return NEWEST if cursor is None else (datetime.fromisoformat(cursor[0]), UUID(cursor[1]))
