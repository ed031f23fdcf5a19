"""The benchmark of logins measures an honest client behind crowds of guessers."""

from __future__ import annotations

import pytest

from bench.logins import measure_logins


@pytest.mark.long
def test_share_09_an_honest_login_is_measured_behind_a_crowd() -> None:
    """It has an answer in each of them, and so have the probes; a guess is judged, or sent away by the queue."""
    crowds = measure_logins(3)
    assert ["none", "3 that wait", "3 that hang up"] == [crowd.kind for crowd in crowds]
    assert {crowd.status for crowd in crowds} <= {200, 503}
    assert all(crowd.probes_ms for crowd in crowds)
    assert 3 == crowds[1].guesses.total()
    assert crowds[1].guesses.keys() <= {401, 503}
