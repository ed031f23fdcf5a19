"""Keyset pagination: a cursor is the last row's position, signed, so that only our own come back.

A list with filters has cursors that continue the list that they come from, with the same filters.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web

from server.api.requests import read_query
from server.api.schemas import PageSchema
from server.errors import InvalidInput

_SIGNATURE_BYTES = 12
Row = dict[str, Any]


class Cursors:
    """Writes and reads the cursors of all lists with one key."""

    def __init__(self, secret_key: str) -> None:
        self._key = hashlib.sha256(b"cursor:" + secret_key.encode()).digest()

    def write(self, listing: str, position: Sequence[Any]) -> str:
        """The cursor that continues a listing after a position (JSON values)."""
        body = orjson.dumps(list(position))
        return base64.urlsafe_b64encode(self._sign(listing, body) + body).decode().rstrip("=")

    def read(self, listing: str, cursor: str | None) -> list[Any] | None:
        """The position in a cursor of this listing; None for the first page.

        Raises:
            InvalidInput: the cursor is malformed, or of another listing.
        """
        if cursor is None:
            return None
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        signature, body = raw[:_SIGNATURE_BYTES], raw[_SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._sign(listing, body)):
            raise InvalidInput(
                errors={"cursor": "This is not a cursor of this list; take nextCursor as it came."}
            )
        position: list[Any] = orjson.loads(body)
        return position

    def page(
        self,
        listing: str,
        rows: list[dict[str, Any]],
        limit: int,
        position_of: Callable[[dict[str, Any]], Sequence[Any]],
    ) -> tuple[list[dict[str, Any]], str | None]:
        """Of `limit + 1` rows asked for: those of the page, and the cursor of the next one if there is more."""
        if len(rows) <= limit:
            return rows, None
        return rows[:limit], self.write(listing, position_of(rows[limit - 1]))

    def _sign(self, listing: str, body: bytes) -> bytes:
        message = listing.encode() + b"\0" + body
        return hmac.digest(self._key, message, "sha256")[:_SIGNATURE_BYTES]


CURSORS = web.AppKey("cursors", Cursors)


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
