"""The limiters compared: server time and memory of a decision, and the share of requests admitted.

Every client asks for 1.25 times its limit, at random times. What a script takes from the server's clock is simulated,
so that hours pass in seconds: a command that reads the simulated time stands for TIME. Time is what Redis itself counts
for EVALSHA. In each of at least fifty rounds all limiters have their turn with the same 500 requests, so that what
disturbs the machine disturbs them all; the figure is the median of the rounds. `limits` and `throttled-py` are
installed below .state at first, from a lock of their own.

    python -m bench.limiter.run [--redis PATH ...] [--cases N] [--clients] [--write]
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import redis
from tqdm import tqdm

from bench.harness.machine import describe_machine, python_build
from bench.harness.peers import PeerMissing
from bench.harness.results import write_document
from bench.harness.table import as_markdown, as_text
from bench.limiter.cases import BATCH, CASES, Case
from bench.limiter.clients import client_table, measure_clients
from bench.limiter.contenders import (
    CLOCK,
    OURS,
    SAME_ANSWERS,
    YES_OR_NO,
    Contender,
    contenders,
    library_scripts,
)
from server.development import redis_server
from server.development.servers import find_redis_server
from server.settings import ROOT

RESULTS = ROOT / "bench" / "results" / "limiter.json"
PAGE = ROOT / "docs" / "rate-limiting.md"
EXACT = "exact answer"
_SECTION = re.compile(r"(<!-- bench:limiter -->\n).*?(<!-- /bench -->)", re.DOTALL)
_CLIENTS = re.compile(r"(<!-- bench:limiter-clients -->\n).*?(<!-- /bench -->)", re.DOTALL)

Document = dict[str, Any]


class Turns:
    """One contender in one case: a database of its own, and what its batches took.

    Args:
        url: of the Redis, without a database.
        database: its number there.
        contender: who.
        case: under which policy.
    """

    def __init__(self, url: str, database: int, contender: Contender, case: Case) -> None:
        self.contender = contender
        self._case = case
        self._client = redis.Redis.from_url(f"{url.removesuffix('/0')}/{database}")
        self._sha = self._client.script_load(contender.source)
        self._then = contender.then and (self._client.script_load(contender.then[0]), contender.then[1])
        self._stream = enumerate(case.arrivals())
        self._batches_us: list[float] = []
        self._admitted = 0

    def ask(self, *, measured: bool) -> None:
        """Make a batch of requests, counting or only warming up."""
        pipeline = self._client.pipeline(transaction=False)
        for _ in range(BATCH):
            number, (now, who) = next(self._stream)
            pipeline.set(CLOCK, now)
            pipeline.evalsha(self._sha, *self.contender.ask(who, number, now))
            if self._then:
                pipeline.evalsha(self._then[0], *self._then[1](who, number, now))
        self._client.config_resetstat()
        replies = pipeline.execute()[1 :: 3 if self._then else 2]
        if measured:
            spent_us = self._client.info("commandstats")["cmdstat_evalsha"]["usec"]
            self._batches_us.append(spent_us / BATCH)
            self._admitted += sum(map(self.contender.admits, replies))

    def close(self) -> Document:
        """Microseconds a decision (the median, and between which bounds half of the batches are), bytes, share."""
        keys = [key for key in self._client.scan_iter(count=1000) if key != CLOCK.encode()]
        memory = sum(self._client.memory_usage(key, samples=0) or 0 for key in keys)
        self._client.flushdb()
        self._client.close()
        low, median, high = statistics.quantiles(self._batches_us, n=4)
        share = self._admitted / self._case.requests if self.contender.simulated else None
        return {
            "usPerDecision": median,
            "usQuartiles": [low, high],
            "bytesPerClient": memory / self._case.clients,
            "admitted": share,
        }


def compare(url: str, case: Case, libraries: Mapping[str, str]) -> Document:
    """Everyone's figures in one case."""
    able = [one for one in contenders(case, libraries) if one.weighs or case.cost == 1]
    turns = [Turns(url, number, contender, case) for number, contender in enumerate(able)]
    batches = case.requests // BATCH
    for batch in tqdm(range(2 * batches), case.name, disable=not sys.stderr.isatty()):
        # Everyone is first in turn equally often.
        first = batch % len(turns)
        for one in turns[first:] + turns[:first]:
            one.ask(measured=batch >= batches)
    return {one.contender.name: one.close() for one in turns}


def measure(binaries: Sequence[Path], cases: Sequence[Case], libraries: Mapping[str, str]) -> Document:
    """The whole document, for each Redis."""
    versions: Document = {}
    for binary in binaries:
        with (
            tempfile.TemporaryDirectory() as folder,
            redis_server(Path(folder), binary=binary, options=('save ""',)) as server,
        ):
            with closing(redis.Redis.from_url(server.url)) as client:
                version = client.info("server")["redis_version"]
            versions[version] = {case.name: compare(server.url, case, libraries) for case in cases}
    return {
        "measured": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "peers": {name: libraries[name] for name in ("limits", "throttled-py") if name in libraries},
        "batch": BATCH,
        "exact": {case.name: case.exact_share() for case in cases},
        "redis": versions,
    }


