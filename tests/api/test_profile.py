"""/api/profile, and the time zone in which a student's days are counted."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.conftest import Api, Course
from tests.stores.postgres.databases import ask


async def patch(api: Api, **changes: Any) -> dict[str, Any]:
    """Change the profile, which must succeed."""
    answer = await api.request("PATCH", "/api/profile", json=changes)
    assert 200 == answer.status, await answer.text()
    profile: dict[str, Any] = await answer.json()
    return profile


async def test_a_profile_changes_where_it_is_told_to(api: Api) -> None:
    """What is left out stays; a name may be taken away, a time zone may not."""
    assert {"name": "User", "timeZone": "UTC"} == await (await api.get("/api/profile")).json()
    assert {"name": "User", "timeZone": "Asia/Tokyo"} == await patch(api, timeZone="Asia/Tokyo")
    assert {"name": "Ada", "timeZone": "Asia/Tokyo"} == await patch(api, name="  Ada ")
    assert {"name": None, "timeZone": "Asia/Tokyo"} == await patch(api, name=None)
    assert {"name": None, "timeZone": "Asia/Tokyo"} == await patch(api)
    assert {"name": None, "timeZone": "Asia/Tokyo"} == await (await api.get("/api/profile")).json()
    assert (await (await api.get("/api/auth/me")).json())["user"]["name"] is None


@pytest.mark.parametrize(
    ("field", "value"),
    [("timeZone", None), ("timeZone", 1), ("name", ""),
     ("name", "x" * 256), ("name", 1), ("role", "admin"), ("email", "x@example.com")],
)  # fmt: skip
async def test_a_profile_takes_nothing_else(api: Api, field: str, value: object) -> None:
    """What is wrong is refused with its field; nobody makes themselves an admin."""
    answer = await api.request("PATCH", "/api/profile", json={field: value})
    assert 400 == answer.status
    assert [field] == [error["field"] for error in (await answer.json())["errors"]]


async def rate(api: Api, course: Course, *moments: str, zone: str | None = None) -> tuple[int, str]:
    """Hand in ratings that were made offline: the streak as stored in the figures, and the last active date."""
    ratings = [
        {"flashcardId": str(course.cards["r1"]), "confidenceLevel": 3, "ratedAt": at} for at in moments
    ]
    headers = {} if zone is None else {"X-Time-Zone": zone}
    answer = await api.post("/api/progress/cards", json={"ratings": ratings}, headers=headers)
    assert 200 == answer.status, await answer.text()
    stats = await (await api.get("/api/stats")).json()
    return stats["studyStreakDays"], stats["lastActiveDate"]


async def test_a_day_begins_where_the_user_lives(api: Api, course: Course) -> None:
    """The request's zone, else the profile's, else UTC."""
    evening = "2026-03-02T22:30:00Z"
    assert (0, "2026-03-02") == await rate(api, course, evening), "long ago: the streak has lapsed"
    await patch(api, timeZone="Europe/Berlin")
    assert (0, "2026-03-02") == await rate(api, course, evening), "22:30 in UTC is 23:30 there"
    await patch(api, timeZone="Europe/Athens")
    assert (0, "2026-03-03") == await rate(api, course, evening)
    assert (0, "2026-03-04") == await rate(api, course, evening, "2026-03-03T16:00:00Z", zone="Asia/Tokyo")


async def test_days_of_offline_study_count_when_they_are_handed_in(
    api: Api, course: Course, database_url: str
) -> None:
    """Each day on which something was rated is one of the streak, in whatever order a batch names them."""
    days = [f"2026-03-0{day}T12:00:00Z" for day in (3, 1, 2, 2)]
    await rate(api, course, *days)
    stored = "SELECT study_streak_days, last_active_date::text FROM user_stats WHERE study_streak_days > 0"
    assert [(3, "2026-03-03")] == ask(database_url, stored)
    await rate(api, course, "2026-03-04T12:00:00Z")
    assert [(4, "2026-03-04")] == ask(database_url, stored)
    await rate(api, course, "2026-03-01T12:00:00Z")
    assert [(4, "2026-03-04")] == ask(database_url, stored)
    await rate(api, course, "2026-03-06T12:00:00Z")
    assert [(1, "2026-03-06")] == ask(database_url, stored)
    await rate(api, course, "2026-02-28T12:00:00Z", "2026-03-05T12:00:00Z")
    assert [(7, "2026-03-06")] == ask(database_url, stored), (
        "the device that had the days between comes back last"
    )
