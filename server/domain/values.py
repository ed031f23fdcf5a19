"""How the service writes times and percentages."""

from __future__ import annotations

from datetime import UTC, datetime


def iso_timestamp(moment: datetime) -> str:
    """A moment as UTC ISO-8601 with milliseconds and Z: 2026-01-31T09:30:00.000Z. Fractions are cut off."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def optional_timestamp(moment: datetime | None) -> str | None:
    """The same, where there may be none."""
    return None if moment is None else iso_timestamp(moment)


def percentage(part: int, whole: int) -> int:
    """A part of a whole in percent, rounded half up; 0 of nothing."""
    return 0 if whole == 0 else (200 * part + whole) // (2 * whole)
