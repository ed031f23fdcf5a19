"""A list with filters: its cursors continue the list that they come from, with the same filters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web

from server.api.pagination import Cursors, PageSchema
from server.api.requests import read_query
from server.api.services import CURSORS

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Listing:
    """What a request asks of a list: at most `limit` rows after `position` (None: from the start)."""

    name: str
    filters: dict[str, Any]
    limit: int
    position: list[Any] | None
    cursors: Cursors

    def page(
        self, rows: list[Row], position_of: Callable[[Row], Sequence[Any]]
    ) -> tuple[list[Row], str | None]:
        """Of `limit + 1` rows asked for: those of the page, and the cursor of the next one if there is more."""
        return self.cursors.page(self.name, rows, self.limit, position_of)


def read_listing(request: web.Request, name: str, schema: PageSchema) -> Listing:
    """The page of a list that a request's query asks for.

    Args:
        request: whose query is read.
        name: of the list, unlike every other list's.
        schema: its parameters; all but `limit` and `cursor` are filters.

    Raises:
        InvalidInput: a parameter is wrong, or the cursor is of another list, or of other filters.
    """
    filters = read_query(request, schema)
    limit, cursor = filters.pop("limit"), filters.pop("cursor")
    listing = f"{name}:{orjson.dumps(filters, option=orjson.OPT_SORT_KEYS).decode()}"
    cursors = request.config_dict[CURSORS]
    return Listing(listing, filters, limit, cursors.read(listing, cursor), cursors)
