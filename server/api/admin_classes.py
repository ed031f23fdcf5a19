"""/api/admin/classes: the classes of the course, drafts included."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import structlog
from aiohttp import web

from server.api.catalog_schemas import ClassesQuerySchema, ClassSchema
from server.api.listing import read_listing
from server.api.requests import path_id, read_json
from server.api.responses import created_response, json_response, no_content, tagged_response
from server.api.services import caller_of, services_of
from server.domain.editing.classes import describe_class

log = structlog.get_logger(__name__)

_QUERY = ClassesQuerySchema()
_NEW = ClassSchema()
_CHANGES = ClassSchema(partial=True)


async def list_classes(request: web.Request) -> web.Response:
    """A page of classes, by order, then name."""
    listing = read_listing(request, "admin-classes", _QUERY)
    after = listing.position
    rows = await services_of(request).editing.classes.list_classes(
        **listing.filters,
        after=None if after is None else (after[0], after[1], UUID(after[2])),
        page_size=listing.limit + 1,
    )
    page, next_cursor = listing.page(rows, lambda row: (row["sort_order"], row["name"], str(row["id"])))
    return tagged_response(
        request, {"classes": [describe_class(row) for row in page], "nextCursor": next_cursor}
    )


async def create_class(request: web.Request) -> web.Response:
    """Make a class."""
    row = await services_of(request).editing.classes.create_class(await read_json(request, _NEW))
    log.info("audit.class_created", **_subject(request, row["id"]))
    return created_response(f"/api/admin/classes/{row['id']}", describe_class(row))


async def get_class(request: web.Request) -> web.Response:
    """A class."""
    row = await services_of(request).editing.classes.get_class(path_id(request, "classId"))
    return tagged_response(request, describe_class(row))


async def update_class(request: web.Request) -> web.Response:
    """Change some fields of a class."""
    class_id = path_id(request, "classId")
    changes = await read_json(request, _CHANGES)
    edited = await services_of(request).editing.classes.update_class(class_id, changes)
    log.info("audit.class_updated", **_subject(request, class_id), changed=sorted(edited.changed))
    return json_response(describe_class(edited.row))


async def delete_class(request: web.Request) -> web.Response:
    """Delete a class with everything in it."""
    class_id = path_id(request, "classId")
    await services_of(request).editing.classes.delete_class(class_id)
    log.info("audit.class_deleted", **_subject(request, class_id))
    return no_content()


def _subject(request: web.Request, class_id: UUID) -> dict[str, Any]:
    return {"admin_id": str(caller_of(request).user_id), "class_id": str(class_id)}
