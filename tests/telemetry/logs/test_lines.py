"""One event is one line of JSON, whatever it holds."""

from __future__ import annotations

import os
import re
import socket
import uuid
from collections import UserDict
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from time import perf_counter
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.telemetry.logs.lines import MAX_LINE_BYTES, ConsoleLines, JsonLines
from server.telemetry.logs.safety import Converter, Limits

NASTY = "a\nb\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\x00\x1b[31m\x9b31m\u202e\ud800"


class Colour(Enum):
    """An enumeration."""

    RED = "red"


class Unprintable:
    """Whose text can't be had."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


class UnprintableError(Exception):
    """Whose message can't be had."""

    def __str__(self) -> str:
        raise RuntimeError("no")


class Treacherous(Mapping[str, object]):
    """A mapping that fails while it is read."""

    def __getitem__(self, key: str) -> object:
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("changed during iteration")

    def __len__(self) -> int:
        return 3


def render(method: str = "info", shape: Any = "json", **event: Any) -> dict[str, Any]:
    """The line of an event, read back."""
    return parse(JsonLines(shape, service="mastery", env="test", version="1")(None, method, event))


def parse(line: bytes) -> dict[str, Any]:
    """What a line says, after a look at its form."""
    assert len(line) <= MAX_LINE_BYTES
    assert line.endswith(b"\n")
    assert 1 == len(line.decode().splitlines())
    parsed: dict[str, Any] = orjson.loads(line)
    return parsed


@pytest.mark.parametrize("longest_bytes", [4096, MAX_LINE_BYTES])
@pytest.mark.parametrize("text", ["x", NASTY, "é", "\\"])
def test_no_line_is_longer_than_it_may_be(longest_bytes: int, text: str) -> None:
    """However much an event holds, and however much longer its texts become by escaping."""
    render = JsonLines(
        "json", service=text * 99, env=text * 99, version=text * 99, longest_bytes=longest_bytes
    )
    for size in (1, 10, 100, 1000, 10_000):
        event = {
            f"{number}{text * size}": {text * size: [text * size] * size} for number in range(min(size, 99))
        }
        line = render(None, "error", {"event": text * size, **event, "exc_info": ValueError(text * size)})
        assert len(line) <= longest_bytes
        assert "timestamp" in orjson.loads(line)


def test_the_fields_of_a_line() -> None:
    """Every line begins with when, how severe, what, who, and which service; times are RFC 3339 in UTC."""
    line = render(event="redis.connection_lost", logger="server.stores.redis.link", attempts=3)
    assert [
        "timestamp", "level", "message", "logger", "service", "env", "version", "instance", "pid", "attempts",
    ] == list(line)  # fmt: skip
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("timestamp"))
    assert {
        "level": "info",
        "message": "redis.connection_lost",
        "logger": "server.stores.redis.link",
        "service": "mastery",
        "env": "test",
        "version": "1",
        "instance": socket.gethostname(),
        "pid": os.getpid(),
        "attempts": 3,
    } == line


def test_a_dyno_is_an_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the platform names a copy of the service, that is its name; elsewhere it is the host's."""
    monkeypatch.setenv("DYNO", "web.2")
    assert "web.2" == render(event="x")["instance"]
    monkeypatch.setenv("DYNO", " ")
    assert socket.gethostname() == render(event="x")["instance"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (1.5, 1.5),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (2**63, str(2**63)),
        (-(2**63), -(2**63)),
        ([10**5000], ["<integer of 16610 bits>"]),
        ("\ud800x", "\\ud800x"),
        (b"caf\xc3\xa9\xff", "café\\xff"),
        (bytearray(b"x"), "x"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (datetime(2026, 1, 2, 3, 4, 5, 678000, UTC), "2026-01-02T03:04:05.678000Z"),
        (date(2026, 1, 2), "2026-01-02"),
        (timedelta(milliseconds=1500), 1.5),
        (Decimal("1.10"), "1.10"),
        (Colour.RED, "red"),
        (Path("/x/y"), "/x/y"),
        (ValueError("bad"), "ValueError: bad"),
        (Colour, f"{__name__}.Colour"),
        ((1, "a"), [1, "a"]),
        ({7}, [7]),
        (UserDict({"a": 1}), {"a": 1}),
        ({1: "a", None: "b", b"c": "d", (1, 2): "e"}, {"1": "a", "None": "b", "c": "d", "(1, 2)": "e"}),
        (Unprintable(), "<Unprintable: not representable>"),
        ([Unprintable()], ["<Unprintable: not representable>"]),
        (UnprintableError(), "<UnprintableError: not representable>"),
        (Treacherous(), "<Treacherous: not representable>"),
    ],
)
def test_any_value_has_a_form(value: object, expected: object) -> None:
    """Every type has a form in JSON, and a value that fails to show itself is named by its type."""
    assert expected == render(event="x", value=value)["value"]


