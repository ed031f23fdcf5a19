"""Workers are killed under load, between any two statements: every rating that was acknowledged is there, once."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Iterator
from uuid import uuid4

import aiohttp
import psutil
import pytest

from server.cli.counters import check_counters
from server.cli.web import gunicorn_command, is_ready
from server.development import free_port
from server.development.processes import child_process, wait_until_ready
from server.domain.identity.tokens import AccessTokens, Caller
from server.settings import ROOT
from tests.api.conftest import NO_LIMITS, SECRET_KEY, Course, redis_url
from tests.conftest import run_sql
from tests.stores.postgres.databases import ask
from tests.support.waiting import wait_until

__all__ = ["redis_url"]  # fixtures

STUDENTS = ("user", "other", "admin")
DEVICES = 4  # of each student, all on the same few cards and in the same session
BATCHES = 20  # of each device
KILLS = 5
CARDS = ("r1", "r2", "l1", "a1")


class Device:
    """A client that sends each batch until somebody acknowledges it, always under the batch's own key."""

    def __init__(self, http: aiohttp.ClientSession, caller: Caller, session_id: str) -> None:
        self._http = http
        self._bearer = f"Bearer {AccessTokens(SECRET_KEY, lifetime_seconds=600).issue(caller)}"
        self._session_id = session_id
        self.user_id = str(caller.user_id)
        self.acknowledged: Counter[tuple[str, str]] = Counter()
        self.repeats = 0

    async def study(self, cards: list[str], chance: random.Random) -> None:
        """Send all batches, one after the other; a batch rates two cards."""
        for _ in range(BATCHES):
            chosen = chance.sample(cards, 2)
            await self._send([
                {"flashcardId": card, "confidenceLevel": chance.randint(1, 5), "sessionId": self._session_id}
                for card in chosen
            ])  # fmt: skip
            self.acknowledged.update((self.user_id, card) for card in chosen)

    async def _send(self, ratings: list[dict[str, object]]) -> None:
        headers = {"Authorization": self._bearer, "Idempotency-Key": str(uuid4())}
        while True:
            try:
                async with self._http.post(
                    "/api/progress/cards", json={"ratings": ratings}, headers=headers
                ) as response:
                    await response.read()
            except aiohttp.ClientError:
                self.repeats += 1  # killed while it worked, or before it answered: who knows what happened?
            else:
                assert 200 == response.status
                return


@pytest.fixture
def served(database_url: str, redis_url: str) -> Iterator[tuple[psutil.Process, str]]:
    """The master process of a gunicorn with two workers, and its address."""
    port = free_port()
    environment = {
        **os.environ, "DATABASE_URL": database_url, "REDIS_URL": redis_url, "SECRET_KEY": SECRET_KEY,
        "RATE_LIMITS_FILE": str(NO_LIMITS), "HOST": "127.0.0.1", "PORT": str(port), "WEB_CONCURRENCY": "2",
    }  # fmt: skip
    with child_process(gunicorn_command(ROOT), environment=environment) as process:
        assert wait_until_ready(process, lambda: is_ready("127.0.0.1", port), seconds=60)
        yield psutil.Process(process.pid), f"http://127.0.0.1:{port}"


async def kill_workers(master: psutil.Process, devices: list[Device], chance: random.Random) -> None:
    """Kill a worker each time that some more batches have been acknowledged, whatever it does at that moment."""
    total = len(devices) * BATCHES * 2
    for kill in range(KILLS):
        enough = total * (kill + chance.random()) / KILLS

        def is_time(enough: float = enough) -> bool:
            return sum(device.acknowledged.total() for device in devices) >= enough and bool(
                master.children()
            )

        await wait_until(is_time, "ratings go on, by a worker", 60)
        chance.choice(master.children()).kill()


async def test_every_acknowledged_rating_is_there_exactly_once(
    served: tuple[psutil.Process, str], database_url: str, people: dict[str, Caller], course: Course
) -> None:
    """Progress, sessions, the log and the students' figures say what was acknowledged: no more, no less."""
    master, address = served
    chance = random.Random(11)  # noqa: S311 - plays the students
    run_sql(database_url, "INSERT INTO study_sessions (user_id) SELECT id FROM users")
    sessions = dict(ask(database_url, "SELECT user_id::text, id::text FROM study_sessions"))
    callers = [people[name] for name in STUDENTS for _ in range(DEVICES)]
    async with aiohttp.ClientSession(address) as http:
        devices = [Device(http, caller, sessions[str(caller.user_id)]) for caller in callers]
        cards = [str(course.cards[name]) for name in CARDS]
        await asyncio.gather(
            *(device.study(cards, random.Random(chance.random())) for device in devices),  # noqa: S311
            kill_workers(master, devices, chance),
        )
    assert sum(device.repeats for device in devices) > 0, "no kill hit anybody"

    expected: Counter[tuple[str, str]] = Counter()
    for device in devices:
        expected += device.acknowledged
    assert len(devices) * BATCHES * 2 == expected.total()
    for what in (
        "sum(times_seen) FROM user_card_progress",
        "count(*) FROM review_log",
        "count(*) FROM session_cards JOIN study_sessions AS s ON s.id = session_id",
    ):
        rows = ask(database_url, f"SELECT user_id::text, flashcard_id::text, {what} GROUP BY 1, 2")
        assert expected == {(user_id, card): count for user_id, card, count in rows}, what
    assert [(len(devices) * BATCHES,)] == ask(database_url, "SELECT count(status) FROM idempotency_keys")
    assert 0 == check_counters(database_url).differences
