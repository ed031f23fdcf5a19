"""/api/admin: the figures of the students, and the limits of a client."""

from __future__ import annotations

import struct
import time
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
import redis

from server.ratelimit.policies import Charge, Policy, pages_key, state_key
from server.settings import Settings
from tests.api.conftest import Api, Course, StartApi, run_statement


async def test_a_listed_user_has_every_figure(api: Api, course: Course) -> None:
    """The shape of the contract, exact, for somebody who studied and for somebody who did not."""
    for name, confidence in (("r1", 1), ("r2", 3), ("l1", 5), ("a1", 4)):
        await api.put(f"/api/progress/cards/{course.cards[name]}", json={"confidenceLevel": confidence})
    users = (await (await api.get("/api/admin/analytics/users", by="admin")).json())["users"]
    student = users[0]
    dates = {key: student.pop(key) for key in ("createdAt", "lastActiveDate")}
    assert (24, 10) == (len(dates["createdAt"]), len(dates["lastActiveDate"]))
    assert {
        "id": str(api.people["user"].user_id), "email": "user@example.com", "name": "User", "role": "user",
        "totalCardsStudied": 4, "studyStreakDays": 1, "totalStudyTime": 0,
        "masteryBreakdown": {"new": 1, "learning": 1, "mastered": 2}, "totalCardsInProgress": 2,
    } == student  # fmt: skip
    idle = users[1]
    assert (0, 0, None, {"new": 0, "learning": 0, "mastered": 0}, 0) == (
        idle["totalCardsStudied"], idle["studyStreakDays"], idle["lastActiveDate"], idle["masteryBreakdown"],
        idle["totalCardsInProgress"],
    )  # fmt: skip


async def test_one_users_classes(api: Api, course: Course) -> None:
    """Every published class with the user's cards by mastery; an unknown user is 404."""
    user_id = api.people["user"].user_id
    for name, confidence in (("r1", 1), ("r2", 3), ("l1", 5), ("a1", 4)):
        await api.put(f"/api/progress/cards/{course.cards[name]}", json={"confidenceLevel": confidence})
    body = await (await api.get(f"/api/admin/analytics/users/{user_id}", by="admin")).json()
    listed = (await (await api.get("/api/admin/analytics/users", by="admin")).json())["users"][0]
    assert listed == {key: value for key, value in body.items() if key != "classes"}
    assert [
        {"classId": str(course.classes["Risk"]), "className": "Risk", "totalCards": 5, "studiedCards": 3,
         "masteredCards": 1, "learningCards": 1, "newCards": 1, "progress": 60},
        {"classId": str(course.classes["Assets"]), "className": "Assets", "totalCards": 1, "studiedCards": 1,
         "masteredCards": 1, "learningCards": 0, "newCards": 0, "progress": 100},
    ] == body["classes"]  # fmt: skip
    assert 404 == (await api.get(f"/api/admin/analytics/users/{uuid4()}", by="admin")).status


@pytest.mark.usefixtures("course")
@pytest.mark.parametrize("sort", ["recent", "studied", "streak"])
async def test_a_page_takes_a_fixed_number_of_queries(api: Api, sort: str) -> None:
    """However many users and classes there are, a page and a detail cost the same queries."""
    histogram = api.services.metrics.database_query_duration_seconds

    def queries() -> Counter[str]:
        api.services.metrics.flush()
        samples = [sample for metric in histogram.collect() for sample in metric.samples]
        counts = {one.labels["query"]: int(one.value) for one in samples if one.name.endswith("_count")}
        return Counter({name: count for name, count in counts.items() if name.startswith(("list_", "get_"))})

    for more in (0, 30):
        run_statement(
            api.services.settings.database_url,
            "WITH u AS (INSERT INTO users (email) SELECT 'u' || n || '@example.com' FROM generate_series(1, %s) AS n)"
            " INSERT INTO classes (name, is_published) SELECT 'class ' || n, true FROM generate_series(1, %s) AS n",
            more,
            more,
        )
        before = queries()
        await api.get(f"/api/admin/analytics/users?sort={sort}&limit=100", by="admin")
        await api.get(f"/api/admin/analytics/users/{api.people['user'].user_id}", by="admin")
        assert {
            f"list_users_by_{sort}": 1,
            "get_user_figures": 1,
            "list_user_classes": 1,
        } == queries() - before


