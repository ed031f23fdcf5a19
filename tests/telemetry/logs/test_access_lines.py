"""The line of a request, put together by hand: the same as the general way makes of the same fields."""

from __future__ import annotations

import orjson
from hypothesis import given
from hypothesis import strategies as st

from server.clock import now_text
from server.telemetry.context import RequestContext, RequestLine
from server.telemetry.logs.lines import JsonLines
from server.telemetry.logs.requests import AccessLines, quoted
from server.telemetry.timings import PARTS, Elapsed, Timings

WORDS = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=20)
IDS = st.text("ABCxyz019._:+/=-", min_size=20, max_size=40)
NUMBERS = st.floats(0, 1e6).map(lambda number: f"{number:.2f}")
LINES = JsonLines("json", service='a "service"', env="prod\\uction", version="1\n")


@given(
    ids=st.tuples(IDS, IDS),
    user=st.none() | st.uuids().map(str),
    method=st.text(min_size=1, max_size=32),
    route=st.text(max_size=40),
    status=st.integers(100, 599),
    total=NUMBERS,
    parts=st.dictionaries(st.sampled_from(PARTS), st.tuples(NUMBERS, st.integers(1, 99))),
    code=st.none() | WORDS,
    size=st.integers(0, 10**12),
)
def test_both_ways_make_the_same_line(
    ids: tuple[str, str],
    user: str | None,
    method: str,
    route: str,
    status: int,
    total: str,
    parts: dict[str, tuple[str, int]],
    code: str | None,
    size: int,
) -> None:
    """Whatever a request was, its line has the fields, values and order that the general way gives it."""
    spelled = {part: parts[part][0] for part in PARTS if part in parts}
    counts = {part: parts[part][1] for part in PARTS if part in parts}
    context, timings = RequestContext(*ids), Timings()
    context.user_id, timings.counts = user, counts
    line = AccessLines(LINES, "server.access").render(
        RequestLine(
            context, method, route, status, Elapsed(float(total), total, spelled), timings, "2001:db8::1", size,
            "allowed", code,
        ),
        *ids,
    )  # fmt: skip
    fields: dict[str, object] = {"request_id": ids[0], "trace_id": ids[1]}
    if user is not None:
        fields["user_id"] = user
    fields |= {"http.method": method, "http.route": route, "http.status": status, "duration_ms": float(total)}
    for part, milliseconds in spelled.items():
        fields |= {f"{part}_ms": float(milliseconds), f"{part}_count": counts[part]}
    fields |= {"client_ip": "2001:db8::1", "response_bytes": size, "rate_limit": "allowed"}
    if code is not None:
        fields["error_code"] = code
    general = LINES.render_known(
        "server.access", "error" if status >= 500 else "info", "http.request", fields
    )
    ours, theirs = orjson.loads(line), orjson.loads(general)
    assert theirs.pop("timestamp") <= now_text()
    assert ours.pop("timestamp") <= now_text()
    assert list(theirs.items()) == list(ours.items())
    assert line.endswith(b"}\n")
    assert 1 == line.count(b"\n")


@given(st.text())
def test_quoted_text_is_json(text: str) -> None:
    """A text between quotation marks reads as itself, on one line."""
    assert text == orjson.loads(f'"{quoted(text)}"')
    assert "\n" not in quoted(text)
