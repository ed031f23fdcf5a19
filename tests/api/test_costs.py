"""Point 21 in the service: what a request costs its limits, and what it is shown to have cost."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request

from server.api.admin.imports import COST_UNIT_BYTES
from server.api.services import settle_cost
from server.settings import Settings
from tests.api.conftest import Api, Course, StartApi

ROUTE = "POST /api/admin/decks/{deckId}/import"
CSV = {"Content-Type": "text/csv"}


async def policies_of(api: Api, subject: str) -> dict[tuple[str, str], dict[str, Any]]:
    """What an administrator's look at a subject shows, by policy and group."""
    response = await api.get(f"/api/admin/rate-limits/{subject}", by="admin")
    shown = (await response.json())["policies"]
    return {(policy["policy"], policy["group"]): policy for policy in shown}


async def test_point_21_an_import_costs_by_its_size(
    settings: Settings, start_api: StartApi, strict_limits: Path, course: Course
) -> None:
    """A unit for each MiB that has begun, charged when the size is known: in the headers, the peek and the metrics."""
    api = await start_api(replace(settings, rate_limits_file=strict_limits))
    path = f"/api/admin/decks/{course.decks['Law']}/import?dryRun=true"
    row = b"what,%s\n" % (b"x" * 4000)
    small = await api.post(path, by="admin", data=row, headers=CSV)
    assert (200, "9") == (small.status, small.headers["X-RateLimit-Remaining"])

    # Refused for its rows: reading it has cost as much.
    large = await api.post(
        path, by="admin", data=io.BytesIO(row * (3 * COST_UNIT_BYTES // len(row) + 1)), headers=CSV
    )
    assert (400, "5") == (large.status, large.headers["X-RateLimit-Remaining"])
    assert '"strict";r=5' in large.headers["RateLimit"]

    subject = f"user:{api.people['admin'].user_id}"
    shown = await policies_of(api, subject)
    assert (5, 1) == tuple(shown["strict", "admin-destructive"][key] for key in ("remaining", "cost"))
    assert 1000 - 5 - 1 == shown["api", "*"]["remaining"]  # the look itself is a request, too
    metrics = await (await api.get("/api/metrics", by=None)).text()
    assert 'rate_limit_cost_units_total{change="added",policy="strict"} 3.0' in metrics


async def test_point_21_the_largest_import_leaves_nothing_and_no_debt(
    settings: Settings, start_api: StartApi, strict_limits: Path, course: Course
) -> None:
    """Two of ten MiB within a minute: the second has used what was left, and the wait is no longer than a window."""
    api = await start_api(replace(settings, rate_limits_file=strict_limits))
    path = f"/api/admin/decks/{course.decks['Law']}/import"
    statuses = []
    for _ in range(3):
        answer = await api.post(path, by="admin", data=io.BytesIO(b"\xff" * (6 << 20)), headers=CSV)
        statuses.append((answer.status, answer.headers["X-RateLimit-Remaining"]))
    assert [(400, "4"), (400, "0"), (429, "0")] == statuses
    assert int(answer.headers["Retry-After"]) <= 63


@pytest.fixture
def with_costs(tmp_path: Path, strict_limits: Path) -> Callable[[str], Path]:
    """A rate limits file with lines of a test's own."""

    def make(lines: str) -> Path:
        file = tmp_path / "limits.toml"
        file.write_text(f"{strict_limits.read_text()}\n{lines}\n")
        return file

    return make


async def test_point_21_a_route_costs_what_the_file_says(
    settings: Settings, start_api: StartApi, with_costs: Callable[[str], Path]
) -> None:
    """Its requests take so many units of the group's budget; another route's take one; both are shown."""
    file = with_costs('[routes."GET /api/classes"]\ncost = 40\n')
    api = await start_api(replace(settings, rate_limits_file=file))
    answers = [await api.get(path) for path in ("/api/classes", "/api/stats", "/api/classes", "/api/classes")]
    assert [(200, "60"), (200, "59"), (200, "19"), (429, "19")] == [
        (answer.status, answer.headers["X-RateLimit-Remaining"]) for answer in answers
    ]
    shown = await policies_of(api, f"user:{api.people['user'].user_id}")
    assert (1, {"GET /api/classes": 40}) == tuple(
        shown["generous", "reads"][key] for key in ("cost", "routeCosts")
    )
    metrics = await (await api.get("/api/metrics", by=None)).text()
    assert 'rate_limit_cost_units_total{change="added",policy="generous"} 78.0' in metrics


async def test_point_21_a_route_may_charge_its_failures_alone(
    settings: Settings, start_api: StartApi, course: Course, with_costs: Callable[[str], Path]
) -> None:
    """What its answer does not confirm is given back, at its cost, and counted as returned."""
    file = with_costs('[routes."GET /api/decks/{deckId}/flashcards"]\ncost = 5\ncharge = "failures"\n')
    api = await start_api(replace(settings, rate_limits_file=file))
    for deck in (course.decks["Law"], course.classes["Risk"], course.decks["Law"]):
        await api.get(f"/api/decks/{deck}/flashcards")
    shown = await policies_of(api, f"user:{api.people['user'].user_id}")
    assert 95 == shown["generous", "reads"]["remaining"]
    metrics = await (await api.get("/api/metrics", by=None)).text()
    assert 'rate_limit_cost_units_total{change="returned",policy="generous"} 10.0' in metrics


def test_point_21_a_handler_settles_once_and_never_below_zero() -> None:
    """Anything else is a mistake of the program, which is loud."""
    request = make_mocked_request("POST", "/")
    with pytest.raises(ValueError, match="costs 0 units or more, not -1"):
        settle_cost(request, -1)
    settle_cost(request, 0)
    with pytest.raises(RuntimeError, match="settled already"):
        settle_cost(request, 5)
