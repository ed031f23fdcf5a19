"""Where instructions are executed: what callgrind writes is read as a stack of functions."""

from __future__ import annotations

from bench.harness.report import SECTIONS
from bench.profile import REST, own_instructions, room_of
from server.settings import ROOT

LIMITER = f"{ROOT}/server/ratelimit/limiter.py|Limiter.decide"
HEADERS = f"{ROOT}/server/ratelimit/headers.py|rate_limit_lines"
SECOND = f"{ROOT}/server/ratelimit/headers.py|_second_text"


def written(*events: tuple[str, int]) -> list[str]:
    """What callgrind writes: before each event the instructions since the one before."""
    return [
        line
        for trigger, count in events
        for line in (
            f"desc: Trigger: Client Request: {trigger}\n",
            "fn=(1) f\n",
            "1 7\n",
            f"totals: {count}\n",
        )
    ]


def test_a_function_has_the_instructions_between_its_begin_and_its_end_but_for_those_it_calls() -> None:
    """Those of functions within are their own; what is made once a second is nobody's."""
    lines = written(
        (f"> {LIMITER}", 5), (f"> {HEADERS}", 100), (f"> {SECOND}", 20), (f"< {SECOND}", 7000),
        (f"< {HEADERS}", 30), (f"< {LIMITER}", 200), ("end", 9),
    )  # fmt: skip

    assert own_instructions(lines) == {"": 14, LIMITER: 300, HEADERS: 50}


def test_a_function_that_has_begun_before_the_count_ends_nothing() -> None:
    """The first events may be the ends of what runs already."""
    assert own_instructions(written((f"< {LIMITER}", 5), (f"> {HEADERS}", 6), (f"< {HEADERS}", 7))) == {
        "": 11, HEADERS: 7,
    }  # fmt: skip


def test_each_function_is_in_one_room_and_the_page_shows_all() -> None:
    """What is not the service's is the first row."""
    assert room_of(LIMITER) == "the limiter and its headers"
    assert room_of(f"{ROOT}/server/app.py|create_app") == "caller, cache and handler"
    assert room_of("/usr/lib/python3/site-packages/aiohttp/server/web.py|f") == REST
    assert room_of("") == REST

    section = SECTIONS["profile"]({"instructions": {"rooms": {"bare": {REST: 1000}, "200": {REST: 2000}}}})

    assert f"| {REST} | 1,000 | 2,000 |" in section
    assert "| in all | 1,000 | 2,000 |" in section
