"""States of the store in memory: a sliding window as two lists, a token bucket as a level, and one from the other.

The scripts in lua/ keep the same packed in a string.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from typing import NamedTuple


class Weighed(NamedTuple):
    """A cost against a state.

    Args:
        used: units in use.
        release: microseconds until more are free; 0 if none are in use.
        wait: microseconds until the cost fits; 0 if it does.
        after: `release` once the cost is charged.
        lasts: microseconds until nothing is in use.
    """

    used: float
    release: int
    wait: int
    after: int
    lasts: int


_MINUTE_US = 60_000_000


@dataclass(slots=True)
class Window:
    """A sliding window: when units were charged, and how many in all up to then.

    Attributes:
        base: from which slots are counted; it moves with the entries.
        times: of the entries, oldest first, microseconds.
        totals: units up to and with each entry.
        start: units before the first entry.
        edition: another one once times have been shifted, or the log begun anew: refunds are void then.
    """

    base: int = 0
    times: list[int] = field(default_factory=list)
    totals: list[int] = field(default_factory=list)
    start: int = 0
    edition: object = field(default_factory=object)

    def notice_clock(self, now: int) -> None:
        """Shift everything if the clock has gone back, so that the newest entry happened just now."""
        back = self.times[-1] - now if self.times else 0
        if back > 0:
            self.times = [at - back for at in self.times]
            self.base -= back
            self.edition = object()

    def weigh(self, now: int, limit: int, span: int, cost: float) -> Weighed:
        """Weigh a cost; nothing changes."""
        now = max(now, self.times[-1]) if self.times else now
        first = bisect_right(self.times, now - span)
        if first == len(self.times):
            return Weighed(0, 0, 0 if cost <= limit else 1, span, 0)
        before = self.totals[first - 1] if first else self.start
        used = self.totals[-1] - before

        def leaving(units: float) -> int:
            return self.times[bisect_left(self.totals, before + units, lo=first)] + span - now

        release = leaving(max(1, used + 1 - limit))
        wait = leaving(used + cost - limit) if used + cost > limit >= cost else 0
        return Weighed(used, release, wait, leaving(1), self.times[-1] + span - now)

    def charge(self, now: int, span: int, cost: int, entries: int, *, at: int | None = None) -> None:
        """Charge units, now or at an instant in the past; with so many live entries they are merged by slots."""
        first = bisect_right(self.times, now - span)
        if first == len(self.times):
            self.base = now if at is None else at
            self.times, self.totals, self.start, self.edition = [self.base], [cost], 0, object()
            return
        if first:
            self.start = self.totals[first - 1]
            del self.times[:first], self.totals[:first]
        newest = self.times[-1]
        at = now if at is None else max(at, newest)
        slot = -(-span // entries)
        total = self.totals[-1] + cost
        is_merged = at == newest or (
            len(self.times) >= entries and (at - self.base) // slot == (newest - self.base) // slot
        )
        if is_merged:
            self.times[-1], self.totals[-1] = at, total
        else:
            self.times.append(at)
            self.totals.append(total)

    def refund(self, now: int, span: int, units: int, at: int) -> int:
        """Take units that were charged at an instant out of the log; all of them or none."""
        if at <= now - span or self.times[-1] > now:
            return 0
        index = bisect_left(self.times, at)
        if index == 0 and self.times[0] > at:
            return 0  # the oldest entry is a later one: it may hold what other requests were charged
        self.totals[index:] = [total - units for total in self.totals[index:]]
        if self.totals[index] <= (self.totals[index - 1] if index else self.start):
            del self.times[index], self.totals[index]
        return units


@dataclass(slots=True)
class Bucket:
    """A token bucket as a level that drains; see lua/includes/token_bucket.lua.

    Attributes:
        level: units in use at `at`.
        at: when it was written last, microseconds.
        born: when it was last empty.
        edition: another one once it has been made of a window.
    """

    level: float
    at: int
    born: int
    edition: object = field(default_factory=object)

    def at_time(self, now: int, limit: int, span: int) -> Bucket:
        """Return the bucket as it is now."""
        level, at, born = self.level, min(self.at, now), self.born - max(0, self.at - now)
        level = min(level, 2.0 * limit) - (now - at) * limit / span
        return Bucket(level, now, born, self.edition) if level > 0 else Bucket(0.0, now, now, self.edition)

    def weigh(self, now: int, limit: int, span: int, cost: float) -> Weighed:
        """Weigh a cost; nothing changes."""
        level = self.at_time(now, limit, span).level
        after = level + cost
        wait = max(1, math.ceil((after - limit) * span / limit)) if after > limit else 0

        def release(units: float) -> int:
            return math.ceil((units - min(math.ceil(units), limit + 1) + 1) * span / limit)

        return Weighed(
            level, release(level) if level > 0 else 0, wait, release(after), math.ceil(level * span / limit)
        )


def bucket_from_window(window: Window, now: int, limit: int, span: int) -> Bucket:
    """Return the bucket that would be there had it been charged all that a log remembers; at most twice the limit."""
    level, last, before = 0.0, window.base, window.start
    for at, total in zip(window.times, window.totals, strict=True):
        level = max(0.0, level - (at - last) * limit / span) + (total - before)
        last, before = at, total
    at = min(last, now)
    return Bucket(min(level, 2.0 * limit), at, at)


def window_from_bucket(bucket: Bucket, now: int, limit: int, span: int) -> Window | None:
    """Return a window in which what has not drained is one charge, of the last time; None if nothing is in use."""
    at = min(bucket.at, now)
    units = math.ceil(min(bucket.level, 2.0 * limit) - (now - at) * limit / span)
    return Window(at, [at], [units]) if units > 0 and now - at < span else None


@dataclass(slots=True)
class CalendarCount:
    """What was charged in a period of the calendar; see lua/includes/calendar.lua.

    Attributes:
        start: of the period, minutes since 1970; 0 if it is not known.
        end: the same.
        used: units charged in it.
        edition: another one once another period's count has begun: refunds are void then.
    """

    start: int
    end: int
    used: int = 0
    edition: object = field(default_factory=object)

    def weigh(self, now: int, limit: int, span: int, cost: float) -> Weighed:
        """Weigh a cost; nothing changes. The count is that of the period around `now`."""
        del span
        rest = self.end * _MINUTE_US - now if self.end else _MINUTE_US // 60
        release = rest if self.used else 0
        return Weighed(self.used, release, rest if self.used + cost > limit else 0, rest, 0)

    def refund(self, units: int, start: int, end: int) -> int:
        """Take units of a period back, if it is this one."""
        if not (0 < start == self.start or 0 < end == self.end):
            return 0
        units = min(units, self.used)
        self.used -= units
        return units

    def life_us(self, now: int, length: int) -> int:
        """Return how long the count is needed; its period's length in minutes stands for an end that is not known."""
        return self.end * _MINUTE_US - now if self.end else length * _MINUTE_US + 86_400_000_000


