"""A real Prometheus that scrapes the service as config/prometheus/ says, only more often."""

from __future__ import annotations

import http.client
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from server.development import free_port
from server.development.processes import child_process, wait_until_ready
from server.settings import ROOT
from tests.support.service import Service
from tests.support.waiting import eventually

CONFIGURATION = ROOT / "config" / "prometheus"
_HOST = "127.0.0.1"


@dataclass(frozen=True)
class Prometheus:
    """Where it answers."""

    port: int

    def get(self, path: str, **parameters: str) -> tuple[int, bytes]:
        """The status and the body of an answer."""
        connection = http.client.HTTPConnection(_HOST, self.port, timeout=30)
        with closing(connection):
            connection.request("GET", f"{path}?{urlencode(parameters)}")
            answer = connection.getresponse()
            return answer.status, answer.read()

    def is_ready(self) -> bool:
        """Whether it answers questions."""
        try:
            return self.get("/-/ready")[0] == 200
        except OSError:
            return False

    def data(self, path: str, **parameters: str) -> Any:
        """What an endpoint of the HTTP API answers; fails with its error message."""
        status, body = self.get(f"/api/v1/{path}", **parameters)
        answer = json.loads(body)
        assert status == 200, answer["error"]
        return answer["data"]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """The labels and values of an instant query."""
        result = self.data("query", query=expression)["result"]
        return [(series["metric"], float(series["value"][1])) for series in result]

    def value(self, expression: str) -> float:
        """The value of a query that has exactly one."""
        ((_, value),) = self.query(expression)
        return value

    def wait_for_scrape(self) -> None:
        """Return when it has scraped, and evaluated its rules, later than now."""
        for series in ('up{job="mastery"}', "mastery:cache_reads:increase5m"):
            now = time.time()
            eventually(partial(self._is_past, now, series), f"{series} goes on")

    def _is_past(self, instant: float, series: str) -> bool:
        return any(at > instant for _, at in self.query(f"timestamp({series})"))


@contextmanager
def running_prometheus(folder: Path, service: Service, token: str) -> Iterator[Prometheus]:
    """Start it with the project's own files; what differs for a test is replaced in the example's text.

    Args:
        folder: takes its configuration and its data.
        service: what it scrapes.
        token: the service's METRICS_TOKEN.
    """
    shutil.copytree(CONFIGURATION, folder / "configuration")
    configuration = folder / "configuration" / "prometheus.yml"
    text = configuration.read_text()
    for written, here in {
        "scrape_interval: 15s": "scrape_interval: 1s",
        "evaluation_interval: 15s": "evaluation_interval: 1s",
        "localhost:8000": f"{_HOST}:{service.port}",
        "# authorization:": "authorization:",
        "#   credentials_file:": "  credentials_file:",
    }.items():
        assert written in text
        text = text.replace(written, here)
    configuration.write_text(text)
    (folder / "configuration" / "metrics-token").write_text(f"{token}\n")
    prometheus = Prometheus(free_port())
    command = [
        "prometheus",
        f"--config.file={configuration}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={_HOST}:{prometheus.port}",
        "--enable-feature=exemplar-storage",
    ]
    with (folder / "log").open("wb") as log, child_process(command, output=log) as process:
        assert wait_until_ready(process, prometheus.is_ready, seconds=60), (folder / "log").read_text()
        yield prometheus
