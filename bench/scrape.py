"""What a scrape costs: `python -m bench.scrape` fills the files of several workers and measures the exposition.

Each worker has answered under 50 routes with three statuses, has run 60 queries, and has decided under 8 policies.
prometheus_client's own collector reads the same files for comparison. Times are the processor's.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from server.telemetry.multiprocess import VARIABLE, memory_directory

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
        measure(Path(folder), options.rounds)


def fill() -> None:
    """Be one of the workers."""
    from server.telemetry.metrics import Metrics  # noqa: PLC0415 - it decides by the environment when imported

    metrics = Metrics()
    for route in range(ROUTES):
        for status in STATUSES:
            metrics.http_request_duration_seconds.labels("GET", f"/api/route{route}", status).observe(0.01)
    for query in range(QUERIES):
        metrics.database_query_duration_seconds.labels(f"query{query}").observe(0.01)
    for policy in range(POLICIES):
        for outcome in ("allowed", "denied"):
            metrics.rate_limit_decisions.labels(f"policy{policy}", outcome, "redis").inc()


def measure(folder: Path, rounds: int) -> None:
    """Print what a scrape costs, ours and the library's."""
    from prometheus_client import CollectorRegistry, generate_latest  # noqa: PLC0415 - as above
    from prometheus_client.multiprocess import MultiProcessCollector  # noqa: PLC0415 - as above

    from server.telemetry.metrics import Metrics  # noqa: PLC0415 - as above

    metrics = Metrics()
    library = CollectorRegistry()
    MultiProcessCollector(library, str(folder))  # type: ignore[no-untyped-call]
    ways: dict[str, Callable[[], bytes]] = {
        "text": lambda: metrics.render_text("")[0],
        "OpenMetrics": lambda: metrics.render_text("application/openmetrics-text")[0],
        "prometheus_client": lambda: generate_latest(library),
    }
    for name, way in ways.items():
        spent_ms = []
        for _ in range(rounds):
            began = time.process_time()
            text = way()
            spent_ms.append((time.process_time() - began) * 1000)
        print(
            f"{name:18} {len(text.splitlines()):6} lines  median {statistics.median(spent_ms):6.1f} ms"
            f"  worst {max(spent_ms):6.1f} ms"
        )


if __name__ == "__main__":
    main()