async def test_looking_at_limits_consumes_nothing(
    settings: Settings, start_api: StartApi, strict_limits: Path
) -> None:
    """A client's use of each policy can be seen again and again, and forgotten."""
    api = await start_api(replace(settings, rate_limits_file=strict_limits))
    user_id = api.people["user"].user_id
    for _ in range(3):
        await api.get("/api/classes")

    async def used() -> dict[str, int]:
        body = await (await api.get(f"/api/admin/rate-limits/user:{user_id}", by="admin")).json()
        assert body.keys() == {"subject", "block", "allowedNetwork", "overrides", "source", "policies"}
        return {
            f"{entry['policy']}/{entry['group']}": entry["limit"] - entry["remaining"]
            for entry in body["policies"]
            if entry["remaining"] < entry["limit"]
        }

    assert {"generous/reads": 3, "api/*": 3} == await used() == await used()
    reset = await api.delete(f"/api/admin/rate-limits/user:{user_id}", by="admin")
    assert (204, b"") == (reset.status, await reset.read())
    assert {} == await used()


@pytest.mark.parametrize("damage", ["text", "pages"])
async def test_share_03_a_client_whose_keys_hold_something_else_can_be_looked_at_and_reset(
    settings: Settings, start_api: StartApi, strict_limits: Path, redis_url: str, damage: str
) -> None:
    """A look is answered with a problem that names the remedy, others are served, and a reset helps."""
    api = await start_api(replace(settings, rate_limits_file=strict_limits))
    user_id = api.people["user"].user_id
    await api.get("/api/classes")
    policy = Policy("generous", 100, 60_000)
    with closing(redis.Redis.from_url(redis_url)) as client:
        charge = Charge(policy, "reads", f"user:{user_id}")
        assert client.exists(state_key(charge))
        if damage == "text":
            client.set(state_key(charge), b"not ours", px=60_000)
        else:
            # A log whose middle is in pages: kind 0, with an entry before them and one after.
            now_us = time.time_ns() // 1000
            head = (
                b"\0"
                + (now_us - 4_000_000).to_bytes(7, "big")
                + struct.pack(">IBHBIH", 0, 0, 1, 0, 4_000_000, 3)
            )
            client.set(state_key(charge), head, px=60_000)
            client.set(pages_key(charge), b"not ours", px=60_000)
    path = f"/api/admin/rate-limits/user:{user_id}"
    refused = await api.get(path, by="admin")
    problem = await refused.json()
    assert (409, "limits_unreadable") == (refused.status, problem["code"]), problem
    assert "DELETE" in problem["detail"]
    assert (
        200
        == (await api.get(f"/api/admin/rate-limits/user:{api.people['admin'].user_id}", by="admin")).status
    )
    assert 204 == (await api.delete(path, by="admin")).status
    assert 200 == (await api.get(path, by="admin")).status


async def test_share_03_a_reset_that_redis_refuses_is_a_problem(api: Api, redis_url: str) -> None:
    """What Redis does not let the service do is answered, not raised."""
    with closing(redis.Redis.from_url(redis_url)) as client:
        client.acl_setuser("default", enabled=True, commands=["-unlink"])
        try:
            refused = await api.delete("/api/admin/rate-limits/ip:192.0.2.77", by="admin")
        finally:
            client.acl_setuser("default", enabled=True, commands=["+unlink"])
    assert (409, "limits_unreadable") == (refused.status, (await refused.json())["code"])


async def test_subjects_are_written_in_their_forms(api: Api) -> None:
    """Users, addresses and prefixes are subjects; what is none is 400 with the field."""
    user_id = api.people["user"].user_id
    shown = {}
    for subject in (
        f"user:{user_id}", f"user:{str(user_id).upper()}", "ip:192.0.2.1", "ip:::ffff:192.0.2.1",
        "ip:2001:db8:1:2::3", "ip:2001:db8:1:2::%2F64",
    ):  # fmt: skip
        response = await api.get(f"/api/admin/rate-limits/{subject}", by="admin")
        assert 200 == response.status, subject
        shown[subject] = (await response.json())["subject"]
    assert [
        f"user:{user_id}", f"user:{user_id}", "ip:192.0.2.1", "ip:192.0.2.1", "ip:2001:db8:1:2::/64",
        "ip:2001:db8:1:2::/64",
    ] == list(shown.values())  # fmt: skip
    for subject in ("x", "user:", "user:x", "ip:", "ip:x", "ip:192.0.2.1%2F8", "ip:2001:db8::%2F20", "key:1"):
        refused = await api.get(f"/api/admin/rate-limits/{subject}", by="admin")
        assert (400, "subject") == (refused.status, (await refused.json())["errors"][0]["field"]), subject
