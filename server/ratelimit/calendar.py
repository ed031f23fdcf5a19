"""Calendar quotas: the days, weeks and months of a time zone."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from time import time
from typing import Final, Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

Period = Literal["day", "week", "month"]
PERIODS: Final[tuple[Period, ...]] = get_args(Period)

# The longest of each kind, but for an hour when clocks go back: for what needs a length and not an instant.
NOMINAL_MS: Final[dict[Period, int]] = {"day": 86_400_000, "week": 604_800_000, "month": 2_678_400_000}


def wall_clock() -> float:
    """Return seconds since 1970 by this process's clock: which periods to offer. The server's clock decides."""
    return time()


@dataclass(frozen=True)
class Calendar:
    """The periods of a time zone.

    A period begins with the first instant of a local day, of a Monday, or of the first of a month. Where clocks change,
    a day has 23 or 25 hours.

    Args:
        period: day, week or month.
        zone: a name of the IANA time zone database, such as `Europe/Berlin`.

    Raises:
        ValueError: there is no such period or zone.
    """

    period: Period
    zone: str = "UTC"
    _zone: tzinfo = field(init=False, repr=False, compare=False)
    _known: list[tuple[int, int]] = field(init=False, repr=False, compare=False, default_factory=list)

    def __post_init__(self) -> None:
        if self.period not in PERIODS:
            raise ValueError(f"{self.period!r} is no period; there are {', '.join(PERIODS)}")
        try:
            zone = UTC if self.zone == "UTC" else ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"there is no time zone {self.zone!r}; one reads Europe/Berlin") from None
        object.__setattr__(self, "_zone", zone)

    def bounds(self, now: float) -> tuple[int, int]:
        """Return the start and the end of the period around an instant, seconds since 1970, whole minutes."""
        if not self._known or not self._known[0][0] <= now < self._known[0][1]:
            local = datetime.fromtimestamp(now, self._zone)
            first = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
            if self.period == "week":
                first -= timedelta(days=first.weekday())
            elif self.period == "month":
                first = first.replace(day=1)
            if self.period == "month":
                after = (first + timedelta(days=32)).replace(day=1)
            else:
                after = first + timedelta(days=7 if self.period == "week" else 1)
            self._known[:] = [(int(first.timestamp()), int(after.timestamp()))]
        return self._known[0]

    def packed(self, now: float) -> int:
        """Return the period around an instant as the scripts get it: start in minutes * 65536 + its minutes."""
        start, end = self.bounds(now)
        return start // 60 << 16 | (end - start) // 60
