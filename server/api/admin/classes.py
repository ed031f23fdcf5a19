"""/api/admin/classes: the classes of the course, drafts included."""

from __future__ import annotations

from aiohttp import web

from server.api.admin.resources import Routes
from server.api.admin.schemas import ClassesQuerySchema, ClassSchema
from server.domain.editing.resources import CLASSES

_ROUTES = Routes(CLASSES, query=ClassesQuerySchema(), new=ClassSchema(), changes=ClassSchema(partial=True))


async def list_classes(request: web.Request) -> web.Response:
    """A page of classes, by order, then name."""
    return await _ROUTES.list(request)


async def create_class(request: web.Request) -> web.Response:
    """Make a class."""
    return await _ROUTES.create(request)


async def get_class(request: web.Request) -> web.Response:
    """A class."""
    return await _ROUTES.get(request)


async def update_class(request: web.Request) -> web.Response:
    """Change some fields of a class."""
    return await _ROUTES.update(request)


async def delete_class(request: web.Request) -> web.Response:
    """Delete a class with everything in it."""
    return await _ROUTES.delete(request)
