"""The headers that every response has, whether the application made it or the HTTP parser's refusal did."""

from __future__ import annotations

import os
import random
from datetime import timedelta

from aiohttp import hdrs

from server.api.whole_response import header_line
from server.settings import Settings
from server.telemetry.timings import Elapsed

_HSTS = f"max-age={int(timedelta(days=365).total_seconds())}; includeSubDomains"
# Unique, not secret: no system call for each. Seeded by the system anew in every process that is forked.
_random = random.Random()  # noqa: S311
_random_bits = _random.getrandbits
os.register_at_fork(after_in_child=_random.seed)


def new_request_id() -> str:
    """An id for a request whose client gave none that we accept."""
    return f"req_{_random_bits(128):032x}"


class StandardHeaders:
    """Makes the headers that every response has.

    Args:
        settings: the thresholds of the rating, and whether HSTS is sent.
    """

    def __init__(self, settings: Settings) -> None:
        self._good_ms = settings.rating_good_ms
        self._poor_ms = settings.rating_poor_ms
        self._fixed = (
            header_line("X-Content-Type-Options", "nosniff")
            + header_line("Referrer-Policy", "no-referrer")
            + header_line("X-Frame-Options", "DENY")
            + header_line(hdrs.SERVER, "mastery")
        )
        if settings.hsts:
            self._fixed += header_line("Strict-Transport-Security", _HSTS)

    def of(self, request_id: str, trace_id: str, elapsed: Elapsed) -> str:
        """The headers of one response as lines of its head.

        Args:
            request_id: of the request, in the form that is accepted.
            trace_id: of the trace it belongs to, likewise.
            elapsed: the time that it took.
        """
        total_ms = elapsed.total_ms
        rating = "Good"
        if total_ms >= self._good_ms:
            rating = "Needs Improvement" if total_ms < self._poor_ms else "Poor"
        total, parts = elapsed.total, ""
        for part, milliseconds in elapsed.parts.items():
            parts += f", {part};dur={milliseconds}"
        return (
            f"X-Request-ID: {request_id}\r\nX-Trace-ID: {trace_id}\r\n"
            f"Server-Timing: total;dur={total}{parts}\r\nX-Response-Time: {total}ms\r\n"
            f"X-Performance-Rating: {rating}\r\n{self._fixed}"
        )
