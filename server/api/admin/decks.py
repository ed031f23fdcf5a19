"""/api/admin/decks: the decks of the course, drafts included."""

from __future__ import annotations

from aiohttp import web

from server.api.admin.resources import Routes
from server.api.admin.schemas import DeckSchema, DecksQuerySchema
from server.domain.editing.resources import DECKS

_ROUTES = Routes(DECKS, query=DecksQuerySchema(), new=DeckSchema(), changes=DeckSchema(partial=True))


async def list_decks(request: web.Request) -> web.Response:
    """A page of decks; those of a class by order, then name."""
    return await _ROUTES.list(request)


async def create_deck(request: web.Request) -> web.Response:
    """Make a deck."""
    return await _ROUTES.create(request)


async def get_deck(request: web.Request) -> web.Response:
    """A deck."""
    return await _ROUTES.get(request)


async def update_deck(request: web.Request) -> web.Response:
    """Change some fields of a deck."""
    return await _ROUTES.update(request)


async def delete_deck(request: web.Request) -> web.Response:
    """Delete a deck with its cards."""
    return await _ROUTES.delete(request)
