"""What a worker uses, and which build of the service it is, by the names that dashboards expect."""

from __future__ import annotations

import os
import platform
import re
import signal
import socket
from pathlib import Path

import pytest
from aiohttp import web
from pytest_aiohttp.plugin import AiohttpClient

from server import __version__
from server.middleware.metrics import metrics_middleware
from server.telemetry.metrics.index import Metrics
from tests.support.waiting import eventually
from tests.telemetry.logs.test_gunicorn import running


def value(text: str, pattern: str) -> float:
    """The value of the one line that a pattern matches."""
    (found,) = re.findall(rf"^{pattern} (\S+)$", text, re.MULTILINE)
    return float(found)


def text_of(metrics: Metrics) -> str:
    """The exposition."""
    return metrics.render_text("")[0].decode()


def test_deploy_12_open_files_are_counted() -> None:
    """A connection is one descriptor more, under the limit that the system sets."""
    metrics = Metrics()
    before = value(text_of(metrics), "process_open_fds")
    with socket.socket():
        assert before + 1 == value(text_of(metrics), "process_open_fds")
    assert value(text_of(metrics), "process_max_fds") > before


def test_deploy_12_processor_time_grows_with_what_is_computed() -> None:
    """It is a counter in seconds, of this process alone where there is no other."""
    metrics = Metrics()
    before = value(text_of(metrics), "process_cpu_seconds_total")
    used = sum(os.times()[:2])
    while sum(os.times()[:2]) < used + 0.1:
        pass
    after = value(text_of(metrics), "process_cpu_seconds_total")
    assert before + 0.05 <= after <= sum(os.times()[:2]) + 0.1


def test_deploy_12_python_and_the_build_are_named() -> None:
    """Both are 1, with what they say in their labels."""
    text = text_of(Metrics())
    assert 1.0 == value(text, rf'mastery_build_info\{{version="{re.escape(__version__)}"\}}')
    assert 1.0 == value(text, rf'python_info\{{.*version="{re.escape(platform.python_version())}"\}}')


async def test_deploy_12_labels_that_are_always_the_same_are_gone(aiohttp_client: AiohttpClient) -> None:
    """Requests are counted by method, route and status; scheme and address say nothing here."""

    async def fail(_request: web.Request) -> web.Response:
        raise web.HTTPGone

    metrics = Metrics()
    app = web.Application(middlewares=[metrics_middleware(metrics)])
    app.router.add_get("/gone", fail)
    client = await aiohttp_client(app)
    await client.get("/gone")
    text = text_of(metrics)
    assert 1.0 == value(text, r'http_requests_total\{method="GET",path_template="/gone"\}')
    assert 1.0 == value(text, r'http_responses_total\{method="GET",path_template="/gone",status_code="410"\}')
    assert "remote" not in text
    assert "scheme" not in text


@pytest.mark.parametrize("directory", ["metrics"])
def test_deploy_12_workers_are_told_apart_where_it_helps(tmp_path: Path, directory: str) -> None:
    """Open files are by worker, processor time adds up and stays when a worker is replaced."""
    with running(tmp_path, PROMETHEUS_MULTIPROC_DIR=str(tmp_path / directory)) as server:
        # A worker that is busy for a moment may answer none of the requests.
        workers: set[str] = set()

        def have_answered() -> bool:
            workers.update(server.workers())
            return len(workers) == 2

        eventually(have_answered, "an answer of each worker")
        pids = set(re.findall(r'^process_open_fds\{pid="(\d+)"\}', server.get("/metrics")[1], re.MULTILINE))
        assert workers == pids
        assert 1.0 == server.sample(rf'mastery_build_info\{{version="{re.escape(__version__)}"\}}')
        before = server.sample("process_cpu_seconds_total")
        os.kill(int(workers.pop()), signal.SIGKILL)
        eventually(lambda: len(server.workers()) == 2, "another worker")
        assert before <= server.sample("process_cpu_seconds_total")
