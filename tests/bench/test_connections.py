"""The benchmark of many connections counts what each crowd of clients gets."""

from __future__ import annotations

import pytest

from bench.connections import measure_connections


@pytest.mark.long
def test_deploy_16_crowds_of_clients_are_measured() -> None:
    """Readers, one user who writes without end, and others meanwhile: each has answers, and each answer its time."""
    figures = measure_connections(20, seconds=2.0, per_second=40.0, writers=5, writing_seconds=1.0)
    assert ["20 readers, at first", "20 readers", "one user, 5 at once", "50 others meanwhile"] == [
        crowd.name for crowd in figures.crowds
    ]
    for crowd in figures.crowds:
        assert 0 < crowd.statuses.total() == len(crowd.answers_ms)
        assert crowd.statuses.keys() <= {200, 503}
        assert 0 < crowd.memory_mb
