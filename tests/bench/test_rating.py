"""The measurement of ratings: its requests are ratings, each under a key of its own, and its page shows the medians."""

from __future__ import annotations

from dataclasses import asdict
from itertools import islice

from bench.harness.generator import UNIQUE, never_the_same
from bench.rating import KEYED, SINGLE, Cost, medians_of, section


def test_no_two_requests_have_the_same_key() -> None:
    """The marker is replaced by something of its length, so that the length in the head stays true."""
    requests = list(islice(never_the_same([b"a " + UNIQUE, b"b " + UNIQUE + b" " + UNIQUE]), 6))
    assert 6 == len(set(requests))
    assert not any(UNIQUE in request for request in requests)
    assert {2 + len(UNIQUE), 3 + 2 * len(UNIQUE)} == {len(request) for request in requests}


def test_the_page_shows_the_medians() -> None:
    """Of each column by itself, a line for each target."""
    costs = [
        Cost(per_second, 1.0, 2.0, worker_us=900.0, postgres_us=500.0, redis_us=80.0)
        for per_second in (10.0, 30.0, 20.0)
    ]
    assert 20.0 == medians_of(costs).per_second
    text = section(
        {
            "ratings": {
                "date": "2026-01-02",
                "machine": {"processor": "P", "cores": 2, "python": "3.11.7"},
                "conditions": {
                    "rounds": 3,
                    "seconds": 5.0,
                    "connections": 32,
                    "generator": "wrk",
                    "students": 30,
                },
                "load": 1.5,
                "missing": {"fastify": "there is no node"},
                "rows": {f"service, {kind}": [asdict(cost) for cost in costs] for kind in (SINGLE, KEYED)},
            }
        }
    )
    assert "| service, a rating with a key | 20 | 1.0 | 2.0 | 900 | 500 | 80 | 10 to 30 |" in text
    assert "the machine's load was 1.5" in text
    assert "fastify is missing: there is no node." in text