def tables(document: Document) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """(Redis's version, headings, lines) of each table."""
    for version, columns in document["redis"].items():
        names = dict.fromkeys(name for column in columns.values() for name in column)
        exact = [EXACT, *(f"{document['exact'][case]:.3f}" for case in columns)]
        lines = [[name, *(_cell(column.get(name)) for column in columns.values())] for name in names]
        yield version, ["", *columns], [exact, *lines]


def beside_limits(columns: Mapping[str, Document]) -> str:
    """The time of our sliding window beside that of the library `limits`, in a sentence; empty without it."""
    both = [column for column in columns.values() if SAME_ANSWERS in column]
    if not both:
        return ""
    yes_or_no, same = (
        statistics.median(column[OURS]["usPerDecision"] / column[name]["usPerDecision"] for column in both)
        for name in (YES_OR_NO, SAME_ANSWERS)
    )
    return (
        f"The sliding window takes {yes_or_no:.2f} of the time of `limits` for its yes or no, and {same:.2f} of that\n"
        f"for the same answers, what remains and until when (medians of {len(both)} columns)."
    )


def section(document: Document) -> str:
    """What stands in the page: where it was measured, and the tables."""
    machine = document["machine"]
    peers = ", ".join(f"{name} {version}" for name, version in document["peers"].items())
    where = f"{machine['cores']} cores of {machine['processor']}"
    parts = [f"Measured {document['measured']} on {where}, with {peers or 'no library'}."]
    for version, headings, lines in tables(document):
        parts.append(f"Redis {version}:\n\n{as_markdown(headings, lines)}")
        parts.append(beside_limits(document["redis"][version]))
    return "\n\n".join(filter(None, parts))


def fill_page(page: str, document: Document) -> str:
    """The page with the tables between its markers."""
    page = _SECTION.sub(lambda found: f"{found[1]}{section(document)}\n{found[2]}", page)
    return fill_clients(page, document["clients"]) if "clients" in document else page


def fill_clients(page: str, document: Document) -> str:
    """The page with the table from client to client."""
    machine = document["machine"]
    where = f"{machine['cores']} cores of {machine['processor']}"
    text = f"Measured {document['measured']} on {where}, Python {document['build']}, Redis {document['redis']}.\n\n"
    text += as_markdown(*client_table(document["loads"]))
    return _CLIENTS.sub(lambda found: f"{found[1]}{text}\n{found[2]}", page)


def compare_clients(binary: Path) -> Document:
    """The figures from client to client, on one Redis."""
    with (
        tempfile.TemporaryDirectory() as folder,
        redis_server(Path(folder), binary=binary, options=('save ""',)) as server,
    ):
        with closing(redis.Redis.from_url(server.url)) as client:
            version = client.info("server")["redis_version"]
        loads = measure_clients(server.url)
    return {
        "measured": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "build": python_build(),
        "redis": version,
        "loads": loads,
    }


def publish(document: Document) -> None:
    """Write the results and the tables of docs/rate-limiting.md."""
    write_document(document, RESULTS)
    PAGE.write_text(fill_page(PAGE.read_text(encoding="utf-8"), document), encoding="utf-8")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--redis",
        type=Path,
        action="append",
        help="a redis-server; the embedded one and the PATH's by default",
    )
    parser.add_argument("--cases", type=int, default=len(CASES), help="how many policies, from the left")
    parser.add_argument("--write", action="store_true", help="the results and the page, too")
    parser.add_argument("--clients", action="store_true", help="only from client to client")
    options = parser.parse_args()
    binaries = options.redis or installed_servers()
    clients = compare_clients(binaries[-1])
    sys.stdout.write(
        "from client to client: decisions a second · processor time of the client · of Redis · admitted\n\n"
        f"{as_text(*client_table(clients['loads']))}\n\n"
    )
    if options.clients:
        if options.write:
            PAGE.write_text(fill_clients(PAGE.read_text(encoding="utf-8"), clients), encoding="utf-8")
        return
    try:
        libraries = library_scripts()
    except PeerMissing as error:
        sys.stderr.write(f"left out: limits, throttled-py: {error}\n")
        libraries = {}
    document = measure(binaries, CASES[: options.cases], libraries)
    for version, headings, lines in tables(document):
        sys.stdout.write(
            f"Redis {version}: server time per decision · bytes per client · share admitted\n\n"
            f"{as_text(headings, lines)}\n\n"
        )
        sys.stdout.write(f"{beside_limits(document['redis'][version])}\n\n")
    document["clients"] = clients
    if options.write:
        publish(document)


def installed_servers() -> list[Path]:
    """The embedded server, and the one on the PATH."""
    on_path = shutil.which("redis-server")
    return list(dict.fromkeys([find_redis_server(), *([Path(on_path)] if on_path else [])]))


def _cell(figures: Mapping[str, Any] | None) -> str:
    if figures is None:
        return ""
    share = "-" if figures["admitted"] is None else f"{figures['admitted']:.3f}"
    return f"{figures['usPerDecision']:.1f} µs · {figures['bytesPerClient']:.0f} B · {share}"


if __name__ == "__main__":
    main()
