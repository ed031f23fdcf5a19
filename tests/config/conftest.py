"""The service as its operators have it: two workers behind a metrics token, and a Prometheus that scrapes them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from server.development import EmbeddedServer
from tests.config.prometheus_server import Prometheus, running_prometheus
from tests.support.programs import for_want_of, needs
from tests.support.service import Service, running_service

METRICS_TOKEN = "a token for scrapers"

needs_prometheus = needs("prometheus")


@pytest.fixture(scope="module")
def service(
    shared_postgres: EmbeddedServer, shared_redis: EmbeddedServer, database_template: str
) -> Iterator[Service]:
    """The module's service, which needs METRICS_TOKEN for its metrics."""
    with running_service(
        shared_postgres, shared_redis, database_template, METRICS_TOKEN=METRICS_TOKEN
    ) as service:
        yield service


@pytest.fixture(scope="module")
def prometheus(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """The module's Prometheus, which has scraped the service."""
    if shutil.which("prometheus") is None:
        pytest.skip(for_want_of("prometheus"))
    with running_prometheus(tmp_path_factory.mktemp("prometheus"), service, METRICS_TOKEN) as prometheus:
        prometheus.wait_for_scrape()
        yield prometheus
