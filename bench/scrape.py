"""What a scrape costs: `python -m bench.scrape` fills the files of several workers and measures the exposition.

Each worker has answered under 50 routes with three statuses, has run 60 queries, and has decided under 8 policies.
prometheus_client's own collector reads the same files for comparison. Times are the processor's.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.harness.machine import describe_machine
from bench.harness.results import write_document
from bench.harness.table import as_text
from server.settings import ROOT
from server.telemetry.metrics.directory import VARIABLE, memory_directory

RESULTS = ROOT / "bench" / "results" / "scrape.json"
ROUTES, STATUSES, QUERIES, POLICIES = 50, (200, 401, 429), 60, 8


def main() -> None:
    """Fill the directory with the workers' files, then measure in this process."""
    parser = argparse.ArgumentParser(prog="python -m bench.scrape", description=__doc__)
    parser.add_argument("--workers", type=int, default=2, help="whose files there are (2)")
    parser.add_argument("--rounds", type=int, default=30, help="scrapes in each format (30)")
    parser.add_argument("--fill", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fill:
        fill()
        return
    with TemporaryDirectory(dir=memory_directory()) as folder:
        environment = {**os.environ, VARIABLE: folder}
        for _ in range(options.workers):
            subprocess.run([sys.executable, "-m", "bench.scrape", "--fill"], env=environment, check=True)
        os.environ[VARIABLE] = folder
        measure(Path(folder), options.rounds, options.workers)


def fill() -> None:
    """Be one of the workers."""
    from server.telemetry.metrics.index import Metrics  # noqa: PLC0415 - it decides by the environment when imported

    metrics = Metrics()
    for route in range(ROUTES):
        for status in STATUSES:
            metrics.http_request_duration_seconds.labels("GET", f"/api/route{route}", status).observe(0.01)
    for query in range(QUERIES):
        metrics.database_query_duration_seconds.labels(f"query{query}", "primary").observe(0.01)
    for policy in range(POLICIES):
        for outcome in ("allowed", "denied"):
            metrics.rate_limit_decisions.labels(f"policy{policy}", outcome, "redis").inc()


def measure(folder: Path, rounds: int, workers: int) -> None:
    """Print what a scrape costs, ours and the library's, and write it down."""
    from prometheus_client import CollectorRegistry, generate_latest  # noqa: PLC0415 - as above
    from prometheus_client.multiprocess import MultiProcessCollector  # noqa: PLC0415 - as above

    from server.telemetry.metrics.index import Metrics  # noqa: PLC0415 - as above

    metrics = Metrics()
    library = CollectorRegistry()
    MultiProcessCollector(library, str(folder))  # type: ignore[no-untyped-call]
    ways: dict[str, Callable[[], bytes]] = {
        "text": lambda: metrics.render_text("")[0],
        "OpenMetrics": lambda: metrics.render_text("application/openmetrics-text")[0],
        "prometheus_client": lambda: generate_latest(library),
    }
    spent_ms: dict[str, list[float]] = {name: [] for name in ways}
    lines = {}
    for _ in range(rounds):  # in turn, so that a disturbance disturbs all
        for name, way in ways.items():
            gc.collect()  # nobody pays for what another has left
            began = time.process_time()
            text = way()
            spent_ms[name].append((time.process_time() - began) * 1000)
            lines[name] = len(text.splitlines())
    median = {name: statistics.median(spent) for name, spent in spent_ms.items()}
    library_ms = median["prometheus_client"]
    rows = [
        (
            name,
            f"{lines[name]}",
            f"{median[name]:.1f}",
            f"{spent_ms[name][0]:.1f}",
            f"{max(spent_ms[name][1:]):.1f}",
            f"{library_ms / median[name]:.1f}",
        )
        for name in ways
    ]
    print(as_text(("format", "lines", "median ms", "first ms", "worst later ms", "times as fast"), rows))
    write_document(
        {
            "date": datetime.now(UTC).date().isoformat(),
            "machine": describe_machine(),
            "workers": workers,
            "routes": ROUTES,
            "medianMs": median,
            "firstMs": {name: spent[0] for name, spent in spent_ms.items()},
            "worstLaterMs": {name: max(spent[1:]) for name, spent in spent_ms.items()},
        },
        RESULTS,
    )


if __name__ == "__main__":
    main()
