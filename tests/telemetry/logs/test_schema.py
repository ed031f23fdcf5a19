"""What the real service writes, every line of it: it keeps to config/log-schema.json and gives no secret away."""

from __future__ import annotations

import base64
import json
from collections import Counter
from typing import Any
from urllib.parse import quote

import jsonschema_rs
import orjson
import pytest

from server.settings import ROOT
from server.telemetry.logs.lines import MAX_LINE_BYTES, JsonLines

SCHEMA = json.loads((ROOT / "config" / "log-schema.json").read_text())
PAGE = ROOT / "docs" / "logging.md"
LINE = {
    "timestamp": "2026-11-23T01:55:01.282Z", "level": "info", "message": "http.request", "logger": "server.access",
    "service": "mastery", "env": "production", "version": "0.1.0", "instance": "web.1", "pid": 7,
    "request_id": "req_1", "trace_id": "0" * 31 + "1", "http.method": "GET", "http.route": "/api/classes",
    "http.status": 200, "http.version": "1.1", "duration_ms": 12.35,
    "client_ip": "::1", "response_bytes": 0, "rate_limit": "allowed",
}  # fmt: skip

pytestmark = pytest.mark.timeout(300)  # the service is started, vexed and stopped before the first test


@pytest.fixture(scope="module")
def validator() -> jsonschema_rs.Draft202012Validator:
    """Checks lines against the schema, formats included."""
    return jsonschema_rs.Draft202012Validator(SCHEMA, validate_formats=True)


def test_every_line_keeps_to_the_schema(
    said: tuple[bytes, set[str]], validator: jsonschema_rs.Draft202012Validator
) -> None:
    """Whoever speaks, whatever happens: one object of the documented shape a line, below the platforms' limit."""
    output, _ = said
    lines = output.splitlines(keepends=True)
    for line in lines:
        assert line.endswith(b"\n")
        assert len(line) <= MAX_LINE_BYTES
        problems = [
            f"{error.instance_path}: {error.message}" for error in validator.iter_errors(orjson.loads(line))
        ]
        assert [] == problems, line


def test_the_load_was_as_mixed_as_it_should_be(said: tuple[bytes, set[str]]) -> None:
    """The lines tell of every kind of answer and event, of our own and of the web server's."""
    lines = [orjson.loads(line) for line in said[0].splitlines()]
    requests = [line for line in lines if line["message"] == "http.request"]
    assert {200, 201, 204, 400, 401, 403, 404, 405, 409, 429} <= {line["http.status"] for line in requests}
    assert {"allowed", "denied", "unlimited"} == {line["rate_limit"] for line in requests}
    assert len({line["pid"] for line in lines}) == 4  # the master and two workers, of which one is replaced
    assert all(line["pid"] != lines[0]["pid"] for line in requests)
    assert len({line["instance"] for line in lines}) == 1
    assert any("Mozilla" in line["user_agent"] for line in requests if "user_agent" in line)
    assert {"gunicorn.error", "server.access", "server.app", "asyncio"} <= {line["logger"] for line in lines}
    seen = Counter(line["message"] for line in lines)
    assert {
        "audit.class_created", "audit.class_updated", "audit.class_deleted", "rate_limit.denied",
        "redis.connection_lost", "redis.connected", "service.started", "service.stopped",
    } <= set(seen)  # fmt: skip
    parts = {frozenset({"db_count", "cache_count", "limit_count"} & set(line)) for line in requests}
    assert len(parts) >= 4
    assert max(line.get("db_count", 0) for line in requests) > 1


def test_no_secret_is_said(said: tuple[bytes, set[str]]) -> None:
    """No password, token or DSN is anywhere in the output, as it is or encoded as URLs, JSON and Basic do."""
    output, secrets = said
    assert len(secrets) > 10
    for secret in secrets:
        raw = secret.encode()
        forms = {raw, quote(secret).encode(), json.dumps(secret)[1:-1].encode(), base64.b64encode(raw)}
        assert not [form for form in forms if form in output], secret
        # A token without its signature still says who and until when.
        assert secret.rpartition(".")[0].encode() not in output or "." not in secret, secret


