"""The benchmark of slow readers watches a worker's memory while nobody reads."""

from __future__ import annotations

import pytest

from bench.slow_readers import measure_slow_readers


@pytest.mark.long
def test_slow_readers_are_measured_before_while_and_after() -> None:
    """They hold something while they do not read, nothing when they are cut, and another client is served."""
    moments, reader = measure_slow_readers(3, 1.0, calm_seconds=0.0, settings={"RESPONSE_TIMEOUT_MS": "2000"})
    before, during, after, later = moments
    assert (0, 0) == (before.unread_mb, later.unread_mb)
    assert after.unread_mb <= 1.5  # no more than what the other client is being sent
    assert 0 == before.cuts.total()
    # On a busy machine the client that reads may stand still for as long, and gets no answer.
    assert 3 <= later.cuts["timeout"] <= 3 + reader.statuses[0]
    assert all(moment.highest_mb >= moment.memory_mb > 0 for moment in moments)
    assert 0 < reader.statuses[200]
    assert during.unread_mb <= 4.5
