"""From a slow bucket to a trace: exemplars in a real Prometheus, over two workers."""

from __future__ import annotations

import time
from pathlib import Path

from server.development import EmbeddedServer, free_port
from tests.config.conftest import METRICS_TOKEN, needs_prometheus
from tests.config.prometheus_server import running_prometheus
from tests.support.service import running_service
from tests.support.waiting import eventually


@needs_prometheus
def test_prometheus_keeps_the_traces_of_requests(
    shared_postgres: EmbeddedServer, own_redis: EmbeddedServer, database_template: str, tmp_path: Path
) -> None:
    """The trace of a request is found at the histogram of its route, and no other trace."""
    collector = f"http://127.0.0.1:{free_port()}"  # nobody is there: exemplars do not need it
    began = time.time()
    with (
        running_service(
            shared_postgres,
            own_redis,
            database_template,
            METRICS_TOKEN=METRICS_TOKEN,
            OTEL_EXPORTER_OTLP_ENDPOINT=collector,
        ) as service,
        running_prometheus(tmp_path, service, METRICS_TOKEN) as prometheus,
    ):
        sent: set[str] = set()

        def is_there() -> bool:
            trace = f"{len(sent) + 1:032x}"
            sent.add(trace)
            status, _ = service.request("GET", "/livez", traceparent=f"00-{trace}-{1:016x}-01")
            assert status == 200
            return bool(found())

        def found() -> set[str]:
            query = 'http_request_duration_seconds_bucket{path_template="/livez"}'
            answer = prometheus.data(
                "query_exemplars", query=query, start=str(began), end=str(time.time() + 1)
            )
            return {exemplar["labels"]["trace_id"] for series in answer for exemplar in series["exemplars"]}

        eventually(is_there, "an exemplar")
        assert found() <= sent
