"""Where the instructions of a request go: those of each Python function, with what is written in C that it calls.

callgrind alone knows nothing of Python. So its counts are written whenever a function begins or ends
(harness/profile.c). Each call costs a little more that way, and an interpreter that calls functions of Python by itself
can't do so: the sums are a tenth above those of `instructions`. What is made once a second is left out: here a request
takes as long.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from bench.harness.results import Document
from bench.harness.table import as_text
from bench.instructions import compile_library, counting_world, run_counted

REST = "aiohttp, event loop, parser"
# By the beginning of a module's path; the first that fits.
ROOMS = (
    ("server/connections/", "routing and the connection"),
    ("server/api/whole_response", "writing the response"),
    ("server/middleware/", "the middlewares"),
    ("server/net", "the middlewares"),
    ("server/telemetry/", "log line, stopwatch, counters"),
    ("server/clock", "log line, stopwatch, counters"),
    ("server/ratelimit/", "the limiter and its headers"),
    ("server/stores/redis/", "the way to Redis and back"),
    ("server/", "caller, cache and handler"),
)
KINDS = ("bare", "200", "304", "429")
_HERE = f"{Path(__file__).resolve().parents[1]}/"
# More take longer than values stay in the cache.
_REQUESTS = 32
_SHOWN = 30
_EACH_SECOND = re.compile(r"email/utils|\|(_second_text|_date_line|rfc822_formatted_time)$")
_TRIGGER = "desc: Trigger: Client Request: "
_END = f"{_TRIGGER}end"


def measure_profile() -> Document:
    """Print, and return, the instructions of a request of each kind by room, and those of the costliest functions."""
    found: dict[str, dict[str, int]] = {}
    functions: Counter[str] = Counter()
    with counting_world() as (surroundings, kinds):
        library = compile_library(surroundings.folder, "profile.c")
        for counted in kinds:
            kind = counted.name.partition(" ")[0].rstrip(":")
            if kind not in KINDS or kind in found:
                continue
            counts = surroundings.folder / f"profile-{kind}"
            run_counted(
                surroundings, library, counted, counts, _REQUESTS, lambda at=counts: _is_written(at), # type: ignore[misc]
                "--combine-dumps=yes",
            )  # fmt: skip
            with counts.open(errors="replace") as lines:
                functions = own_instructions(lines)
            counts.unlink()
            rooms: Counter[str] = Counter()
            for function, number in functions.items():
                rooms[room_of(function)] += number
            found[kind] = {room: round(number / _REQUESTS) for room, number in rooms.items()}
            _print_functions(counted.name, functions)
    sys.stdout.write(as_text(("", *found), room_lines(found)) + "\n")
    return {"rooms": found}


def room_lines(found: dict[str, dict[str, int]]) -> list[list[str]]:
    """The lines of the table: a room each, and the sum."""
    rooms = list(dict.fromkeys([REST, *(room for _, room in ROOMS)]))
    lines = [[room, *(f"{kind.get(room, 0):,}" for kind in found.values())] for room in rooms]
    return [*lines, ["in all", *(f"{sum(kind.values()):,}" for kind in found.values())]]


def own_instructions(lines: Iterable[str]) -> Counter[str]:
    """The instructions of each function, by path and qualified name, from what callgrind has written."""
    own: Counter[str] = Counter()
    stack, trigger = [""], ""
    for line in lines:
        if line.startswith(_TRIGGER):
            trigger = line[len(_TRIGGER) :].strip()
        elif line.startswith("totals: ") and trigger:
            if not any(map(_EACH_SECOND.search, stack)):
                own[stack[-1]] += int(line.split()[1])
            if trigger.startswith("> "):
                stack.append(trigger[2:])
            elif trigger[2:] in stack:
                del stack[len(stack) - 1 - stack[::-1].index(trigger[2:]) :]
            trigger = ""
    return own


def room_of(function: str) -> str:
    """The room of a function. Args: function: its path and its qualified name."""
    path = function.removeprefix(_HERE)
    if path == function:
        return REST
    return next((room for beginning, room in ROOMS if path.startswith(beginning)), REST)


def _print_functions(name: str, functions: Counter[str]) -> None:
    lines = [
        [re.sub(r"^.*/(?=server/|aiohttp/|lib/)", "", function).replace("|", " ") or "(between them)",
         f"{number / _REQUESTS:,.0f}"]
        for function, number in functions.most_common(_SHOWN)
    ]  # fmt: skip
    sys.stdout.write(f"{as_text((name, 'instructions/request'), lines)}\n\n")


def _is_written(counts: Path) -> bool:
    with counts.open("rb") as file:
        file.seek(max(0, counts.stat().st_size - 1_000_000))
        return _END.encode() in file.read()
