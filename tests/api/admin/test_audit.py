"""What administrators do leaves a line in the log each time; and how often they may do it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from structlog.testing import capture_logs

from server.api.routes import ROUTES
from server.settings import ROOT, Settings
from tests.api.admin.test_crud import CLASSES, Kind, create, every_kind, patch
from tests.api.conftest import Api, Course, StartApi

SHIPPED_LIMITS = ROOT / "config" / "ratelimits.toml"


def audits(lines: list[Any]) -> list[dict[str, Any]]:
    """The audit events among log lines."""
    return [
        {key: value for key, value in line.items() if key != "log_level"}
        for line in lines
        if line["event"].startswith("audit.")
    ]


@every_kind
async def test_each_write_is_an_audit_event(api: Api, course: Course, kind: Kind) -> None:
    """One line a write, with who did it to what, and the names of the changed fields; no text of the course."""
    with capture_logs() as lines:
        made = await create(api, kind, course)
        path = f"{kind.path}/{made['id']}"
        await patch(api, path, order=3, isPublished=True, **kind.minimal)
        await patch(api, path, order=3)
        await api.get(path, by="admin")
        await api.delete(path, by="admin")

    subject = {"admin_id": str(api.people["admin"].user_id), f"{kind.name}_id": made["id"]}
    assert [
        {"event": f"audit.{kind.name}_created", **subject},
        {"event": f"audit.{kind.name}_updated", **subject, "changed": ["sort_order"]},
        {"event": f"audit.{kind.name}_updated", **subject, "changed": []},
        {"event": f"audit.{kind.name}_deleted", **subject},
    ] == audits(lines)
    assert not [line for line in lines if any(text in str(line) for text in kind.minimal.values())]


async def test_an_import_is_an_audit_event(api: Api, course: Course) -> None:
    """With how many cards it made, changed and found."""
    deck_id = str(course.decks["Law"])
    with capture_logs() as lines:
        await api.post(
            f"/api/admin/decks/{deck_id}/import",
            by="admin",
            data=b"question l1,secret text\nnew,card\n",
            headers={"Content-Type": "text/csv"},
        )

    expected = {
        "event": "audit.deck_imported", "admin_id": str(api.people["admin"].user_id), "deck_id": deck_id,
        "created": 1, "updated": 1, "unchanged": 0,
    }  # fmt: skip
    assert [expected] == audits(lines)
    assert "secret text" not in str(lines)


async def test_refused_writes_are_no_audit_events(api: Api, course: Course) -> None:
    """What did not happen is not in the audit."""
    with capture_logs() as lines:
        await api.post("/api/admin/classes", by="admin", json={"name": ""})
        await api.post("/api/admin/classes", by="user", json={"name": "mine"})
        await api.delete(f"/api/admin/decks/{course.classes['Risk']}", by="admin")

    assert [] == audits(lines)


def test_the_groups_of_the_routes() -> None:
    """Reads, writes, and what destroys or replaces much, each count on their own."""
    groups = {
        (route.method, route.path): route.limits
        for route in ROUTES
        if route.path.startswith(("/api/admin/classes", "/api/admin/decks", "/api/admin/flashcards"))
    }

    assert 18 == len(groups)
    for (method, path), group in groups.items():
        is_destructive = method == "DELETE" or path.endswith(("/import", "/import/form"))
        expected = (
            "admin-destructive" if is_destructive else "admin-reads" if method == "GET" else "admin-writes"
        )
        assert expected == group


async def test_deletions_are_limited_more_strictly(
    start_api: StartApi, settings: Settings, course: Course
) -> None:
    """The eleventh deletion within a minute is 429 and deletes nothing; other writes go on."""
    api = await start_api(replace(settings, rate_limits_file=SHIPPED_LIMITS))
    made = [await create(api, CLASSES, course) for _ in range(11)]

    statuses = [(await api.delete(f"/api/admin/classes/{row['id']}", by="admin")).status for row in made]

    assert [204] * 10 + [429] == statuses
    await patch(api, f"/api/admin/classes/{made[10]['id']}", order=1)
