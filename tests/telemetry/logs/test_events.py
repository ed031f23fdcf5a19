"""Every event that the code can log is on a page and in the schema, with its level and its fields; and no other is."""

from __future__ import annotations

import json
import re

import pytest

from server.settings import ROOT
from tests.telemetry.logs.events import OPEN, Event, logged_events

PAGE = ROOT / "docs" / "log-events.md"
SCHEMA = json.loads((ROOT / "config" / "log-schema.json").read_text())["$defs"]
ROW = re.compile(
    r"^\| `(?P<name>[a-z_.]+)` \| (?P<levels>[a-z, ]+) \| (?P<fields>.*?) \| (?P<text>.+) \|$", re.MULTILINE
)
# What the logging itself makes, and no call names: see `JsonLines` and `configure_logging`.
OF_THE_LOGGING = {"log.lines_dropped", "log.unrepresentable_event"}
COMMON = {"request_id", "trace_id", "user_id"}


def described() -> dict[str, Event]:
    """The events of the page."""
    return {
        row["name"]: Event(set(row["levels"].split(", ")), set(re.findall(r"`([^`]+)`", row["fields"])))
        for row in ROW.finditer(PAGE.read_text())
    }


def test_the_code_the_page_and_the_schema_have_the_same_events() -> None:
    """In each direction: what can be logged is described, and what is described can be logged."""
    code = set(logged_events()) | OF_THE_LOGGING
    assert code == set(described())
    assert code == set(SCHEMA["events"]) == set(SCHEMA["own-event"]["properties"]["message"]["enum"])
    assert len(code) > 80


@pytest.mark.parametrize("name", sorted(set(described()) - OF_THE_LOGGING))
def test_an_event_has_the_level_and_the_fields_of_the_page_and_the_schema(name: str) -> None:
    """A changed level or field of an event changes both; fields that only a run shows may be on the page."""
    event, page = logged_events()[name], described()[name]
    schema = dict(SCHEMA["events"][name]["properties"])
    level = schema.pop("level")
    assert event.levels == page.levels == set(level.get("enum", [level.get("const")]))
    assert page.fields == set(schema)
    own = event.fields - COMMON - {OPEN}
    assert own <= page.fields
    assert OPEN in event.fields or own == page.fields


def test_a_new_event_is_found() -> None:
    """The search sees every way in which the code logs: calls, later calls, choices of a level, helpers, tasks."""
    found = logged_events()
    assert {"redis.connected", "audit.rate_limits_reset", "audit.card_created", "audit.user_deleted"} - set(
        found
    ) == {"audit.card_created"}
    assert {"info", "error"} == found["http.request"].levels
    assert {"info", "warning"} == found["database.notice"].levels
    assert {"task", "error.message"} == found["task.failed"].fields
