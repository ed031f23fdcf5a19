"""What traces cost a request: `python -m bench.traces` compares the service without an endpoint, and with one.

`off` has no OTEL_EXPORTER_OTLP_ENDPOINT. The others export to a collector beside them that reads and forgets:
`unsampled` is asked by callers who do not sample, `hundredth` samples 1 % (OTEL_TRACES_SAMPLER), `every` all requests.
What is read is cached: a request has four spans.
"""

from __future__ import annotations

import argparse
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from bench.harness.machine import Cores, describe_machine
from bench.harness.results import rows_as_json, write_document
from bench.harness.rounds import Target, interleave, medians
from bench.harness.subjects import Launch, running, service
from bench.harness.table import as_text
from bench.harness.world import World, world
from bench.service import show_round
from server.settings import ROOT

RESULTS = ROOT / "bench" / "results" / "traces.json"
_NOT_SAMPLED = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"}


def main() -> None:
    """Measure, print a table, write the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.traces", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds (7)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of load in each (2)")
    options = parser.parse_args()
    cores = Cores.of_this_machine()
    with world(readers=50, cores=cores) as surroundings, collector() as url, contextlib.ExitStack() as stack:
        off, on, hundredth = (
            stack.enter_context(running(launch, surroundings)) for launch in launches(surroundings, url)
        )
        targets = [
            Target("off", off),
            Target("unsampled", on, headers=_NOT_SAMPLED),
            Target("hundredth", hundredth),
            Target("every", on),
        ]
        found = interleave(targets, rounds=options.rounds, seconds=options.seconds, on_round=show_round)
    rows = {name: medians(name, rounds) for name, rounds in found.items()}
    least = rows["off"].median.cpu_us
    table = [
        (name, f"{row.median.cpu_us:.1f}", f"{row.median.cpu_us / least:.3f}", f"{row.median.per_second:.0f}")
        for name, row in rows.items()
    ]
    print(as_text(("traces", "CPU µs a request", "ratio", "requests/s"), table))
    write_document(
        {
            "date": datetime.now(UTC).date().isoformat(),
            "machine": describe_machine(),
            "rows": rows_as_json(rows),
        },
        RESULTS,
    )


def launches(surroundings: World, url: str) -> Iterator[Launch]:
    """The service without traces, with all of them, and with a hundredth."""
    launch = service(surroundings, name="off")
    yield launch
    traced = {**launch.environment, "OTEL_EXPORTER_OTLP_ENDPOINT": url}
    yield replace(launch, name="on", environment=traced)
    sampler = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"}
    yield replace(launch, name="hundredth", environment={**traced, **sampler})


@contextlib.contextmanager
def collector() -> Iterator[str]:
    """A collector that reads and forgets."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Forgetful) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class _Forgetful(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    main()
