"""Point 22 in the service: imports and exports of a caller at once, by default."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from server.settings import Settings
from tests.api.conftest import Api, Course, StartApi
from tests.support.waiting import wait_until

CSV = {"Content-Type": "text/csv"}


async def left_of(api: Api) -> int:
    """How many more an administrator may have at once; a look by the API would count as a request."""
    subject = f"user:{api.people['admin'].user_id}"
    charges = api.services.rate_limits.current.policies_for_subject(subject)
    decision = await api.services.limiter.peek(charges)
    (left,) = [verdict.remaining for verdict in decision.verdicts if verdict.policy.name == "at-once"]
    return left


async def test_point_22_imports_and_exports_count_together_until_their_responses_are_sent(
    settings: Settings, start_api: StartApi, strict_limits: Path, course: Course
) -> None:
    """Three uploads that have begun leave no place; one ends, one client hangs up, and each makes room."""
    api = await start_api(replace(settings, rate_limits_file=strict_limits))
    deck = f"/api/admin/decks/{course.decks['Law']}"
    go = asyncio.Event()

    async def upload() -> AsyncIterator[bytes]:
        yield b"question,answer\n"
        await go.wait()
        yield b"what,that\n"

    running = [
        asyncio.create_task(
            api.post(f"{deck}/import?dryRun=true", by="admin", data=upload(), headers=CSV, documented=False)
        )
        for _ in range(3)
    ]
    try:
        await wait_until(lambda: _is(api, 0), "three to run")
        refused = await api.get(f"{deck}/export", by="admin")
        assert 429 == refused.status
        assert refused.headers["Retry-After"] in {"1", "2"}  # clients do not come back in step
        problem = await refused.json()
        assert ["at-once"] == problem["violated-policies"]
        assert "More than 3 at once" in problem["detail"]

        running[0].cancel()  # the client hangs up
        await wait_until(lambda: _is(api, 1), "the place of the one that has gone")
        exported = await api.get(f"{deck}/export", by="admin")
        assert 200 == exported.status
        assert '"at-once";q=3;qu="concurrent-requests"' in exported.headers["RateLimit-Policy"]
    finally:
        go.set()
    assert [200, 200] == [(await one).status for one in running[1:]]
    await wait_until(lambda: _is(api, 3), "all places")


async def _is(api: Api, left: int) -> bool:
    return await left_of(api) == left
