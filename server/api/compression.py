"""Responses in gzip, for clients that take it.

Small bodies gain nothing. What has an entity tag is compressed once for the same bytes, however many ask for it; a
large body is compressed in a thread, so that the requests beside it go on.
"""

from __future__ import annotations

import asyncio
import functools
import re
import zlib

from aiohttp import hdrs, web

from server.api.whole_response import add_lines, header_line, value_of, vary_by

# A body of fewer bytes fits into one packet either way.
COMPRESSED_FROM_BYTES = 1000
# About 0.3 ms of work.
_IN_A_THREAD_FROM_BYTES = 32 << 10
# 4 takes half the time of zlib's default 6, for 2 to 4 % more bytes.
_LEVEL = 4
_GZIP_LINE = header_line(hdrs.CONTENT_ENCODING, "gzip")
_GZIP_WINDOW = zlib.MAX_WBITS | 16
# For each process: some thousand pages, or a few decks of 20,000 cards.
_MOST_KEPT_BYTES = 16 << 20
_LONGEST_KNOWN = 200
_CODING = re.compile(r"\s*([^\s;]+)\s*(?:;\s*q\s*=\s*([01](?:\.[0-9]{0,3})?)\s*)?", re.ASCII | re.IGNORECASE)


class CompressedBodies:
    """The compressed forms of bodies by their entity tags, the oldest forgotten first.

    Args:
        most_bytes: how much is kept at most.
    """

    def __init__(self, most_bytes: int = _MOST_KEPT_BYTES) -> None:
        self._most_bytes = most_bytes
        self._bodies: dict[str, bytes] = {}
        self._size = 0

    async def compress(self, body: bytes, tag: str | None) -> bytes:
        """A body in gzip.

        Args:
            body: as it is.
            tag: the same for the same bytes; None for what is not kept.
        """
        kept = None if tag is None else self._bodies.get(tag)
        if kept is not None:
            return kept
        is_large = len(body) >= _IN_A_THREAD_FROM_BYTES
        compressed = await asyncio.to_thread(compress, body) if is_large else compress(body)
        if tag is not None and tag not in self._bodies and len(compressed) <= self._most_bytes:
            self._bodies[tag] = compressed
            self._size += len(compressed)
            while self._size > self._most_bytes:
                self._size -= len(self._bodies.pop(next(iter(self._bodies))))
        return compressed


def compress(body: bytes, level: int = _LEVEL) -> bytes:
    """The body in gzip, without a time in its header: the same bytes on every worker.

    Args:
        body: as it is.
        level: of zlib, 1 to 9.
    """
    compressor = zlib.compressobj(level, zlib.DEFLATED, _GZIP_WINDOW)
    return compressor.compress(body) + compressor.flush()


async def encode(request: web.Request, response: web.Response, bodies: CompressedBodies) -> int:
    """Compress a response where its client takes that and its handler has not done so. Answers with the body's size.

    Args:
        request: with its Accept-Encoding.
        response: with a body of COMPRESSED_FROM_BYTES or more; it is changed.
        bodies: the compressed forms that are known.
    """
    body = response.body
    if not isinstance(body, bytes):
        return 0
    if value_of(response, hdrs.CONTENT_ENCODING) is not None:
        return len(body)
    if hdrs.ACCEPT_ENCODING not in (value_of(response, hdrs.VARY) or ""):
        vary_by(response, hdrs.ACCEPT_ENCODING)
    if takes_gzip(request):
        body = await bodies.compress(body, value_of(response, hdrs.ETAG))
        add_lines(response, _GZIP_LINE)
        response.body = body
    return len(body)


def takes_gzip(request: web.Request) -> bool:
    """Whether the client prefers gzip to the plain form, or takes both alike: RFC 9110, section 12.5.3."""
    accepted = request.headers.getall(hdrs.ACCEPT_ENCODING, ())
    if not accepted:
        return False
    text = accepted[0] if len(accepted) == 1 else ",".join(accepted)
    return len(text) <= _LONGEST_KNOWN and _prefers_gzip(text)


@functools.lru_cache(maxsize=256)  # browsers and libraries send the same few
def _prefers_gzip(accept_encoding: str) -> bool:
    weights: dict[str, float] = {}
    for part in accept_encoding.split(","):
        coding = _CODING.fullmatch(part)
        if coding is not None:
            weights[coding[1].lower()] = float(coding[2] or 1)
    others = weights.get("*", 0.0)
    gzip = weights.get("gzip", weights.get("x-gzip", others))
    return gzip > 0 and gzip >= weights.get("identity", 0.0)
