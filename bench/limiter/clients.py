"""The limiters from client to client: decisions a second, and what a decision costs its client and Redis.

Each run is a process of its own that keeps 64 decisions going over one client of its library, on a Redis that is
emptied before. Two loads: many clients with room, and one client far over its limit. All have their turn in each of
several rounds; a figure is the median of the rounds. What needs Upstash's HTTP service, or a server of its own, is not
among them.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

import redis
from tqdm import tqdm

from bench.harness.peers import SOURCES, PeerMissing, install_fastify, install_python
from server.settings import ROOT

FOLDER = SOURCES / "limiters"
AT_ONCE = 64
ROUNDS = 3
# Name, decisions, clients, limit a minute.
LOADS: tuple[tuple[str, int, int, int], ...] = (
    ("1000 clients with room", 10_000, 1000, 100),
    ("one client over its limit", 10_000, 1, 100),
)

Command = Sequence[str]
Cell = dict[str, float]


def commands(url: str) -> Mapping[str, tuple[Command, Mapping[str, str]]]:
    """What runs each limiter, with its environment; those that can't be installed are left out, and named."""
    program = str(FOLDER / "client.py")
    found = {"mastery": ([sys.executable, program, "mastery", url], {"PYTHONPATH": str(ROOT)})}
    try:
        python = str(install_python("limiters"))
        for name in ("limits, moving window", "throttled-py, sliding window", "throttled-py, GCRA"):
            found[name] = ([python, program, name, url], {})
    except PeerMissing as error:
        sys.stderr.write(f"left out: limits, throttled-py: {error}\n")
    try:
        folder = install_fastify()
        shutil.copy(FOLDER / "client.js", folder / "client.js")
        found["rate-limiter-flexible (Node.js)"] = (["node", str(folder / "client.js"), url], {})
    except PeerMissing as error:
        sys.stderr.write(f"left out: rate-limiter-flexible: {error}\n")
    return found


def run_once(
    url: str, command: Command, environment: Mapping[str, str], load: tuple[str, int, int, int]
) -> Cell:
    """The figures of one run."""
    _, decisions, clients, limit = load
    with closing(redis.Redis.from_url(url)) as client:
        client.flushall()
        before = client.info("cpu")
        done = subprocess.run(
            [*command, str(decisions), str(AT_ONCE), str(clients), str(limit)],
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LOG_LEVEL": "error", **environment},
            capture_output=True,
            check=True,
            text=True,
        )
        after = client.info("cpu")
    figures = json.loads(done.stdout.splitlines()[-1])
    served = sum(after[name] - before[name] for name in ("used_cpu_sys", "used_cpu_user"))
    return {
        "perSecond": decisions / figures["seconds"],
        "clientUs": figures["cpu"] * 1e6 / decisions,
        "redisUs": served * 1e6 / decisions,
        "admitted": figures["admitted"],
    }


def measure_clients(url: str, *, rounds: int = ROUNDS) -> dict[str, dict[str, Cell]]:
    """The medians by load and limiter."""
    runners = commands(url)
    runs: dict[str, dict[str, list[Cell]]] = {load[0]: {name: [] for name in runners} for load in LOADS}
    total = rounds * len(LOADS) * len(runners)
    with tqdm(total=total, desc="client to client", disable=not sys.stderr.isatty()) as progress:
        for _ in range(rounds):
            for load in LOADS:
                for name, (command, environment) in runners.items():
                    runs[load[0]][name].append(run_once(url, command, environment, load))
                    progress.update()
    return {
        load: {
            name: {key: statistics.median(cell[key] for cell in cells) for key in cells[0]}
            for name, cells in by_name.items()
        }
        for load, by_name in runs.items()
    }


def client_table(
    document: Mapping[str, Mapping[str, Mapping[str, Any]]],
) -> tuple[list[str], list[list[str]]]:
    """The headings and lines of the table."""
    names = dict.fromkeys(name for by_name in document.values() for name in by_name)
    return ["", *document], [
        [name, *(_cell(by_name[name]) for by_name in document.values())] for name in names
    ]


def _cell(cell: Mapping[str, Any]) -> str:
    return f"{cell['perSecond']:,.0f}/s · {cell['clientUs']:.0f} µs · {cell['redisUs']:.1f} µs · {cell['admitted']:.0f}"
