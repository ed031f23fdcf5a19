"""The log as Elastic, Google Cloud, OpenTelemetry and Datadog take it: every line of a mixed load, by their names."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema_rs
import orjson
import pytest

from server.settings import ROOT
from server.telemetry.logs.lines import JsonLines
from server.telemetry.logs.shapes import Shape, reshaping
from tests.telemetry.logs.service_log import TRACE

PAGE = ROOT / "docs" / "logging.md"
# The field sets of ECS 8.11: what is called like one of them must be one.
# https://www.elastic.co/guide/en/ecs/8.11/ecs-field-reference.html
ECS_OBJECTS = {
    "agent", "as", "client", "cloud", "code_signature", "container", "data_stream", "destination", "device",
    "dll", "dns", "ecs", "elf", "email", "error", "event", "faas", "file", "geo", "group", "hash", "host", "http",
    "interface", "labels", "log", "macho", "network", "observer", "orchestrator", "organization", "os", "package",
    "pe", "process", "registry", "related", "risk", "rule", "server", "service", "source", "span", "threat",
    "tls", "trace", "transaction", "url", "user", "user_agent", "vlan", "volume", "vulnerability", "x509",
}  # fmt: skip

EVENT = {"otel": "body"}  # where a line has its event, if not in `message`

pytestmark = pytest.mark.timeout(300)  # the service is started, vexed and stopped before the first test


def schema(shape: str) -> dict[str, Any]:
    """What a line of a format looks like."""
    found: dict[str, Any] = json.loads((ROOT / "config" / f"log-schema-{shape}.json").read_text())
    return found


@pytest.fixture(params=["ecs", "gcp", "otel", "datadog"])
def shaped(request: pytest.FixtureRequest, said: tuple[bytes, set[str]]) -> tuple[str, list[dict[str, Any]]]:
    """A format, and all that two workers have logged, over much trouble, with that format's names."""
    shape: Shape = request.param
    reshape = reshaping(shape)
    assert reshape is not None
    return shape, [reshape(orjson.loads(line)) for line in said[0].splitlines()]


def test_every_line_keeps_to_the_pipelines_schema(shaped: tuple[str, list[dict[str, Any]]]) -> None:
    """Whoever speaks, whatever happens: the pipeline's names, with the types that it has for them."""
    shape, lines = shaped
    validator = jsonschema_rs.Draft202012Validator(schema(shape), validate_formats=True)
    for line in lines:
        problems = [f"{error.instance_path}: {error.message}" for error in validator.iter_errors(line)]
        assert [] == problems, line
    events = [line[EVENT.get(shape, "message")] for line in lines]
    assert events.count("http.request") > 100
    assert len(set(events)) > 20


def test_a_trace_is_linked(shaped: tuple[str, list[dict[str, Any]]]) -> None:
    """The pipeline finds the trace of a request where it looks for it."""
    shape, lines = shaped
    name = {
        "ecs": "trace.id",
        "gcp": "logging.googleapis.com/trace",
        "otel": "trace_id",
        "datadog": "dd.trace_id",
    }[shape]
    found = [line[EVENT.get(shape, "message")] for line in lines if line.get(name) == TRACE]
    assert "http.request" in found


def rendered(method: str, shape: Shape, **event: Any) -> dict[str, Any]:
    """An event's line in a format, read back."""
    line: dict[str, Any] = orjson.loads(
        JsonLines(shape, service="s", env="e", version="1")(None, method, event)
    )
    return line


def test_ecs_names() -> None:
    """Elastic Common Schema has names of its own."""
    line = rendered(
        "warning", "ecs", event="x", trace_id="t", exc_info=ValueError("v"), **{"http.status": 200}
    )
    assert ["@timestamp", "log.level", "message", "log.logger", "service.name"] == list(line)[:5]
    assert ("t", 200) == (line["trace.id"], line["http.response.status_code"])
    assert {"error.type", "error.message", "error.stack_trace"} <= set(line)


