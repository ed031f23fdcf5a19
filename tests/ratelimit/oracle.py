"""What a sliding window and a token bucket must answer, by brute force over the list of all admissions."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction


@dataclass(slots=True)
class Admission:
    """Units charged at a time, microseconds."""

    at: int
    units: int
    request_id: str | None = None


@dataclass(slots=True)
class OracleWindow:
    """One key: its admissions, in order."""

    admissions: list[Admission] = field(default_factory=list)

    def notice_clock(self, now: int) -> bool:
        """The clock has gone back: the newest admission happened just now, the others as long before it."""
        back = self.admissions[-1].at - now if self.admissions else 0
        if back <= 0:
            return False
        for admission in self.admissions:
            admission.at -= back
        return True

    def forget(self, now: int, span: int) -> None:
        """What has left the window is not there any more when the window grows later."""
        self.admissions = [one for one in self.admissions if one.at > now - span]

    def used(self, now: int, span: int) -> int:
        """Units charged in the trailing window."""
        back = max(0, self.admissions[-1].at - now) if self.admissions else 0
        return sum(one.units for one in self.admissions if one.at - back > now - span)

    def wait(self, now: int, span: int, limit: int, cost: int) -> int:
        """Microseconds until the cost fits, found by asking at every instant at which something leaves."""
        back = max(0, self.admissions[-1].at - now) if self.admissions else 0
        instants = sorted(
            {now, *(one.at - back + span for one in self.admissions if one.at - back + span > now)}
        )
        for instant in instants:
            used = sum(one.units for one in self.admissions if one.at - back > instant - span)
            if used + cost <= limit:
                return instant - now
        raise AssertionError("a cost up to the limit fits when everything has left")


@dataclass(slots=True)
class OracleBucket:
    """One key of a token bucket, in exact fractions: what has come, and never a level that is kept.

    Attributes:
        admissions: units charged, since the last reload or refund; the first of them may be what was left then.
        written: when something was charged or refunded last.
    """

    admissions: list[tuple[Fraction, Fraction]] = field(default_factory=list)
    written: Fraction = Fraction(0)

    def level(self, now: int | Fraction, rate: Fraction) -> Fraction:
        """Units in use: of all stretches of time that end now, the one in which most came beyond what drained."""
        back = max(Fraction(0), self.written - now)
        stretches = [
            sum((units for at, units in self.admissions if at >= start), Fraction(0))
            - rate * (now - start + back)
            for start, _ in self.admissions
        ]
        return max(Fraction(0), *stretches) if stretches else Fraction(0)

    def notice_clock(self, now: int) -> bool:
        """Something is written: if the clock has gone back, what was charged last was charged just now."""
        back = max(Fraction(0), self.written - now)
        self.admissions = [(at - back, units) for at, units in self.admissions]
        self.written = Fraction(now)
        return back > 0

    def start_from(self, at: int | Fraction, level: Fraction) -> None:
        """Forget how it came to this."""
        self.admissions, self.written = [(Fraction(at), level)], Fraction(at)
