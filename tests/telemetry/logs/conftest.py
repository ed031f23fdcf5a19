"""Some of what is logged, only the whole service says."""

from __future__ import annotations

import pytest

from server.development import EmbeddedServer
from tests.api.conftest import redis_url, settings, start_api
from tests.support.service import running_service
from tests.telemetry.logs.service_log import METRICS_TOKEN, TRACE, Troubled, collected_output

__all__ = ["redis_url", "settings", "start_api"]


@pytest.fixture(scope="session")
def said(
    shared_postgres: EmbeddedServer, shared_redis: EmbeddedServer, database_template: str
) -> tuple[bytes, set[str]]:
    """The whole output of two workers, from their start over much trouble to their end; the secrets in use."""
    variables = {"LOG_LEVEL": "debug", "METRICS_TOKEN": METRICS_TOKEN}
    with collected_output() as (pipe, output):
        with running_service(
            shared_postgres, shared_redis, database_template, output=pipe, **variables
        ) as service:
            load = Troubled(service)
            load.run()
            service.request("GET", "/livez", traceparent=f"00-{TRACE}-{1:016x}-01")
        secrets = load.secrets
    return bytes(output), secrets
