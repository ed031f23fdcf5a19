"""What a sliding window must answer, by brute force over the list of all admissions."""

from __future__ import annotations

from dataclasses import dataclass, field


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
