"""The answer's fields of a decision: the rate limit headers, and the problem body of a refusal.

`RateLimit-Policy` and `RateLimit` follow draft-ietf-httpapi-ratelimit-headers-11. Times are rounded up and quotas
down, so that a client that follows them is not refused.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from math import ceil
from operator import itemgetter
from typing import Any, Final, Literal, NamedTuple
from zlib import crc32

from .policies import Charge, Decision, Verdict

DraftVersion = Literal[11, 12]

# The names of "available quota" and "effective window". Proposals for the draft's successor rename both, and add the
# cost of the request and a partition in `RateLimit`.
_PARAMETERS: Final[dict[DraftVersion, tuple[str, str]]] = {
    11: (";r=", ";t="),
    12: (";a=", ";w="),
}

QUOTA_EXCEEDED: Final = "https://iana.org/assignments/http-problem-types#quota-exceeded"
COST_ABOVE_LIMIT: Final = "urn:problem-type:mastery:cost-above-limit"

_MOST_SPREAD_SECONDS: Final = 30
_RESET: Final = "X-RateLimit-Reset: "
_CACHED_FIELDS: Final = 1024
_PARTITION_BYTES: Final = 9


class Waits(NamedTuple):
    """How long the clients of a refusal are to wait.

    Args:
        jitter_seconds: added to every wait, so that refused clients do not retry in step.
        retry_after_seconds: the longest wait including the jitter; None if one of the costs never fits.
    """

    jitter_seconds: int
    retry_after_seconds: int | None


def waits_of(decision: Decision, *, jitter: str = "") -> Waits:
    """Return the retry jitter in seconds (so refused clients do not retry in step) and the longest wait including it.

    The jitter is up to a twentieth of the wait. A first refusal stays within the longest window, after which everything
    is free again. Only a client that keeps asking while refused, and so is answered from memory, may be sent past it.

    Args:
        decision: a decision that refused.
        jitter: any text that differs between concurrent requests, such as the request id. The same text always gives
            the same waits.

    Raises:
        ValueError: the decision refused nothing.
    """
    violated = decision.violated
    if not violated:
        raise ValueError("only a refusal has waits and a problem; this decision allowed the request")
    wait_ms = window_ms = 1
    is_retryable = True
    for verdict in violated:
        wait_ms = max(wait_ms, verdict.wait_ms)
        window_ms = max(window_ms, verdict.policy.window_ms)
        is_retryable = is_retryable and verdict.retryable
    wait_seconds = _up_to_seconds(wait_ms)
    room = _most_jitter_seconds(wait_seconds)
    if decision.source != "local-deny":
        room = min(room, max(0, _up_to_seconds(window_ms) - wait_seconds))
    extra = crc32(jitter.encode(), crc32(violated[0].subject.encode())) % (room + 1) if room else 0
    return Waits(extra, wait_seconds + extra if is_retryable else None)


def _most_jitter_seconds(wait_seconds: int) -> int:
    return min(max(1, wait_seconds // 20), _MOST_SPREAD_SECONDS)


def rate_limit_headers(
    decision: Decision,
    *,
    now: float,
    version: DraftVersion = 11,
    waits: Waits | None = None,
    charges: Sequence[Charge] = (),
) -> list[tuple[str, str]]:
    """Return the headers with a client's limit and what is left of it; none if only shadow policies were asked.

    Args:
        decision: the limiter's answer, with its verdicts.
        now: the instant of the decision, seconds since 1970.
        version: the draft whose parameters are used in `RateLimit`.
        waits: of a refusal; by default those without jitter between the requests of one client.
        charges: of the request: from version 12 on `RateLimit` then names what it costs (`c`), and the partition that
            it is counted in (`pk`), of which a policy may have several.
    """
    return pairs_of(rate_limit_lines(decision, now=now, version=version, waits=waits, charges=charges))


def pairs_of(lines: str) -> list[tuple[str, str]]:
    """Return names and values of the lines of a head."""
    return [(name, value) for name, _, value in [line.partition(": ") for line in lines.split("\r\n")[:-1]]]


def rate_limit_lines(
    decision: Decision,
    *,
    now: float,
    version: DraftVersion = 11,
    waits: Waits | None = None,
    charges: Sequence[Charge] = (),
) -> str:
    """Return the same headers as lines of a response's head, each with its line break; the arguments are the same."""
    shown = enforced = _enforced(decision)
    if not enforced:
        return ""
    jitter_seconds, retry_after = 0, ""
    if not decision.allowed:
        shown = decision.violated
        jitter_seconds, seconds = waits or waits_of(decision)
        if seconds is not None:
            retry_after = f"Retry-After: {seconds}\r\n"
    ordered = shown if len(shown) == 1 else tuple(sorted(shown, key=_BY_REMAINING))
    closest = _closest(ordered, allowed=decision.allowed)
    if charges and version >= 12:
        limit_field = _partitioned_limit_field(ordered, jitter_seconds, charges)
    else:
        limit_field = _limit_field(ordered, version, jitter_seconds)
    return (
        f"X-RateLimit-Limit: {closest[_LIMIT]}\r\nX-RateLimit-Remaining: {closest[_REMAINING]}\r\n"
        f"X-RateLimit-Reset: {_instant_text(ceil(now * 1000) + _reset_ms(closest))}\r\n"
        f"RateLimit-Policy: {_policy_field(enforced)}\r\nRateLimit: {limit_field}\r\n{retry_after}"
    )