def test_deploy_17_nobody_is_named(said: tuple[bytes, set[str]]) -> None:
    """No e-mail address and no path with its ids is in the output: the page says so."""
    output, _ = said
    for personal in (b"example.com", b"/api/admin/classes/0", b"rate-limits/nobody"):
        assert personal not in output, personal


@pytest.mark.parametrize(
    "wrong",
    [
        {"timestamp": "2026-11-23T01:55:01Z"}, {"timestamp": "2026-13-23T01:55:01.282Z"}, {"level": "INFO"},
        {"logger": ""}, {"service": "other"}, {"error": "text"}, {"message": "Something happened"},
        {"http.route": "/api/classes?token=x"}, {"http.status": "200"}, {"http.status": 500}, {"duration_ms": -1},
        {"db_ms": 1.0}, {"db_count": 1}, {"db_ms": 1.0, "db_count": 0}, {"client_ip": "localhost"},
        {"rate_limit": "maybe"}, {"error_code": "Not Found"}, {"path": "/api/classes/1"}, {"user_id": "somebody"},
        {"error.stack": "Traceback"}, {"log.truncated": False}, {"env": None}, {"trace_id": "req_1"}, {"pid": "7"},
        {"http.version": "HTTP/1.1"}, {"user_agent": "a\x1b[31m"}, {"user_agent": "a" * 201}, {"instance": ""},
    ],
)  # fmt: skip
def test_the_schema_refuses(wrong: dict[str, Any], validator: jsonschema_rs.Draft202012Validator) -> None:
    """A schema that takes anything proves nothing: each of these is found."""
    assert validator.is_valid(LINE)
    assert not validator.is_valid(LINE | wrong)


@pytest.mark.parametrize("field", sorted(LINE))
def test_the_schema_misses(field: str, validator: jsonschema_rs.Draft202012Validator) -> None:
    """Each field of a request's line is required."""
    assert not validator.is_valid({name: value for name, value in LINE.items() if name != field})


def test_an_audit_event_names_the_admin(validator: jsonschema_rs.Draft202012Validator) -> None:
    """Who has done it is required of an audit event."""
    event = {name: LINE[name] for name in SCHEMA["required"]} | {
        "logger": "server.api.admin", "message": "audit.rate_limits_reset", "request_id": "r",
        "trace_id": LINE["trace_id"], "user_id": "00000000-0000-4000-8000-000000000002",
    }  # fmt: skip
    assert validator.is_valid(event | {"admin_id": event["user_id"]})
    assert not validator.is_valid(event)


def test_deploy_05_an_audit_event_of_an_account_needs_no_admin(
    validator: jsonschema_rs.Draft202012Validator,
) -> None:
    """A command has no admin and no request, but says what it changed; without either the line is not valid."""
    event = {name: LINE[name] for name in SCHEMA["required"]} | {
        "logger": "server.cli.users", "message": "audit.user_created", "source": "command line",
    }  # fmt: skip
    assert validator.is_valid(event | {"account_id": "00000000-0000-4000-8000-000000000002"})
    assert not validator.is_valid(event)


def test_the_schema_takes_any_event(validator: jsonschema_rs.Draft202012Validator) -> None:
    """An event's own values are free, also those that are named like ours or had to be cut."""
    render = JsonLines("json", service="mastery", env="test", version="1")
    event = {
        "event": "service.started",
        "level": 5,
        "error": "refused",
        "value": "é" * 9999,
        "deep": {"a": [{}]},
        "": None,
    }
    assert validator.is_valid(orjson.loads(render(None, "warning", event)))
    assert validator.is_valid(
        orjson.loads(render(None, "error", {"event": "http.failed", "exc_info": ValueError("x")}))
    )


def test_the_page_and_the_schema_name_the_same_fields() -> None:
    """docs/logging.md names every field of the schema, and its example is valid."""
    text = PAGE.read_text()
    fields = {*SCHEMA["properties"], *SCHEMA["$defs"]["request-line"]["properties"]} - {"log.failure"}
    assert set() == {field for field in fields if f"`{field}`" not in text}
    example = text.partition("```json\n")[2].partition("\n```")[0]
    jsonschema_rs.validate(SCHEMA, json.loads(example))
