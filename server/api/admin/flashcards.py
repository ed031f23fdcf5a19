"""/api/admin/flashcards: the cards of the course, drafts included."""

from __future__ import annotations

from aiohttp import web

from server.api.admin.resources import Routes
from server.api.admin.schemas import FlashcardSchema, FlashcardsQuerySchema
from server.domain.editing.resources import FLASHCARDS

_ROUTES = Routes(
    FLASHCARDS, query=FlashcardsQuerySchema(), new=FlashcardSchema(), changes=FlashcardSchema(partial=True)
)


async def list_flashcards(request: web.Request) -> web.Response:
    """A page of cards; those of a deck by order."""
    return await _ROUTES.list(request)


async def create_flashcard(request: web.Request) -> web.Response:
    """Make a card."""
    return await _ROUTES.create(request)


async def get_flashcard(request: web.Request) -> web.Response:
    """A card."""
    return await _ROUTES.get(request)


async def update_flashcard(request: web.Request) -> web.Response:
    """Change some fields of a card."""
    return await _ROUTES.update(request)


async def delete_flashcard(request: web.Request) -> web.Response:
    """Delete a card."""
    return await _ROUTES.delete(request)