def test_pipelines_have_units_of_their_own() -> None:
    """ECS wants nanoseconds, Google a text in seconds, and 64 bits as a text."""
    request = {"http.method": "GET", "http.status": 200, "duration_ms": 12.35, "response_bytes": 5}
    ecs = rendered("info", "ecs", event="http.request", **request)
    assert (12_350_000, False) == (ecs["event.duration"], "mastery.duration_ms" in ecs)
    gcp = rendered("info", "gcp", event="http.request", **request)
    assert {
        "requestMethod": "GET",
        "status": 200,
        "responseSize": "5",
        "latency": "0.012350s",
    } == gcp["httpRequest"]
    assert 12.35 == gcp["duration_ms"]


def test_gcp_names() -> None:
    """Google Cloud Logging reads `severity`, in capitals, and `time`."""
    line = rendered("warn", "gcp", event="x", exc_info=ValueError("v"))
    assert "WARNING" == line["severity"]
    assert {"time", "stack_trace"} <= set(line)


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
    assert {f"mastery.{name}" for name in ECS_OBJECTS - {"error", "event", "service", "user_agent"}} <= set(
        line
    )


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


def test_an_unknown_method_has_the_name_that_the_conventions_give_it() -> None:
    """OpenTelemetry wants a bounded set of methods; what the client wrote stands beside it."""
    render = JsonLines("otel", service="mastery", env="test", version="1")
    line = orjson.loads(render(None, "info", {"event": "x", "http.method": "BREW"}))
    assert ("_OTHER", "BREW") == (line["http.request.method"], line["http.request.method_original"])
    line = orjson.loads(render(None, "info", {"event": "x", "http.method": "GET"}))
    assert ("GET", False) == (line["http.request.method"], "http.request.method_original" in line)


@pytest.mark.parametrize(
    ("method", "severity"),
    [
        ("debug", ("DEBUG", 5)),
        ("warning", ("WARN", 13)),
        ("exception", ("ERROR", 17)),
        ("critical", ("FATAL", 21)),
    ],
)
def test_a_level_is_a_severity_of_opentelemetry(method: str, severity: tuple[str, int]) -> None:
    """By its short name and by the first number of its range."""
    line = orjson.loads(JsonLines("otel", service="m", env="t", version="1")(None, method, {"event": "x"}))
    assert severity == (line["severity_text"], line["severity_number"])


def test_what_datadog_takes_for_its_own_is_only_ours_to_give() -> None:
    """The source of a decision is not the line's source, and an event names neither the host nor the level."""
    render = JsonLines("datadog", service="mastery", env="test", version="1")
    forged = {
        "event": "x",
        "source": "memory",
        "host": "h",
        "status": "up",
        "ddtags": "env:x",
        "dd.trace_id": "1",
    }
    line = orjson.loads(render(None, "warning", forged))
    assert ("warning", "python", "env:test,version:1") == (line["status"], line["ddsource"], line["ddtags"])
    assert ("memory", "h", "up", "env:x", "1") == (
        line["source_"], line["host_"], line["status_"], line["ddtags_"], line["dd.trace_id_"],
    )  # fmt: skip
    assert not {"source", "host", "dd.trace_id"} & set(line)


@pytest.mark.parametrize("shape", ["ecs", "gcp", "otel", "datadog"])
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
        ("otel", {"level": "info"}),
        ("otel", {"http.response.status_code": "200"}),
        ("otel", {"http.request.method": "BREW"}),
        ("otel", {"http.method": "GET"}),
        ("datadog", {"source": "memory"}),
        ("datadog", {"duration": 0.5}),
        ("datadog", {"trace_id": TRACE}),
        ("gcp", {"level": "info"}),
    ],
)
def test_the_schema_refuses(shape: Any, wrong: dict[str, Any]) -> None:
    """A schema that takes anything proves nothing: each of these is found."""
    render = JsonLines(shape, service="mastery", env="test", version="1")
    fields = {
        "request_id": "r", "trace_id": TRACE, "http.method": "GET", "http.route": "/", "http.status": 200,
        "http.version": "1.1", "user_agent": "curl/8", "duration_ms": 1.5, "client_ip": "::1", "response_bytes": 3,
        "rate_limit": "allowed",
    }  # fmt: skip
    line = orjson.loads(render.render_known("server.access", "info", "http.request", fields))
    validator = jsonschema_rs.Draft202012Validator(schema(shape), validate_formats=True)
    validator.validate(line)
    assert not validator.is_valid(line | wrong)
