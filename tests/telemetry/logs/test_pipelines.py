"""The log as Elastic and Google Cloud take it: every line of a mixed load, by their names and types."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema_rs
import orjson
import pytest

from server.development import EmbeddedServer
from server.settings import ROOT
from server.telemetry.logs.lines import JsonLines
from tests.support.service import running_service
from tests.telemetry.logs.service_log import Troubled, collected_output

PAGE = ROOT / "docs" / "logging.md"
TRACE = "0af7651916cd43dd8448eb211c80319c"
# The field sets of ECS 8.11: what is called like one of them must be one.
# https://www.elastic.co/guide/en/ecs/8.11/ecs-field-reference.html
ECS_OBJECTS = {
    "agent", "as", "client", "cloud", "code_signature", "container", "data_stream", "destination", "device",
    "dll", "dns", "ecs", "elf", "email", "error", "event", "faas", "file", "geo", "group", "hash", "host", "http",
    "interface", "labels", "log", "macho", "network", "observer", "orchestrator", "organization", "os", "package",
    "pe", "process", "registry", "related", "risk", "rule", "server", "service", "source", "span", "threat",
    "tls", "trace", "transaction", "url", "user", "user_agent", "vlan", "volume", "vulnerability", "x509",
}  # fmt: skip

pytestmark = pytest.mark.timeout(300)  # the service is started, vexed and stopped before the first test


def schema(shape: str) -> dict[str, Any]:
    """What a line of a format looks like."""
    found: dict[str, Any] = json.loads((ROOT / "config" / f"log-schema-{shape}.json").read_text())
    return found


@pytest.fixture(scope="module", params=["ecs", "gcp"])
def said(
    request: pytest.FixtureRequest,
    shared_postgres: EmbeddedServer,
    shared_redis: EmbeddedServer,
    database_template: str,
) -> tuple[str, list[dict[str, Any]]]:
    """A format, and all that two workers have said in it, from their start over much trouble to their end."""
    shape: str = request.param
    with (
        collected_output() as (pipe, output),
        running_service(
            shared_postgres, shared_redis, database_template, output=pipe, LOG_FORMAT=shape, LOG_LEVEL="debug"
        ) as service,
    ):
        Troubled(service).run()
        service.request("GET", "/livez", traceparent=f"00-{TRACE}-{1:016x}-01")
    return shape, [orjson.loads(line) for line in bytes(output).splitlines()]


def test_every_line_keeps_to_the_pipelines_schema(said: tuple[str, list[dict[str, Any]]]) -> None:
    """Whoever speaks, whatever happens: the pipeline's names, with the types that it has for them."""
    shape, lines = said
    validator = jsonschema_rs.Draft202012Validator(schema(shape), validate_formats=True)
    for line in lines:
        problems = [f"{error.instance_path}: {error.message}" for error in validator.iter_errors(line)]
        assert [] == problems, line
    requests = [line for line in lines if line["message"] == "http.request"]
    assert len(requests) > 100
    assert len({line["message"] for line in lines}) > 20


def test_a_trace_is_linked(said: tuple[str, list[dict[str, Any]]]) -> None:
    """The pipeline finds the trace of a request where it looks for it."""
    shape, lines = said
    name = {"ecs": "trace.id", "gcp": "logging.googleapis.com/trace"}[shape]
    assert "http.request" in [line["message"] for line in lines if line.get(name) == TRACE]


def test_a_gcp_trace_names_the_project_if_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """With GOOGLE_CLOUD_PROJECT the trace is a link that the log viewer follows; an id of another form is none."""
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "cards")
    render = JsonLines("gcp", service="mastery", env="test", version="1")
    line = orjson.loads(render(None, "info", {"event": "x", "trace_id": TRACE}))
    assert f"projects/cards/traces/{TRACE}" == line["logging.googleapis.com/trace"]
    line = orjson.loads(render(None, "info", {"event": "x", "trace_id": "req_1"}))
    assert ("req_1", False) == (line["trace_id"], "logging.googleapis.com/trace" in line)


def test_an_ecs_field_is_no_text_where_ecs_has_an_object() -> None:
    """A value of ours that is named like a field set of ECS, which an index would refuse, goes below our own name."""
    render = JsonLines("ecs", service="mastery", env="test", version="1")
    line = orjson.loads(
        render(None, "info", {"event": "x", **dict.fromkeys(ECS_OBJECTS - {"event"}, "text")})
    )
    assert set() == ECS_OBJECTS & set(line)
    assert {f"mastery.{name}" for name in ECS_OBJECTS - {"error", "event", "service"}} <= set(line)


def test_what_a_gcp_agent_takes_away_is_only_ours_to_give() -> None:
    """An event's own value does not pass for a special field, such as the severity."""
    render = JsonLines("gcp", service="mastery", env="test", version="1")
    forged = {
        "severity": "DEBUG",
        "time": "then",
        "httpRequest": {},
        "logging.googleapis.com/trace": "x",
        "event": "x",
    }
    line = orjson.loads(render(None, "error", forged))
    assert ("ERROR", "x", False, False) == (
        line["severity"], line["message"], "httpRequest" in line, "logging.googleapis.com/trace" in line,
    )  # fmt: skip
    assert ("DEBUG", "then") == (line["severity_"], line["time_"])


@pytest.mark.parametrize("shape", ["ecs", "gcp"])
def test_the_page_names_the_pipelines_fields(shape: str) -> None:
    """docs/logging.md says how each field is called."""
    named = set(re.findall(r"`([^`\s]+)`", PAGE.read_text()))
    fields = {name for name, about in schema(shape)["properties"].items() if about}
    fields |= set(schema(shape)["properties"].get("httpRequest", {}).get("properties", {}))
    assert set() == fields - named


@pytest.mark.parametrize(
    ("shape", "wrong"),
    [
        ("ecs", {"server": "localhost:6379"}),
        ("ecs", {"http.response.status_code": "200"}),
        ("ecs", {"event.duration": 0.5}),
        ("ecs", {"ecs.version": None}),
        ("gcp", {"severity": "info"}),
        ("gcp", {"httpRequest": {"status": 200}}),
        ("gcp", {"trace_id": TRACE}),
        ("gcp", {"level": "info"}),
    ],
)
def test_the_schema_refuses(shape: Any, wrong: dict[str, Any]) -> None:
    """A schema that takes anything proves nothing: each of these is found."""
    render = JsonLines(shape, service="mastery", env="test", version="1")
    fields = {
        "request_id": "r", "trace_id": TRACE, "http.method": "GET", "http.route": "/", "http.status": 200,
        "duration_ms": 1.5, "client_ip": "::1", "response_bytes": 3, "rate_limit": "allowed",
    }  # fmt: skip
    line = orjson.loads(render.render_known("server.access", "info", "http.request", fields))
    validator = jsonschema_rs.Draft202012Validator(schema(shape), validate_formats=True)
    validator.validate(line)
    assert not validator.is_valid(line | wrong)
