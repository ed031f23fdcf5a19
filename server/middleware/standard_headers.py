"""The headers that every response has, whether the application made it or the HTTP parser's refusal did."""

from __future__ import annotations

import random
from datetime import timedelta

from aiohttp import hdrs
from multidict import istr

from server.settings import Settings
from server.telemetry.timings import Elapsed

_REQUEST_ID, _TRACE_ID = map(istr, ("X-Request-ID", "X-Trace-ID"))
_SERVER_TIMING, _RESPONSE_TIME = map(istr, ("Server-Timing", "X-Response-Time"))
_RATING = istr("X-Performance-Rating")
_HSTS = f"max-age={int(timedelta(days=365).total_seconds())}; includeSubDomains"
# Unique, not secret: no system call for each. Seeded by the system in every process, after its fork.
_random_bits = random.Random().getrandbits  # noqa: S311


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
        self._fixed = [
            (istr("X-Content-Type-Options"), "nosniff"),
            (istr("Referrer-Policy"), "no-referrer"),
            (istr("X-Frame-Options"), "DENY"),
            (hdrs.SERVER, "mastery"),
        ]
        if settings.hsts:
            self._fixed.append((istr("Strict-Transport-Security"), _HSTS))

    def of(self, request_id: str, trace_id: str, elapsed: Elapsed) -> list[tuple[str, str]]:
        """The headers of one response, in a new list.

        Args:
            request_id: of the request.
            trace_id: of the trace it belongs to.
            elapsed: the time that it took.
        """
        total_ms = elapsed.total_ms
        rating = "Good"
        if total_ms >= self._good_ms:
            rating = "Needs Improvement" if total_ms < self._poor_ms else "Poor"
        timing = f"total;dur={elapsed.total}"
        for part, milliseconds in elapsed.parts.items():
            timing += f", {part};dur={milliseconds}"
        return [
            (_REQUEST_ID, request_id),
            (_TRACE_ID, trace_id),
            (_SERVER_TIMING, timing),
            (_RESPONSE_TIME, f"{elapsed.total}ms"),
            (_RATING, rating),
            *self._fixed,
        ]
