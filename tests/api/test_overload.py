"""More than the service can do at once: what one user sends, or what nobody caused, is no outage for the others."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import replace

import psycopg2
import pytest

from server.api.assets import asset_names
from server.connections import unread
from server.settings import Settings
from tests.api.conftest import Course, StartApi, run_statement
from tests.support.waiting import wait_until

WAITING = """
    SELECT count(*) FROM pg_stat_activity
     WHERE datname = current_database() AND application_name = 'mastery' AND wait_event_type = 'Lock'
"""


async def test_deploy_16_one_users_writes_leave_room_for_others(
    settings: Settings, start_api: StartApi, course: Course
) -> None:
    """Thirty ratings of a user wait for that user's row: of ten connections they hold two, and all succeed."""
    api = await start_api(replace(settings, database_query_timeout_ms=60_000))
    card = course.cards["r1"]
    url = f"/api/progress/cards/{card}"
    for by in ("user", "other"):
        assert 200 == (await api.put(url, by=by, json={"confidenceLevel": 3})).status
    in_flight = api.services.metrics.http_requests_in_flight
    with contextlib.closing(psycopg2.connect(settings.database_url)) as holder:
        with holder.cursor() as cursor:
            cursor.execute(
                "SELECT FROM user_stats WHERE user_id = %s FOR UPDATE", (str(api.people["user"].user_id),)
            )
        ratings = [asyncio.create_task(api.put(url, json={"confidenceLevel": 4})) for _ in range(30)]
        await wait_until(lambda: in_flight._value.get() >= 30, "all have arrived")
        await wait_until(
            lambda: run_statement(settings.database_url, WAITING) == [(2,)], "two wait for the row"
        )
        for _ in range(5):
            assert 200 == (await api.put(url, by="other", json={"confidenceLevel": 5})).status
            assert 200 == (await api.get("/api/stats")).status
        assert [(2,)] == run_statement(settings.database_url, WAITING)
        holder.rollback()
        assert {200} == {answer.status for answer in await asyncio.gather(*ratings)}
    progress = await (await api.get(url)).json()
    assert 31 == progress["timesSeen"]


async def test_deploy_16_a_write_that_waits_too_long_is_a_503(
    settings: Settings, start_api: StartApi, course: Course
) -> None:
    """Whose turn does not come in time is told so, with a code of its own; the next write has its turn."""
    api = await start_api(settings)
    url = f"/api/progress/cards/{course.cards['r1']}"
    assert 200 == (await api.put(url, json={"confidenceLevel": 3})).status
    turns = api.services.writer._turns
    turns._wait_seconds = 0.05
    user_id = api.people["user"].user_id
    for _ in range(2):
        await turns.take(user_id)
    late = await api.put(url, json={"confidenceLevel": 4})
    assert (503, "too_many_at_once") == (late.status, (await late.json())["code"])
    assert int(late.headers["Retry-After"]) >= 1
    for _ in range(2):
        turns.give_back(user_id)
    assert ({}, {}) == (turns._under_way, turns._lines)
    assert 200 == (await api.put(url, json={"confidenceLevel": 4})).status


async def test_deploy_16_a_client_that_leaves_the_line_takes_no_turn_along(
    settings: Settings, start_api: StartApi
) -> None:
    """Somebody who is cancelled while waiting, or just as the turn comes, leaves it to the next."""
    api = await start_api(settings)
    turns, user_id = api.services.writer._turns, api.people["user"].user_id
    for _ in range(2):
        await turns.take(user_id)
    waiting = [asyncio.create_task(turns.take(user_id)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    turns.give_back(user_id)
    waiting[1].cancel()  # its turn has come, and it has not noticed yet
    async with asyncio.timeout(20):
        await waiting[2]
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [True, True, False] == [isinstance(one, asyncio.CancelledError) for one in outcomes]
    for _ in range(2):
        turns.give_back(user_id)
    assert ({}, {}) == (turns._under_way, turns._lines)


async def test_deploy_16_a_large_answer_is_refused_while_others_wait_for_their_readers(
    settings: Settings, start_api: StartApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where none has stood still for long enough to be cut, it is a 503 with a code of its own; small ones are made."""
    monkeypatch.setattr(unread, "_YOUNG_SECONDS", 3600.0)
    api = await start_api(replace(settings, response_buffer_mb=1))
    (large,) = (f"/api/docs/{name}" for name in asset_names() if name.startswith("swagger-ui-bundle"))
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", api.client.server.port))
        client.sendall(f"GET {large} HTTP/1.1\r\nHost: mastery\r\n\r\n".encode())
        held = api.services.metrics.http_unread_response_bytes
        await wait_until(lambda: held._value.get() > 0, "it stands still")  # larger than allowed, but alone
        refused = await api.get(large)
        assert (503, "too_many_unread") == (refused.status, (await refused.json())["code"])
        assert int(refused.headers["Retry-After"]) >= 1
        assert 200 == (await api.get("/api/classes")).status
        assert 0 == api.services.metrics.http_unread_responses_cut.labels("buffer")._value.get()
    await wait_until(lambda: held._value.get() == 0, "it is gone")
    answer = await api.get(large)
    assert (200, True) == (answer.status, len(await answer.read()) > 1 << 20)