def test_a_structure_that_holds_itself() -> None:
    """A cycle ends at the greatest depth."""
    cycle: list[Any] = []
    cycle.append(cycle)
    assert [[[[[["<list of 1>"]]]]]] == render(event="x", cycle=cycle)["cycle"]


def test_control_characters_are_escaped() -> None:
    """Nothing in a line splits it, moves a terminal's cursor or reverses its text."""
    renderer = JsonLines("json", service="s", env="e", version="1")
    line = renderer(None, "info", {"event": NASTY, NASTY: NASTY, "deep": [{NASTY: NASTY}]})
    assert not re.search(
        r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", line.decode()
    )
    assert NASTY.replace("\ud800", "\\ud800") == parse(line)["message"]


def test_secrets_are_redacted_by_key_at_any_depth() -> None:
    """A secret's name hides its value wherever it is; absence and counts are shown."""
    line = render(
        event="x",
        password="hunter2",
        token=None,
        tokens=7,
        headers=[("Cookie", "sid=1"), (b"Authorization", b"Bearer x"), ("Host", "h")],
        deep={"a": [{"refreshToken": {"b": "c"}, "token_count": 3}]},
        dsn="redis://:hunter2@cache:6379",
    )
    assert "[redacted]" == line["password"]
    assert line["token"] is None
    assert 7 == line["tokens"]
    assert [["Cookie", "[redacted]"], ["Authorization", "[redacted]"], ["Host", "h"]] == line["headers"]
    assert {"a": [{"refreshToken": "[redacted]", "token_count": 3}]} == line["deep"]
    assert "redis://:[redacted]@cache:6379" == line["dsn"]


@pytest.mark.parametrize("key", ["pin", "otp", "passcode", "password", "smsToken", "cookie", "x_api_key"])
@pytest.mark.parametrize("number", [0, 1234, -1, 987654.5, 10**30])
def test_a_number_under_a_secret_key_is_hidden(key: str, number: float) -> None:
    """A pin is one; only a number of tokens is none."""
    event: dict[str, Any] = {key: number, "deep": [{key: number}]}
    line = render(event="x", **event)
    assert ("[redacted]", [{key: "[redacted]"}]) == (line[key], line["deep"])


@pytest.mark.parametrize(
    ("length", "end"), [(100, "password"), (101, "password"), (150, "refreshToken"), (9000, "pin")]
)
def test_a_long_key_is_secret_by_its_end(length: int, end: str) -> None:
    """A name that is too long to be shown whole hides its value all the same."""
    key = f"{'k' * (length - len(end) - 1)}_{end}"
    assert length == len(key)
    assert "hunter2" not in str(render(event="x", **{key: "hunter2"}, pairs=[(key, "hunter2")]))


@pytest.mark.parametrize("before", range(1950, 2001))
def test_a_secret_across_a_cut_is_redacted_whole(before: int) -> None:
    """Wherever within a secret, or before what shows that it is one, a text is cut: no beginning of it is left."""
    text = f"{'x' * before} redis://user:hunter2hunter2hunter2@cache:6379/0 {'x' * 3000}"
    line = render(event="x", text=text)
    assert "hun" not in line["text"]
    assert line["text"].endswith("characters]")


@pytest.mark.parametrize(
    "value",
    [
        "x" * 1_000_000,
        "\x00" * 100_000,
        "\U0001f600" * 100_000,
        ["\u2028" * 1000] * 1000,
        {f"key{number}": "v" * 100 for number in range(100_000)},
        [[["x" * 5000] * 100] * 100],
        b"\xff" * 1_000_000,
        {"k" * 100_000: 1},
    ],
    ids=["text", "controls", "emoji", "separators", "keys", "nested", "bytes", "long key"],
)
def test_large_values_are_cut(value: object) -> None:
    """A line stays below ten thousand bytes, says that something is missing, and keeps what identifies it."""
    line = render(event="import.failed", request_id="req_1", value=value)
    assert ("import.failed", "req_1") == (line["message"], line["request_id"])
    assert "…" in str(line) or " of 1" in str(line)


def test_a_line_of_just_the_greatest_length_is_whole() -> None:
    """What fits is not cut; what is a byte too long is."""
    event = {"event": "x", **{f"text_{number}": "y" * 1000 for number in range(4)}}

    def line(longest_bytes: int) -> bytes:
        return JsonLines("json", service="s", env="e", version="1", longest_bytes=longest_bytes)(
            None, "info", event
        )

    whole = line(MAX_LINE_BYTES)
    assert len(whole) > 4096
    assert len(whole) == len(line(len(whole)))
    assert len(whole) > len(line(len(whole) - 1))
    assert b"characters]" not in line(len(whole))


