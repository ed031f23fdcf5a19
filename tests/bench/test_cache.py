"""bench.cache: an evening is the same for the same seed, counts what the service counts, and ratings cost no hits."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from bench.cache import RESULTS, admin_token, spend
from bench.harness.machine import Cores
from bench.harness.students import CARDS, COUNTS, SHARED, Json, Student, Tally
from bench.harness.subjects import running, service
from bench.harness.world import World, furnish
from server.development import EmbeddedServer
from server.settings import ROOT


@pytest.fixture
def surroundings(tmp_path: Path, database_url: str, own_redis: EmbeddedServer) -> World:
    """The bench's world, with a cache that no other test has filled."""
    anywhere = Cores(frozenset(), frozenset())
    return furnish(tmp_path, cores=anywhere, redis=own_redis, database_url=database_url, readers=5)


def evening_of(number: int, seed: int) -> tuple[list[str], Tally]:
    """What a student asks a service of two classes, three decks each."""
    asked: list[str] = []

    async def ask(method: str, path: str, body: Json | None = None) -> tuple[Any, str]:
        asked.append(f"{method} {path} {json.dumps(body)}")
        if path == "/api/classes":
            return {"classes": [{"id": "one"}, {"id": "two"}]}, "HIT"
        if "/study" in path:
            return {"flashcards": [{"id": f"card {n}"} for n in range(10)]}, "MISS"
        if path.startswith("/api/classes/"):
            return {"decks": [{"id": f"{path[13:]} {n}"} for n in range(3)]}, "MISS"
        return {"sessionId": "session"}, ""

    tally = Tally()
    asyncio.run(Student(number, seed, ask, tally).spend_evening())
    return asked, tally


def test_an_evening_follows_from_its_seed() -> None:
    """The same number and seed ask the same; another number or another seed asks something else."""
    assert evening_of(3, 1) == evening_of(3, 1)
    assert 3 == len({tuple(evening_of(*of)[0]) for of in ((3, 1), (4, 1), (3, 2))})


def test_most_requests_of_an_evening_rate_a_card() -> None:
    """The load is what its description says: rounds of ten ratings, a page after each, and every key counted."""
    asked, tally = zip(*(evening_of(number, 1) for number in range(200)), strict=True)
    requests = [request.split(" ")[:2] for one in asked for request in one]
    single = sum(method == "PUT" and "/progress/" in path for method, path in requests)
    rounds = sum(path.endswith("/end") for _, path in requests)
    batches = sum(method == "POST" and path == "/api/progress/cards" for method, path in requests)
    assert 10 * (rounds - batches) == single > len(requests) * 0.4
    assert rounds * 0.05 < batches < rounds * 0.15
    lookups = sum((one.lookups for one in tally), Tally().lookups)
    studied = sum("/study" in path for _, path in requests)
    assert rounds == studied == lookups[CARDS]
    assert lookups[CARDS] < lookups[COUNTS] < lookups[SHARED]


@pytest.mark.long
def test_only_first_looks_are_misses(surroundings: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the real service every key is counted, and an overlay is loaded once however much is rated."""
    monkeypatch.setenv("CACHE_DEADLINE_MS", "10000")
    admin = admin_token(surroundings)
    with running(service(surroundings), surroundings) as subject:
        evening = asyncio.run(spend(subject, surroundings.tokens[1:-1], admin, 5))
    evening.check()
    assert 0 == evening.reported["errors"]
    assert evening.tally.outcomes["PUT /api/progress/cards/{id}", ""] > 50
    students_and_classes = 6
    assert 3 <= evening.misses[CARDS] <= evening.misses[COUNTS] <= students_and_classes
    assert ["all", f"{sum(evening.tally.lookups.values()):,}"] == evening.by_kind()[-1][:2]


def test_the_documentation_cites_the_latest_run() -> None:
    """The hit rate in docs/performance.md is that of bench/results/cache.json, and above what is wanted."""
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert 200 == found["students"]
    assert 95 < found["hitRate"]
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert f"hit rate as the service reports it: {found['hitRate']:.2f}%" in page
