"""The line of a request, put together by hand: the same as the general way makes of the same fields."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.clock import now_text
from server.net import shown_addresses
from server.telemetry.context import RequestContext, RequestLine, UserAgent, trace_id_of
from server.telemetry.logs.lines import JsonLines
from server.telemetry.logs.requests import _MOST_AGENTS, _MOST_KNOWN, AccessLines, AccessLog, quoted
from server.telemetry.logs.setup import configure_logging
from server.telemetry.timings import PARTS, Elapsed, Timings
from tests.telemetry.conftest import Lines

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
    agent=st.none() | st.text(min_size=1, max_size=300),
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
    agent: str | None,
) -> None:
    """Whatever a request was, its line has the fields, values and order that the general way gives it."""
    spelled = {part: parts[part][0] for part in PARTS if part in parts}
    counts = {part: parts[part][1] for part in PARTS if part in parts}
    context, timings = RequestContext(*ids), Timings()
    context.user_id, timings.counts = user, counts
    line = AccessLines(LINES, "server.access").render(
        RequestLine(
            context, method, route, status, Elapsed(float(total), total, spelled), timings, "2001:db8::1", size,
            "allowed", code, "1.0", None if agent is None else UserAgent(agent, quoted(agent)),
        ),
        ids[0],
    )  # fmt: skip
    fields: dict[str, object] = {"request_id": ids[0], "trace_id": ids[1]}
    if user is not None:
        fields["user_id"] = user
    fields |= {"http.method": method, "http.route": route, "http.status": status, "http.version": "1.0"}
    fields["duration_ms"] = float(total)
    for part, milliseconds in spelled.items():
        fields |= {f"{part}_ms": float(milliseconds), f"{part}_count": counts[part]}
    fields |= {"client_ip": "2001:db8::1", "response_bytes": size, "rate_limit": "allowed"}
    if code is not None:
        fields["error_code"] = code
    if agent is not None:
        fields["user_agent"] = agent
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


LINE = RequestLine(
    RequestContext("req_1", "t_1"), "GET", "/", 200, Elapsed(1.0, "1.00", {}), Timings(), "::1", 0, "allowed"
)


def render(lines: AccessLines, **changes: Any) -> dict[str, Any]:
    """A request's line, read back."""
    parsed: dict[str, Any] = orjson.loads(lines.render(LINE._replace(**changes), "req_1"))
    return parsed


@pytest.mark.parametrize(("status", "level"), [(499, "info"), (500, "error"), (501, "error")])
def test_from_500_on_a_line_is_an_error(status: int, level: str) -> None:
    """In the way of JSON, which is put together by hand."""
    assert level == render(AccessLines(LINES, "server.access"), status=status)["level"]


@pytest.mark.parametrize("length", [*range(20, 36), 37, 38, 200])
def test_an_id_of_a_clients_own_may_be_a_secret(logged: Lines, length: int) -> None:
    """It is looked at like any text, whatever its length; only those of the length that we give are not."""
    token = f"eyJ{'hbGciOiJIUzI1NiJ9' * 20}"[:length]
    AccessLog().write(LINE._replace(context=RequestContext(token, trace_id_of(token))))
    (line,) = logged()
    assert ("[redacted]", trace_id_of(token)) == (line["request_id"], line["trace_id"])


@pytest.mark.parametrize(
    ("header", "shown"),
    [
        ("curl/8.5.0", "curl/8.5.0"),
        ("Mozilla/5.0 (X11) Chrome/120.0.0.0", "Mozilla/5.0 (X11) Chrome/120.0.0.0"),
        ("bot (token=abcdefgh)", "bot (token=[redacted])"),
        ("a\x1b[31m\u202e\x7f\nb", r"a\x1b[31m\u202e\x7f\nb"),
        ("\udce4", r"\udce4"),
        ("a" * 9000, "a" * 200),
        (f"{'a' * 195} password=hunter2hunter2", f"{'a' * 195} pass"),
    ],
)
def test_what_a_client_calls_itself_is_cleaned_and_cut(logged: Lines, header: str, shown: str) -> None:
    """A caller can neither forge a line, nor control a terminal, nor leave a secret, nor fill the log."""
    access_log = AccessLog()
    agent = access_log.user_agent(header)
    access_log.write(LINE._replace(user_agent=agent))
    (line,) = logged()
    assert shown == line["user_agent"]
    assert agent is access_log.user_agent(header)


def test_an_address_in_an_agent_is_shown_as_everywhere(tmp_path: Path) -> None:
    """With LOG_CLIENT_IP=short; a product's version that looks like an address is none."""
    with (tmp_path / "log").open("w+b") as file:
        addresses = shown_addresses("short", "k" * 32)
        configure_logging(
            level="info", format="json", env="e", version="v", descriptor=file.fileno(), addresses=addresses
        )
        agent = AccessLog().user_agent("Chrome/120.0.0.9 via 203.0.113.9")
    assert agent is not None
    assert "Chrome/120.0.0.9 via 203.0.113.0" == agent.text


def test_no_agent_has_no_field(logged: Lines) -> None:
    """A client that does not name itself, or by an empty text, leaves no field."""
    access_log = AccessLog()
    for header in (None, ""):
        access_log.write(LINE._replace(user_agent=access_log.user_agent(header)))
    assert [False, False] == ["user_agent" in line for line in logged()]


def test_invented_agents_fill_no_memory() -> None:
    """They are remembered up to a bound, each up to a length."""
    access_log = AccessLog()
    for number in range(_MOST_AGENTS + 10):
        access_log.user_agent(f"{number}{'x' * 9000}")
    assert _MOST_AGENTS == len(access_log._agents)
    assert 1000 > max(map(len, access_log._agents))


def test_invented_methods_fill_no_memory() -> None:
    """Pieces are remembered up to a bound; beyond it, a line is what it would have been."""
    lines = AccessLines(LINES, "server.access")
    for number in range(_MOST_KNOWN + 10):
        assert f"M{number}" == render(lines, method=f"M{number}")["http.method"]
    assert _MOST_KNOWN == len(lines._known)


@pytest.mark.parametrize("form", ["json", "ecs", "otel", "datadog", "console"])
@pytest.mark.parametrize(
    ("level", "written"), [("info", [200, 499, 500]), ("warning", [500]), ("critical", [])]
)
def test_the_level_decides_which_lines_there_are(
    tmp_path: Path, form: str, level: str, written: list[int]
) -> None:
    """A request that went well is `info`, one that we have failed is an error; a method is cut to 32 characters."""
    with (tmp_path / "log").open("w+b") as file:
        configure_logging(
            level=level, format=form, service="s", env="e", version="v", descriptor=file.fileno()
        )
        access_log = AccessLog()
        for status in (200, 499, 500):
            access_log.write(LINE._replace(method=f"{'M' * 32}X", status=status))
        text = (tmp_path / "log").read_text()
    assert written == [status for status in (200, 499, 500) if re.search(rf"\b{status}\b", text)]
    assert len(written) == text.count("M" * 32)
    assert "X" not in text