def calendar_count(old: CalendarCount | None, now: int, period: int) -> CalendarCount:
    """Return the count of the period around an instant.

    Args:
        old: what is there.
        now: microseconds since 1970.
        period: the start of the caller's period in minutes * 65536 + its minutes.
    """
    length, minute = period % 65536, now // _MINUTE_US
    start = period >> 16
    end = start + length
    if minute >= end:
        start, end = end, 0
    elif minute < start:
        start, end = 0, start
    if old is None:
        return CalendarCount(start, end)
    if _is_same(old, start, end, length):
        return CalendarCount(start or old.start, end or old.end, old.used, old.edition)
    is_known = 0 not in {start, end, old.start, old.end}
    if is_known and (min(end, old.end) - max(start, old.start)) * 2 > old.end - old.start:
        return CalendarCount(start, end, old.used)
    if (old.start or old.end - 1) > (start or end - 1):
        return CalendarCount(old.start, old.end, old.used, old.edition)
    return CalendarCount(start, end)


def _is_same(old: CalendarCount, start: int, end: int, length: int) -> bool:
    """Return whether a period is the count's; of both, the start or the end may not be known."""
    if start and start == old.start:
        return True
    if end and end == old.end:
        return 0 in {start, old.start}
    if start * old.start or end * old.end:
        return False
    # One has the start and the other the end: the same if no second period fits between them.
    span = end + old.end - start - old.start
    return span > 0 and 2 * span < 3 * length
