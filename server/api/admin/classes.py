"""/api/admin/classes: the classes of the course, drafts included."""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import UUID

import structlog
from aiohttp import web

from server.api.admin.schemas import ClassesQuerySchema, ClassSchema
from server.api.listing import read_listing
from server.api.requests import path_id, read_json
from server.api.responses import tagged_response
from server.api.services import caller_of, services_of
from server.api.writes import answer, no_content, write
from server.domain.editing import classes
from server.domain.editing.classes import describe_class
from server.domain.writing import Answer, Unit

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
    values = await read_json(request, _NEW)

    async def work(unit: Unit) -> Answer:
        row = await classes.create_class(unit, values)
        _audit(unit, request, "audit.class_created", row["id"])
        return answer(describe_class(row), status=201, location=f"/api/admin/classes/{row['id']}")

    return await write(request, work)


async def get_class(request: web.Request) -> web.Response:
    """A class."""
    row = await services_of(request).editing.classes.get_class(path_id(request, "classId"))
    return tagged_response(request, describe_class(row))


async def update_class(request: web.Request) -> web.Response:
    """Change some fields of a class."""
    class_id = path_id(request, "classId")
    changes = await read_json(request, _CHANGES)

    async def work(unit: Unit) -> Answer:
        edited = await classes.update_class(unit, class_id, changes)
        _audit(unit, request, "audit.class_updated", class_id, changed=sorted(edited.changed))
        return answer(describe_class(edited.row))

    return await write(request, work)


async def delete_class(request: web.Request) -> web.Response:
    """Delete a class with everything in it."""
    class_id = path_id(request, "classId")

    async def work(unit: Unit) -> Answer:
        await classes.delete_class(unit, class_id)
        _audit(unit, request, "audit.class_deleted", class_id)
        return no_content()

    return await write(request, work)


def _audit(unit: Unit, request: web.Request, event: str, class_id: UUID, **more: Any) -> None:
    subject = {"admin_id": str(caller_of(request).user_id), "class_id": str(class_id)}
    unit.afterwards.append(partial(log.info, event, **subject, **more))