def refusal_of(
    decision: Decision,
    *,
    now: float,
    jitter: str,
    version: DraftVersion = 11,
    charges: Sequence[Charge] = (),
) -> tuple[str, dict[str, Any]]:
    """Return the answer to a refused request: the lines of its head, and its problem; they name the same wait.

    Args:
        decision: that refused.
        now: as for `rate_limit_headers`, with the others.
        jitter: as for `waits_of`.
        version: see `now`.
        charges: see `now`.
    """
    waits = waits_of(decision, jitter=jitter)
    lines = rate_limit_lines(decision, now=now, version=version, waits=waits, charges=charges)
    return lines, problem_of(decision, waits=waits)


class RefusalTexts:
    """The texts of a refusal that is remembered. From request to request only its seconds and its instant change.

    They are those of `rate_limit_lines` and `problem_of`.

    Args:
        decision: from memory, with one verdict that refused, of a policy with a window, by a time after which its cost
            fits.

    Attributes:
        body: what the first to write such a refusal has kept of its body.
    """

    def __init__(self, decision: Decision) -> None:
        self.body: Any = None
        (verdict,) = decision.violated
        waits = Waits(0, 1)
        lines, problem = rate_limit_lines(decision, now=0, waits=waits), problem_of(decision, waits=waits)
        start = lines.index(_RESET) + len(_RESET)
        quota = _PARAMETERS[11][0]
        self._seed = crc32(verdict.subject.encode())
        self._remaining = verdict.remaining
        self._limit, self._window_ms = verdict.limit, verdict.policy.window_ms
        self._until_instant = lines[:start]
        self._until_quota = lines[lines.index("\r\n", start) : lines.rindex(quota) + len(quota)]
        self._detail = problem["detail"].removesuffix("1 s.")
        self._problem = problem

    def at(self, wait_ms: int, *, now: float, jitter: str) -> tuple[str, int]:
        """Return the lines of the head, and the seconds after which the client may try again.

        Args:
            wait_ms: milliseconds until the cost fits, at least 1.
            now: seconds since 1970.
            jitter: as for `waits_of`.
        """
        seconds = -(-wait_ms // 1000)
        seconds += crc32(jitter.encode(), self._seed) % (_most_jitter_seconds(seconds) + 1)
        quota = self._remaining and min(self._remaining, self._limit * seconds * 1000 // self._window_ms)
        return (
            f"{self._until_instant}{_instant_text(ceil(now * 1000) + wait_ms)}"
            f"{self._until_quota}{quota};t={seconds}\r\nRetry-After: {seconds}\r\n"
        ), seconds

    def problem(self, seconds: object) -> dict[str, Any]:
        """Return the problem. Args: seconds: as `at` has returned them."""
        return {**self._problem, "detail": f"{self._detail}{seconds} s."}


def problem_of(decision: Decision, *, waits: Waits | None = None) -> dict[str, Any]:
    """Return the RFC 9457 body of a refusal, but for its request id.

    A cost above a policy's limit has a type of its own: waiting does not help, only a lower cost does.

    Args:
        decision: a decision that refused.
        waits: as for the headers.

    Raises:
        ValueError: the decision refused nothing.
    """
    wait_seconds = (waits or waits_of(decision)).retry_after_seconds
    if wait_seconds is None:
        hopeless = [verdict for verdict in decision.violated if not verdict.retryable]
        return {
            "type": COST_ABOVE_LIMIT,
            "title": "Request costs more than its quota ever allows",
            "status": 429,
            "detail": f"This request alone costs more than {_in_words(hopeless)}. Ask for less at a time.",
            "violated-policies": _names(hopeless),
        }
    return {
        "type": QUOTA_EXCEEDED,
        "title": "Request cannot be satisfied as assigned quota has been exceeded",
        "status": 429,
        "detail": f"More than {_in_words(decision.violated)}. Try again in {wait_seconds} s.",
        "violated-policies": _names(decision.violated),
    }


def _enforced(decision: Decision) -> tuple[Verdict, ...]:
    for verdict in decision.verdicts:
        if verdict[_SHADOW]:
            return tuple([verdict for verdict in decision.verdicts if not verdict.shadow])
    return decision.verdicts


def _closest(ordered: tuple[Verdict, ...], *, allowed: bool) -> Verdict:
    """Return the verdict closest to exhaustion: the longest refusal, else the fewest units left.

    What is limited at once comes last: it has no time at which it is reset.

    Args:
        ordered: by what is left.
        allowed: whether all of them have admitted the request.
    """
    first = ordered[0]
    if len(ordered) == 1:
        return first
    if not allowed or first[0].algorithm == "concurrency":
        return min(ordered, key=_closeness)
    # Nobody waits: of those with the fewest units left, the one that is reset last.
    for other in ordered:
        if other[_REMAINING] > first[_REMAINING]:
            break
        if other[_NEXT_RELEASE_MS] > first[_NEXT_RELEASE_MS] and other[0].algorithm != "concurrency":
            first = other
    return first


def _closeness(verdict: Verdict) -> tuple[bool, bool, int, int, int]:
    is_last = verdict.policy.algorithm == "concurrency"
    return verdict.retryable, is_last, -verdict.wait_ms, verdict.remaining, -verdict.next_release_ms


def _reset_ms(verdict: Verdict) -> int:
    """Return the time until the refused cost fits or, if it did or never will, until the next unit is free."""
    return verdict.next_release_ms if verdict.allowed or not verdict.retryable else verdict.wait_ms


def _instant_text(milliseconds: int) -> str:
    """RFC 3339 in UTC, with milliseconds."""
    second, millisecond = divmod(milliseconds, 1000)
    return _second_text(second) + _MILLISECONDS[millisecond]


_MILLISECONDS: Final = tuple(f".{number:03d}Z" for number in range(1000))


@lru_cache(maxsize=_CACHED_FIELDS)  # Many answers name an instant of the same second.
def _second_text(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat()[:-6]


def _up_to_seconds(milliseconds: int) -> int:
    return -(-milliseconds // 1000)


def _policy_field(verdicts: tuple[Verdict, ...]) -> str:
    """Return `RateLimit-Policy`: one item for each policy name."""
    items = {}
    for verdict in verdicts:
        policy, limit = verdict[0], verdict[_LIMIT]
        name = policy.name
        if name not in items:
            items[name] = policy.item if limit == policy.limit else policy.item_of(limit)
    return ", ".join(items.values())


def _limit_field(ordered: tuple[Verdict, ...], version: DraftVersion, jitter_seconds: int) -> str:
    """Return `RateLimit`: the scarcest first; of a policy that counts two subjects of one request, the scarcer."""
    quota_name, window_name = _PARAMETERS[version]
    items: dict[str, str] = {}
    for verdict in ordered:
        policy = verdict[0]
        name = policy.name
        if name not in items:
            quota, seconds = _service_limit(verdict, jitter_seconds)
            items[name] = (
                f"{policy.quoted_name}{quota_name}{verdict.remaining}"  # at once: there is no window
                if policy.algorithm == "concurrency"
                else f"{policy.quoted_name}{quota_name}{quota}{window_name}{seconds}"
            )
    return ", ".join(items.values())


def _partitioned_limit_field(
    ordered: tuple[Verdict, ...], jitter_seconds: int, charges: Sequence[Charge]
) -> str:
    """Return `RateLimit` with the cost of the request and with partitions, as proposed for the draft's successor."""
    costs = {(charge.policy.name, charge.group, charge.subject): charge.cost for charge in charges}
    items = []
    for verdict in ordered:
        name, subject = verdict.policy.quoted_name, verdict.subject
        quota, seconds = _service_limit(verdict, jitter_seconds)
        cost = costs.get((verdict.policy.name, verdict.group, subject))
        items.append(
            f"{name};a={quota};w={seconds}{'' if cost is None else f';c={cost}'};pk=:{_partition(subject)}:"
        )
    return ", ".join(items)


@lru_cache(maxsize=_CACHED_FIELDS)
def _partition(subject: str) -> str:
    """Return a subject's partition: a digest, as a subject may hold an address that is nobody else's business."""
    digest = hashlib.blake2b(subject.encode(), digest_size=_PARTITION_BYTES, person=b"partition")
    return base64.b64encode(digest.digest()).decode()


# Fields are read by their places where every response comes by: reading them by name takes several times as long.
_LIMIT: Final = 4
_REMAINING: Final = 5
_NEXT_RELEASE_MS: Final = 6
_SHADOW: Final = 9
_BY_REMAINING: Final = itemgetter(_REMAINING)


def _service_limit(verdict: Verdict, jitter_seconds: int) -> tuple[int, int]:
    """Return the available quota and the effective window in seconds, within which no more than the quota is free.

    Quota over window is never a faster pace than the policy's own (draft section 8.5).
    """
    policy, _, _, allowed, limit, remaining, next_release_ms, wait_ms, retryable, _ = verdict
    window_ms = policy.window_ms
    if not allowed and retryable:
        window_seconds = max(1, _up_to_seconds(wait_ms)) + jitter_seconds
        return min(remaining, limit * window_seconds * 1000 // window_ms), window_seconds
    if remaining >= limit:
        return limit, -(-window_ms // 1000)
    if policy.calendar is not None:
        return remaining, max(1, -(-next_release_ms // 1000))  # until the calendar turns
    pace_seconds = ((window_ms * remaining + limit - 1) // limit + 999) // 1000  # rounded up
    release_seconds = (next_release_ms + 999) // 1000
    return remaining, max(pace_seconds, release_seconds) or 1


def _names(verdicts: Iterable[Verdict]) -> list[str]:
    return list(dict.fromkeys([verdict.policy.name for verdict in verdicts]))


def _in_words(verdicts: Iterable[Verdict]) -> str:
    """Return the limits in words: `10 per minute (strict)`, `2 at once (imports)`."""
    limits = [
        f"{verdict.limit} at once ({verdict.policy.name})"
        if verdict.policy.algorithm == "concurrency"
        else f"{verdict.limit} per calendar {verdict.policy.calendar.period} ({verdict.policy.name})"
        if verdict.policy.calendar is not None
        else _limit_in_words(verdict.limit, verdict.policy.window_ms, verdict.policy.name)
        for verdict in verdicts
    ]
    return ", ".join(dict.fromkeys(limits))


@lru_cache(maxsize=_CACHED_FIELDS)
def _limit_in_words(limit: int, window_ms: int, name: str) -> str:
    return f"{limit} per {_window_in_words(window_ms)} ({name})"


def _window_in_words(window_ms: int) -> str:
    for unit, unit_ms in (("day", 86_400_000), ("hour", 3_600_000), ("minute", 60_000), ("second", 1000)):
        if window_ms % unit_ms == 0:
            count = window_ms // unit_ms
            return unit if count == 1 else f"{count} {unit}s"
    return f"{window_ms} ms"
