"""The limiters' comparison asks every limiter the same, and writes what it found where the page shows it."""

from __future__ import annotations

import re
import sys
from contextlib import closing

import pytest
import redis

from bench.limiter.cases import CASES, Case
from bench.limiter.clients import FOLDER, client_table, run_once
from bench.limiter.contenders import with_clock
from bench.limiter.counting import CASES as COUNTED
from bench.limiter.counting import calls_of
from bench.limiter.run import PAGE, compare, fill_clients, fill_page, tables
from server.development import EmbeddedServer
from server.settings import ROOT
from server.stores.redis.scripts import load_script

SMALL = Case(10, 60, sample=1000)
OURS, ZSET, COUNTERS = "mastery, sliding window", "log in a ZSET", "two buckets"


@pytest.fixture(scope="module")
def document(shared_redis: EmbeddedServer) -> dict[str, object]:
    """A small comparison without the libraries."""
    with closing(redis.Redis.from_url(shared_redis.url)) as client:
        client.flushall()
        figures = compare(shared_redis.url, SMALL, {})
        assert client.dbsize() == 0
    return {
        "measured": "2026-01-02",
        "machine": {"cores": 2, "processor": "A processor"},
        "peers": {},
        "exact": {SMALL.name: SMALL.exact_share()},
        "redis": {"6.2.0": {SMALL.name: figures}},
    }


def test_exact_limiters_admit_what_an_exact_limiter_admits(document: dict[str, object]) -> None:
    """Ours and the ZSET's agree with counting in Python, request for request; counters do not."""
    figures = document["redis"]["6.2.0"][SMALL.name]  # type: ignore[index]
    assert 0.5 < SMALL.exact_share() < 1
    assert SMALL.exact_share() == figures[OURS]["admitted"] == figures[ZSET]["admitted"]
    assert SMALL.exact_share() != figures[COUNTERS]["admitted"]
    assert all(one["usPerDecision"] > 0 < one["bytesPerClient"] for one in figures.values())


def test_a_cost_is_compared_among_those_who_know_costs(shared_redis: EmbeddedServer) -> None:
    """The exact answer counts the cost, too."""
    dear = Case(1000, 60, cost=50, sample=1000)
    figures = compare(shared_redis.url, dear, {})
    assert {OURS, "mastery, token bucket"} == set(figures)
    assert dear.exact_share() == figures[OURS]["admitted"]


def test_the_page_is_filled_between_its_markers(document: dict[str, object]) -> None:
    """What is written by hand stays, and the same figures give the same page again."""
    page = PAGE.read_text(encoding="utf-8")
    filled = fill_page(page, document)
    outside = re.compile(r"(?<=-->\n).*?(?=<!-- /bench -->)", re.DOTALL)
    assert outside.sub("", page) == outside.sub("", filled)
    assert filled == fill_page(filled, document)
    assert f"| {OURS} | " in filled
    ((version, headings, lines),) = tables(document)
    assert ("6.2.0", ["", SMALL.name]) == (version, headings)
    assert ["exact answer", f"{SMALL.exact_share():.3f}"] == lines[0]


def test_a_script_s_clock_is_found() -> None:
    """A limiter whose time was not replaced would be measured at another rate than the others."""
    for quote in "'\"":
        changed = with_clock(f"local now = redis.call({quote}TIME{quote})\nreturn now", "now")
        assert "TIME" not in changed
        assert "GET" in changed


def test_the_cases_are_those_of_the_targets() -> None:
    """Ten, sixty and a thousand for the time and the bytes; ten thousand and a million a day for what is bounded."""
    assert [10, 60, 1000, 10_000, 1_000_000] == [case.limit for case in CASES]
    assert all(case.requests >= 25_000 for case in CASES)


def test_what_is_counted_is_the_limiter_s_own_call(shared_redis: EmbeddedServer) -> None:
    """Each case is made by the functions of a checkout; its first decision is admitted under all policies."""
    source = load_script("decide_charges").source.decode()
    with closing(redis.Redis.from_url(shared_redis.url)) as client:
        for case, calls in zip(COUNTED, calls_of(ROOT), strict=True):
            call = calls["decisions"][0]
            assert source == call["source"], case.name
            assert bool(calls["aged"]) == case.leaving
            operands = map(bytes.fromhex, call["operands"])
            reply = client.eval(source, call["keys"], *operands)
            assert b"\1" == reply[:1]
            client.flushall()


def test_the_limiter_is_measured_from_client_to_client(own_redis: EmbeddedServer) -> None:
    """A run makes its decisions over the limiter's own client, and says what they took of it and of Redis."""
    command = [sys.executable, str(FOLDER / "client.py"), "mastery", own_redis.url]
    cell = run_once(own_redis.url, command, {"PYTHONPATH": str(ROOT)}, ("", 200, 4, 5))
    assert 20 == cell["admitted"]
    assert min(cell["perSecond"], cell["clientUs"]) > 0
    headings, lines = client_table({"load": {"mastery": cell}})
    assert ["", "load"] == headings
    assert [["mastery"]] == [line[:1] for line in lines]


def test_the_page_has_the_table_from_client_to_client() -> None:
    """The table is put between its markers, and the other tables stay."""
    page = PAGE.read_text(encoding="utf-8")
    clients = {
        "measured": "2026-01-01",
        "machine": {"cores": 2, "processor": "a processor"},
        "build": "3.11",
        "redis": "7",
        "loads": {"load": {"new": {"perSecond": 1.0, "clientUs": 2.0, "redisUs": 3.0, "admitted": 4.0}}},
    }
    filled = fill_clients(page, clients)
    assert "| new | 1/s · 2 µs · 3.0 µs · 4 |" in filled
    assert (
        page.split("<!-- bench:limiter-clients -->")[0] == filled.split("<!-- bench:limiter-clients -->")[0]
    )
    assert page.split("### Feature by feature")[1] == filled.split("### Feature by feature")[1]