@pytest.mark.parametrize("missing", [0, 1, 2, 1000])
def test_what_is_missing_is_counted(missing: int) -> None:
    """Sixty items and sixty fields are shown; how many more there are is said, be it one."""
    numbers = list(range(60 + missing))
    line = render(event="x", listed=numbers, mapped={str(number): number for number in numbers})
    assert list(range(60)) == line["listed"][:60]
    assert ([f"…+{missing} items"] if missing else []) == line["listed"][60:]
    assert 59 == line["mapped"]["59"]
    assert (f"+{missing} items" if missing else None) == line["mapped"].get("…")
    fields = render(event="x", **{f"field_{number}": "" for number in numbers})
    assert (missing > 0) == fields.get("log.truncated", False)
    assert ("field_59" in fields, "field_60" in fields) == (True, False)


def test_bytes_that_are_cut_say_their_length() -> None:
    """What is shown of them is their beginning."""
    assert "x" * 2000 == render(event="x", value=b"x" * 2000)["value"]
    shown = render(event="x", value=b"x" * 50_000)["value"]
    assert shown.startswith("x" * 2000 + "…")
    assert shown.endswith("…[50000 bytes]")


def test_names_count_like_values() -> None:
    """A structure of long names is bounded as one of long texts is: several lines' worth is looked at, not more."""
    structure: Any = {f"{number:0100}": None for number in range(60)}
    for _ in range(2):
        structure = {f"{number:0100}": structure for number in range(60)}
    shown = Converter(Limits(characters=2000, items=60, depth=6, stack=100)).value(structure)
    assert 30_000 < len(orjson.dumps(shown)) < 60_000


@pytest.mark.parametrize(
    ("method", "level"),
    [
        ("warn", "warning"),
        ("fatal", "critical"),
        ("exception", "error"),
        ("notset", "info"),
        ("debug", "debug"),
    ],
)
def test_a_level_has_one_name(method: str, level: str) -> None:
    """Whatever a library calls it, pipelines see one of five words."""
    assert level == render(method, event="x")["level"]
    assert f"[{level:9}]" in ConsoleLines(colors=False)(None, method, {"event": "x"}).decode()


@pytest.mark.parametrize("key", ["tokens", "max_tokens", "tokens_left", "token_count"])
def test_a_number_of_tokens_is_shown(key: str) -> None:
    """A text under such a name may be one; a number is how many there are."""
    event: dict[str, Any] = {key: 7}
    assert 7 == render(event="x", **event)[key]


def test_a_long_key_is_cut() -> None:
    """A hundred characters of it are shown, and how many there were."""
    (shown,) = [key for key in render(event="x", **{"k" * 300: "v"}) if key.startswith("kk")]
    assert f"{'k' * 100}…[+200 characters]" == shown


def test_many_fields_are_cut() -> None:
    """A thousand fields do not fit; that some are missing is said."""
    line = render(event="x", **{f"field_{number}": "y" * 500 for number in range(1000)})
    assert line["log.truncated"] is True
    assert "y" * 100 in line["field_0"]


def test_a_wide_and_deep_structure_takes_no_time() -> None:
    """The work for a line is bounded: a structure of 10**12 texts is shown in part within a second."""
    structure: object = "x" * 5000
    for _ in range(6):
        structure = [structure] * 100
    began = perf_counter()
    render(event="x", structure=structure)
    assert perf_counter() - began < 1.0


VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.integers(),
        st.floats(),
        st.binary(),
        st.text(st.characters(exclude_categories=())),
        st.sampled_from('\x00\x7f\x9b\u2028\ud800"\\').map(lambda character: character * 3000),
        st.builds(Unprintable),
        st.datetimes(),
        st.decimals(),
    ),
    lambda inner: st.one_of(
        st.lists(inner), st.dictionaries(st.one_of(st.text(), st.integers(), st.binary()), inner)
    ),
    max_leaves=12,
)


@given(
    st.sampled_from(["json", "ecs", "gcp", "otel", "datadog"]),
    st.dictionaries(st.text(st.characters(exclude_categories=()), max_size=200), VALUES, max_size=12),
    VALUES,
)
def test_every_event_is_one_line(shape: Any, event: dict[str, Any], name: object) -> None:
    """No event whatsoever is lost, breaks its line, or makes it too long."""
    renderer = JsonLines(shape, service="mastery", env="test", version="1")
    parse(renderer(None, "info", {**event, "event": name}))


def test_an_exception_is_told_in_three_fields() -> None:
    """The type with its module, the message and the stack with its causes; secrets in them are redacted."""

    def fail() -> None:
        try:
            [][int("redis://u:hunter2@h")]
        except ValueError as error:
            raise orjson.JSONDecodeError("bad\nbody", "x", 0) from error

    with pytest.raises(orjson.JSONDecodeError) as caught:
        fail()
    line = render("error", event="boom", exc_info=caught.value)
    assert "orjson.JSONDecodeError" == line["error.type"]
    assert "bad\nbody: line 1 column 1 (char 0)" == line["error.message"]
    assert "ValueError: invalid literal" in line["error.stack"]
    assert "hunter2" not in line["error.stack"]
    assert "in fail" in line["error.stack"]


