"""What a crowd of logins leaves to others: an honest login, and probes of `/livez`, while many addresses guess at once.

The service runs as in production, with one worker and its own limits, on all cores. So many guessers, each from an
address of its own and at an account of its own, send one login at the same moment; an honest client signs in right
behind them, and probes ask one after another until everybody has an answer. Then the same with guessers that hang up.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace

import aiohttp

from bench.harness.machine import Cores
from bench.harness.subjects import Subject, running, service
from bench.harness.table import as_text
from bench.harness.world import world
from server.settings import ROOT

HEADINGS = ("guessers", "honest login", "after, ms", "/livez median, ms", "/livez worst, ms", "guesses")
_ACCOUNT = {"email": "honest@example.com", "password": "correct horse battery"}
_ANYWHERE = Cores(frozenset(), frozenset())
_PAUSE_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Crowd:
    """One crowd of guessers.

    Attributes:
        kind: what they do.
        status: of the honest login.
        login_ms: until its answer, milliseconds.
        probes_ms: of each probe meanwhile, milliseconds.
        guesses: how many guesses were answered with which status.
    """

    kind: str
    status: int
    login_ms: float
    probes_ms: list[float]
    guesses: Counter[int]


def measure_logins(guessers: int) -> list[Crowd]:
    """Let crowds of so many guessers at a service of our own, one that waits for its answers and one that hangs up."""
    with world(readers=1, cores=_ANYWHERE) as surroundings:
        launch = service(surroundings, policies=ROOT / "config" / "ratelimits.toml")
        launch = replace(launch, environment={**launch.environment, "TRUSTED_PROXIES": "1"})
        with running(launch, surroundings) as subject:
            return asyncio.run(_measure(subject, guessers))


def print_logins(guessers: int) -> None:
    """The same as a table on standard output."""
    rows = [
        (
            crowd.kind,
            str(crowd.status),
            f"{crowd.login_ms:.0f}",
            f"{statistics.median(crowd.probes_ms):.1f}",
            f"{max(crowd.probes_ms):.1f}",
            ", ".join(f"{status}: {count}" for status, count in sorted(crowd.guesses.items()))
            or "none answered",
        )
        for crowd in measure_logins(guessers)
    ]
    sys.stdout.write(as_text(HEADINGS, rows) + "\n")


async def _measure(subject: Subject, guessers: int) -> list[Crowd]:
    url = f"http://127.0.0.1:{subject.port}"
    async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0)) as session:
        async with session.post("/api/auth/register", json=_ACCOUNT) as registered:
            registered.raise_for_status()
        return [
            await _crowd(session, "none", 0),
            await _crowd(session, f"{guessers} that wait", guessers),
            await _crowd(session, f"{guessers} that hang up", guessers, patience_seconds=0.05),
        ]


async def _crowd(
    session: aiohttp.ClientSession, kind: str, guessers: int, *, patience_seconds: float = 120
) -> Crowd:
    async def guess(number: int) -> int | None:
        body = {"email": f"{kind.replace(' ', '-')}-{number}@example.com", "password": "a guess"}
        timeout = aiohttp.ClientTimeout(total=patience_seconds)
        address = {"X-Forwarded-For": f"192.0.2.{number}"}
        try:
            async with session.post("/api/auth/login", json=body, headers=address, timeout=timeout) as answer:
                return answer.status
        except TimeoutError:
            return None

    async def log_in() -> tuple[int, float]:
        began = time.perf_counter()
        async with session.post("/api/auth/login", json=_ACCOUNT) as answer:
            await answer.read()
            return answer.status, (time.perf_counter() - began) * 1000

    guesses = [asyncio.create_task(guess(number)) for number in range(guessers)]
    await asyncio.sleep(_PAUSE_SECONDS)  # the guesses come first
    honest = asyncio.create_task(log_in())
    probes_ms: list[float] = []
    while not (honest.done() and all(one.done() for one in guesses)):
        began = time.perf_counter()
        async with session.get("/livez") as answer:
            await answer.read()
        probes_ms.append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(_PAUSE_SECONDS)
    status, login_ms = await honest
    answered = Counter(one for one in await asyncio.gather(*guesses) if one is not None)
    return Crowd(kind, status, login_ms, probes_ms, answered)
