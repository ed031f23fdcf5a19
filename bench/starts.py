"""A start of one worker, from its command to its first answer, in steps that its own log tells apart."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bench.harness.machine import Cores, cpu_seconds
from bench.harness.subjects import Subject, running, service
from bench.harness.table import as_text
from bench.harness.world import World, world

HEADINGS = ("a start, until", "seconds", "adds")
# The step that ends with each event of the log.
_STEPS = {
    "Starting gunicorn": "settings and limits are checked, the application is imported",
    "Booting worker": "the master listens, a worker is forked",
    "service.started": "the worker has made the application and is connected",
}
ANSWERED = "the first answer, to a reader's request"


@dataclass(frozen=True, slots=True)
class Start:
    """One start.

    Attributes:
        steps: seconds since the command, by what was done by then, in order.
        cpu_seconds: of all its processes, until the first answer was seen.
    """

    steps: dict[str, float]
    cpu_seconds: float

    @property
    def seconds(self) -> float:
        """From the command to the first answer."""
        return self.steps[ANSWERED]


def measure_starts(surroundings: World, *, times: int) -> list[Start]:
    """One worker, started so many times in the surroundings, and stopped each time."""
    found = []
    for number in range(times):
        launch = service(surroundings, name=f"service-starting-{number}")
        with running(launch, surroundings) as subject:
            now, cpu = time.time(), cpu_seconds(subject.process.pid)
            began = now - (time.perf_counter() - subject.began)
            steps = {name: at - began for name, at in _events(subject).items()}
            found.append(Start({**steps, ANSWERED: subject.start_seconds}, cpu))
    return found


def medians_of_starts(starts: Sequence[Start]) -> dict[str, Any]:
    """Several starts as a part of the document of results."""
    return {
        "steps": {name: statistics.median(start.steps[name] for start in starts) for name in starts[0].steps},
        "seconds": statistics.median(start.seconds for start in starts),
        "cpuSeconds": statistics.median(start.cpu_seconds for start in starts),
    }


def start_lines(medians: Mapping[str, Any]) -> list[list[str]]:
    """The cells of the table."""
    before, lines = 0.0, []
    for name, at in medians["steps"].items():
        lines.append([name, f"{at:.2f}", f"{at - before:.2f}"])
        before = at
    return [*lines, ["CPU of all its processes until then", f"{medians['cpuSeconds']:.2f}", ""]]


def print_starts(times: int) -> None:
    """The medians as a table on standard output."""
    with world(readers=1, cores=Cores.of_this_machine()) as surroundings:
        found = medians_of_starts(measure_starts(surroundings, times=times))
    sys.stdout.write(as_text(HEADINGS, start_lines(found)) + "\n")


def _events(subject: Subject) -> dict[str, float]:
    """When each step ended, in seconds since the epoch."""
    found: dict[str, float] = {}
    for text in subject.log.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        for event, name in _STEPS.items():
            if line["message"].startswith(event):
                found.setdefault(name, datetime.fromisoformat(line["timestamp"]).timestamp())
    return found
