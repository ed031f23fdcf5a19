"""/api/classes and /api/decks: the course as a student reads it."""

from __future__ import annotations

from aiohttp import web

from server.api.pagination import PageSchema
from server.api.requests import path_id, read_query, refuse_query
from server.api.responses import page_response, tagged_response
from server.api.schemas import StudyQuerySchema
from server.api.services import CURSORS, caller_of, services_of
from server.api.state import state_of
from server.domain.catalog.catalog import position
from server.domain.study.reading import ClassPageLookup
from server.domain.study.study_order import StudyPass

_PAGE = PageSchema()
_STUDY = StudyQuerySchema()


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
    """A deck with its cards."""
    deck_id = path_id(request, "deckId")
    refuse_query(request)
    return tagged_response(request, await services_of(request).catalog.get_deck(deck_id))
