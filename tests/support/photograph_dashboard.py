"""The picture in the README, of a running service.

With the variables that `make run` prints:

    echo "$ADMIN" | python -m tests.support.photograph_dashboard "$MASTERY" docs/dashboard.png

Eight students study for eleven minutes first, so that the charts of the last ten minutes show them.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import tempfile
import time
from pathlib import Path
from uuid import uuid4

import aiohttp

from tests.dashboard.test_page import DRAWN
from tests.support.browser import CHROMIUM, running_browser

STUDENTS = 8
MINUTES = 11


async def study(session: aiohttp.ClientSession, number: int, until: float) -> None:
    """A student who reads and rates at an ordinary pace."""
    chance = random.Random(number)  # noqa: S311 - nobody has to guess it
    async with session.get("/api/classes") as answer:
        classes = [entry["id"] for entry in (await answer.json())["classes"]]
    while time.monotonic() < until:
        async with session.get(f"/api/classes/{chance.choice(classes)}/study?limit=10") as answer:
            cards = (await answer.json()).get("flashcards", [])
        for card in cards:
            rating = {"confidenceLevel": chance.randint(1, 5)}
            async with session.put(f"/api/progress/cards/{card['id']}", json=rating):
                await asyncio.sleep(chance.uniform(1, 2))
        async with session.get("/api/stats"):
            pass


async def spend_an_evening(address: str) -> None:
    """What the charts show."""
    until = time.monotonic() + 60 * MINUTES
    async with contextlib.AsyncExitStack() as stack:
        sessions = [await stack.enter_async_context(aiohttp.ClientSession(address)) for _ in range(STUDENTS)]
        for session in sessions:
            account = {"email": f"{uuid4()}@example.com", "password": "correct horse battery"}
            async with session.post("/api/auth/register", json=account, raise_for_status=True) as answer:
                session.headers["Authorization"] = f"Bearer {(await answer.json())['accessToken']}"
        await asyncio.gather(*(study(session, number, until) for number, session in enumerate(sessions)))


async def photograph(address: str, token: str) -> bytes:
    """Let students study, sign in with a token, wait for the charts, and take the picture."""
    assert CHROMIUM is not None, "there is no Chromium here"
    await spend_an_evening(address)
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        running_browser(Path(folder)) as browser,
    ):
        async with browser.open_tab() as tab:
            await tab.look_like(width=1200, height=1130, scheme="dark")
            await tab.open(f"{address}/dashboard")
            await tab.evaluate(f"sessionStorage.setItem('mastery-access-token', {token!r})")
            await tab.call("Page.reload")
            await tab.until(DRAWN)
            return await tab.photograph()


if __name__ == "__main__":
    Path(sys.argv[2]).write_bytes(asyncio.run(photograph(sys.argv[1], sys.stdin.read().strip())))
