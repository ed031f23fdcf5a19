"""Mastery, the next review by the fixed table, percentages and times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.clock import iso_timestamp
from server.domain.study.repetition import mastery_of, review_after
from server.domain.values import percentage

NOON = datetime(2026, 3, 28, 12, tzinfo=UTC)


def test_confidence_decides_mastery_and_review() -> None:
    """The whole table of the contract."""
    table = {level: (mastery_of(level), review_after(level)) for level in range(1, 6)}
    assert {
        1: ("new", timedelta(hours=12)),
        2: ("new", timedelta(hours=12)),
        3: ("learning", timedelta(days=1)),
        4: ("mastered", timedelta(days=3)),
        5: ("mastered", timedelta(days=7)),
    } == table


@given(part=st.integers(0, 5000), rest=st.integers(0, 5000))
def test_percentages_are_rounded_half_up(part: int, rest: int) -> None:
    """0.5 goes up; 100 only when complete or nearly so; nothing of nothing is 0."""
    whole = part + rest
    assert percentage(part, whole) == (int(part * 100 / whole + 0.5) if whole else 0)


@pytest.mark.parametrize(
    ("part", "whole", "expected"), [(1, 8, 13), (1, 200, 1), (1, 201, 0), (199, 200, 100)]
)
def test_a_half_goes_up(part: int, whole: int, expected: int) -> None:
    """12.5 is 13, where rounding to even would say 12."""
    assert expected == percentage(part, whole)


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (datetime(2026, 1, 31, 9, 30, tzinfo=UTC), "2026-01-31T09:30:00.000Z"),
        (datetime(2026, 1, 31, 9, 30, 0, 999_999, tzinfo=UTC), "2026-01-31T09:30:00.999Z"),
        (datetime(2026, 1, 31, 1, 30, tzinfo=ZoneInfo("Asia/Kolkata")), "2026-01-30T20:00:00.000Z"),
    ],
)
def test_times_are_utc_with_milliseconds(moment: datetime, expected: str) -> None:
    """Always three digits and Z, whatever the zone, never rounded into the future."""
    assert expected == iso_timestamp(moment)