@pytest.mark.parametrize("size", [4000, 20_000, 200_000])
def test_a_long_stack_keeps_its_end(size: int) -> None:
    """A stack of any length is cut in its middle: where the failure happened, and what it was, is at its end."""

    def descend(depth: int, text: str) -> None:
        if depth == 0:
            raise ValueError(text)
        descend(depth - 1, text)

    with pytest.raises(ValueError, match="the deepest") as first:
        descend(100, f"the deepest\u2028{'m' * size}")
    error = KeyError("what came of it")
    error.__cause__ = first.value
    line = render("error", event="boom", exc_info=error)
    assert line["error.stack"].startswith("Traceback (most recent call last):")
    assert "characters]" in line["error.stack"]
    assert line["error.stack"].endswith("KeyError: 'what came of it'\n")
    assert "'what came of it'" == line["error.message"]
    head, tail = re.split(r"…\[\+\d+ characters\]", line["error.stack"])
    assert 2 * len(head) < len(tail)  # more of where it failed than of where it began


def test_a_stack_of_a_thousand_frames_ends_where_it_failed() -> None:
    """Of the frames, the last ones are shown, and the exception below them."""
    program = [f"def step_{number}():\n    step_{number + 1}()\n" for number in range(900)]
    names: dict[str, Any] = {}
    exec("".join([*program, "def step_900():\n    raise LookupError('nothing there')\n"]), names)  # noqa: S102
    with pytest.raises(LookupError) as caught:
        names["step_0"]()
    stack = render("error", event="boom", exc_info=caught.value)["error.stack"]
    assert re.search(r"in step_899\n.*in step_900\nLookupError: nothing there\n$", stack, re.DOTALL)
    assert "in step_500\n" not in stack


def test_the_current_exception_is_found() -> None:
    """`exc_info=True` means the exception that is being handled, and is nothing outside of a handler."""
    try:
        _ = os.environ["NO_SUCH_VARIABLE"]
    except KeyError:
        assert "KeyError" == render(event="x", exc_info=True)["error.type"]
    assert "error.type" not in render(event="x", exc_info=True)


@pytest.mark.parametrize("nothing", [None, False, (None, None, None), ()])
def test_no_exception_is_none(nothing: object) -> None:
    """What says that there is none is believed, also while one is being handled."""
    try:
        _ = os.environ["NO_SUCH_VARIABLE"]
    except KeyError:
        assert "error.type" not in render(event="x", exc_info=nothing)


def test_an_exception_without_a_message_is_reported() -> None:
    """An exception whose text fails still has its type and its stack."""
    line = render(event="x", exc_info=UnprintableError())
    assert f"{__name__}.UnprintableError" == line["error.type"]
    assert "failed" in line["error.message"]


def test_an_error_as_a_value() -> None:
    """`error=` takes a word or an exception, and never collides with `error.type` in a pipeline's index."""
    assert "refused" == render(event="x", error="refused")["error.message"]
    line = render(event="x", error=TimeoutError("late"))
    assert ("TimeoutError", "late") == (line["error.type"], line["error.message"])
    assert "error" not in line


def test_a_field_does_not_replace_ours() -> None:
    """A field with a name of ours is kept under another."""
    line = render(event="x", level="high", message="hello", timestamp="now")
    assert ("info", "x") == (line["level"], line["message"])
    assert ("high", "hello", "now") == (line["level_"], line["message_"], line["timestamp_"])


def test_the_console_begins_a_request_with_what_one_looks_for() -> None:
    """Method, path, status and duration come first, the rest behind them, and the path forges no line."""
    fields = {
        "http.method": "GET",
        "http.route": "/a\nb",
        "http.status": 200,
        "duration_ms": 12.345,
        "db_count": 2,
    }
    text = ConsoleLines(colors=False)(None, "info", {"event": "http.request", **fields}).decode()
    when, what = text.split("[info     ] ")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} ", when)
    assert what.startswith("GET /a\\nb 200 12.35 ms ")
    assert what.endswith(" db_count=2\n")
    assert "http." not in text
    assert "event" in ConsoleLines(colors=False)(None, "info", {"event": "event", **fields}).decode()


def test_the_console_hides_secrets_and_forges_no_line() -> None:
    """For people there is colour-free text off a terminal, redacted, one line an event."""
    text = ConsoleLines(colors=False)(None, "info", {"event": NASTY, "password": "hunter2", "n": 1}).decode()
    assert 1 == len(text.splitlines())
    assert "hunter2" not in text
    assert "\x1b" not in text
    assert "n=1" in text
