"""bench.scaling: its page shows its results, and what is computed from them follows from the formulas."""

from __future__ import annotations

import re
from dataclasses import asdict, replace

import pytest

from bench.harness.capacity import Capacity, Cost, Memory, carried_by_core
from bench.harness.pooler import PoolerMissing
from bench.harness.results import read_document
from bench.scaling import CLUSTERED, DIRECT, PAGE, POOLED, RESULTS, SECTIONS, Plan, fill, measure
from tests.support.programs import for_want_of

COST = Cost(
    worker_us=700.0, redis_us=70.0, postgres_us=350.0, pooler_us=7.0, database_ms=2.0, commits=0.5,
    wal_bytes=1000.0, log_bytes=500.0, redis_bytes=1000.0, client_bytes=2000.0,
)  # fmt: skip
MEMORY = Memory(limiter_bytes=400.0, cache_bytes=600.0)


def test_the_page_shows_the_results() -> None:
    """What the page says between its markers is what the latest results say, and there is a marker for each section."""
    page = PAGE.read_text(encoding="utf-8")
    assert set(SECTIONS) == set(re.findall(r"<!-- bench:([a-z]+) -->", page))
    assert page == fill(page, read_document(RESULTS))


def test_cores_are_those_of_the_formula() -> None:
    """A part that spends 700 µs on a request needs a core for a thousand of them a second, at 70 % of it."""
    assert 1000.0 == carried_by_core(700.0)
    ten = Capacity(10_000, COST, MEMORY)
    assert (10, 3, 1, 1, 5) == (ten.workers, ten.dynos, ten.masters, ten.poolers, ten.postgres_cores)
    million = Capacity(1_000_000, COST, MEMORY)
    assert (1000, 250, 100, 10, 500) == (
        million.workers, million.dynos, million.masters, million.poolers, million.postgres_cores
    )  # fmt: skip
    assert 8 == million.installations


def test_connections_follow_from_littles_law() -> None:
    """Ten thousand requests a second of 2 ms each are 20 at a time; a pool has room for bursts, two at the least."""
    ten = Capacity(10_000, COST, MEMORY)
    assert (20, 29, 4, 40) == (
        ten.busy_connections, ten.server_connections, ten.pool_size, ten.client_connections
    )  # fmt: skip
    assert 2 == Capacity(10_000, replace(COST, database_ms=0.1), MEMORY).pool_size


def test_what_requests_leave_behind_adds_up() -> None:
    """Memory by student, and bytes by request."""
    one = Capacity(1000, COST, MEMORY)
    assert (5000, 0.005, 43.2, 1.0, 8.0, 16.0) == (
        one.clients, one.memory_gb, one.log_gb_a_day, one.wal_mb_a_second, one.redis_mbit_a_second,
        one.client_mbit_a_second,
    )  # fmt: skip


@pytest.mark.long
def test_every_part_of_a_deployment_is_measured() -> None:
    """A short evening on each deployment: every cost is known, and PgBouncer's only where there is one."""
    try:
        document = measure(Plan(rounds=1, students=1))
    except PoolerMissing:
        pytest.skip(for_want_of("pgbouncer"))
    assert [DIRECT, POOLED, CLUSTERED] == list(document["rows"])
    assert all(value > 0 for value in document["memory"].values())
    for name, row in document["rows"].items():
        assert {*asdict(COST), "perSecond"} == row.keys()
        may_be_nothing = {"pooler_us", "redis_us"}  # processor time is counted in hundredths of a second
        assert [] == [what for what, value in row.items() if not value > 0 and what not in may_be_nothing]
        assert (name == DIRECT) <= (row["pooler_us"] == 0)
