"""The terms of rate limiting: policy, charge, verdict and decision; and the Redis keys that charges are counted at."""

from __future__ import annotations

import hashlib
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from typing import Any, Final, Literal, NamedTuple, Self, TypeAlias, get_args

from ..stores.redis.protocol import ScriptCall
from .calendar import NOMINAL_MS, Calendar, Period

Algorithm = Literal["sliding_window", "token_bucket", "concurrency", "calendar"]
OnFailure = Literal["open", "closed", "local"]

# What decided: the script, the memory of an earlier refusal, or, while Redis is down, the policies' failure mode: a
# share of the limit in this process (fallback), the whole limit in this process (open), or nothing passes (closed); or
# the file's list of blocked networks.
Source = Literal["redis", "local-deny", "fallback", "open", "closed", "block-list"]

ALGORITHMS: Final[tuple[Algorithm, ...]] = get_args(Algorithm)
SOURCES: Final[tuple[Source, ...]] = get_args(Source)
FAILURE_MODES: Final[tuple[OnFailure, ...]] = get_args(OnFailure)

# Lua counts in doubles, structured fields in at most 15 digits (RFC 9651 section 3.3.1): far below both.
MAX_LIMIT: Final = 1_000_000_000
MAX_WINDOW_MS: Final = 366 * 24 * 3600 * 1000
MAX_NAME_LENGTH: Final = 64
MAX_COST: Final = 2**31 - 1
MAX_IN_FLIGHT: Final = 1000  # fewer than a log's entries: there no lease is merged with another


@dataclass(frozen=True, slots=True)
class Policy:
    """At most `limit` units of cost in any trailing window.

    Args:
        name: printable ASCII, 1 to 64 characters; part of the Redis key and of the RateLimit headers.
        limit: units of cost, 1 or more.
        window_ms: the window's length, milliseconds, 1 or more.
        algorithm: `sliding_window` (an exact log), `token_bucket` (GCRA: a steady refill), or `concurrency`: at most
            `limit` (up to `MAX_IN_FLIGHT`) at once, each until it is given back, or for a window at the most; or
            `calendar`: so many in each period of `calendar`, whose window is that period's usual length.
        on_failure: what holds while Redis does not answer: each process admits up to the limit (`open`), or its
            share of it (`local`), or nothing passes (`closed`).
        shadow: evaluated and counted, never enforced, never shown to the client.
        calendar: the periods of a `calendar` policy; None for others.

    Attributes:
        quoted_name: the name as a structured-field string (RFC 9651 section 3.3.3).
        item: the policy in `RateLimit-Policy`.

    Raises:
        ValueError: a field is outside of what it accepts.
    """

    name: str
    limit: int
    window_ms: int
    algorithm: Algorithm = "sliding_window"
    on_failure: OnFailure = "open"
    shadow: bool = False
    calendar: Calendar | None = None
    quoted_name: str = field(init=False, repr=False, compare=False)
    item: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not (
            isinstance(self.name, str)
            and 1 <= len(self.name) <= MAX_NAME_LENGTH
            and self.name.isascii()
            and self.name.isprintable()
        ):
            raise ValueError(
                f"a policy's name is 1 to {MAX_NAME_LENGTH} printable ASCII characters, not {self.name!r}"
            )
        if not _is_count(self.limit, MAX_LIMIT):
            raise ValueError(
                f"the limit of policy {self.name!r} is {self.limit!r}, not an integer from 1 to {MAX_LIMIT}"
            )
        if not _is_count(self.window_ms, MAX_WINDOW_MS):
            raise ValueError(
                f"the window of policy {self.name!r} is {self.window_ms!r} ms, "
                f"not an integer from 1 to {MAX_WINDOW_MS}"
            )
        if self.algorithm not in ALGORITHMS:
            raise ValueError(
                f"the algorithm of policy {self.name!r} is {self.algorithm!r}, not one of {ALGORITHMS}"
            )
        if self.on_failure not in FAILURE_MODES:
            raise ValueError(
                f"the failure mode of policy {self.name!r} is {self.on_failure!r}, not one of {FAILURE_MODES}"
            )
        if self.algorithm == "concurrency" and self.limit > MAX_IN_FLIGHT:
            raise ValueError(f"policy {self.name!r} allows {self.limit} at once; {MAX_IN_FLIGHT} at most")
        if (self.algorithm == "calendar") != (self.calendar is not None):
            raise ValueError(f"policy {self.name!r} has a calendar exactly if that is its algorithm")
        escaped = self.name.replace("\\", "\\\\").replace('"', '\\"')
        object.__setattr__(self, "quoted_name", f'"{escaped}"')
        object.__setattr__(self, "item", self.item_of(self.limit))

    @classmethod
    def by_calendar(cls, name: str, limit: int, period: Period, *, zone: str = "UTC") -> Self:
        """Return a quota for each day, week or month of a time zone.

        Args:
            name: of the policy.
            limit: units in each period.
            period: day, week or month.
            zone: a name of the IANA time zone database.

        Raises:
            ValueError: one of them is not what it accepts.
        """
        calendar = Calendar(period, zone)
        return cls(name, limit, NOMINAL_MS[period], "calendar", calendar=calendar)

    def with_limit(self, limit: int) -> Policy:
        """Return the policy with another limit; of what is limited at once, with the highest there is."""
        return replace(self, limit=min(limit, MAX_IN_FLIGHT) if self.algorithm == "concurrency" else limit)

    def item_of(self, limit: int) -> str:
        """Return the policy in `RateLimit-Policy` with another limit.

        `w` is whole seconds, rounded up, and left out below one; what is limited at once has a unit of its own instead.
        """
        if self.algorithm == "concurrency":
            return f'{self.quoted_name};q={limit};qu="concurrent-requests"'
        has_window = self.window_ms >= 1000 and (self.calendar is None or self.calendar.period != "month")
        window = f";w={-(-self.window_ms // 1000)}" if has_window else ""
        return f"{self.quoted_name};q={limit}{window}"

    @classmethod
    def parse(
        cls,
        text: str,
        *,
        name: str | None = None,
        algorithm: Algorithm = "sliding_window",
        on_failure: OnFailure = "open",
        shadow: bool = False,
    ) -> Self:
        """Return the policy that a text describes: `60/minute`, `5 per 15 minutes`, `10/500ms`.

        Args:
            text: a limit and a window of milliseconds, seconds, minutes, hours, days or weeks.
            name: of the policy. By default the limit and the window: then another limit begins with nothing in use.
            algorithm: as for a policy.
            on_failure: as for a policy.
            shadow: as for a policy.

        Raises:
            ValueError: the text is no such description, or a number is outside of what a policy accepts.
        """
        found = _DESCRIPTION.fullmatch(text.strip().lower()) if isinstance(text, str) else None
        if found is None:
            raise ValueError(
                f"a policy is a limit and a window, such as 60/minute or 5 per 15 minutes, not {text!r}"
            )
        count = int(found["count"] or 1)
        unit = next(unit for unit, words in _UNITS.items() if found["unit"] in words)
        window = unit if count == 1 else f"{count} {unit}s"
        limit = int(found["limit"].replace("_", ""))
        return cls(
            f"{limit}/{window}" if name is None else name,
            limit,
            count * _UNIT_MS[unit],
            algorithm,
            on_failure,
            shadow,
        )


_UNITS: Final = {
    "millisecond": ("ms", "millisecond", "milliseconds"),
    "second": ("s", "sec", "second", "seconds"),
    "minute": ("m", "min", "minute", "minutes"),
    "hour": ("h", "hour", "hours"),
    "day": ("d", "day", "days"),
    "week": ("w", "week", "weeks"),
}
_UNIT_MS: Final = {
    "millisecond": 1, "second": 1000, "minute": 60_000, "hour": 3_600_000, "day": 86_400_000, "week": 604_800_000,
}  # fmt: skip
_DESCRIPTION: Final = re.compile(
    r"(?P<limit>[0-9](?:_?[0-9]){0,15})(?: */ *| +per +)(?:(?P<count>[0-9]{1,12}) *)?(?P<unit>"
    + "|".join(word for words in _UNITS.values() for word in words)
    + ")"
)

Policies: TypeAlias = Policy | str | Iterable[Policy | str]


def parse_policies(policies: Policies) -> tuple[Policy, ...]:
    """Return policies, parsed where they are text; `10/second; 100/hour` is two.

    Raises:
        ValueError: a text describes no policy, there is none, or two have one name.
    """
    if isinstance(policies, Policy | str):
        policies = (policies,)
    parsed: list[Policy] = []
    for policy in policies:
        if isinstance(policy, Policy):
            parsed.append(policy)
        else:
            parsed.extend(_parse_text(policy))
    if not parsed:
        raise ValueError("there is no policy; one is written 60/minute")
    if len({policy.name for policy in parsed}) < len(parsed):
        raise ValueError("two policies have the same name: each needs one of its own to be counted by")
    return tuple(parsed)


@lru_cache(maxsize=1024)
def _parse_text(text: str) -> tuple[Policy, ...]:
    return tuple(map(Policy.parse, re.split(r"[;,]", text)))


@dataclass(frozen=True, slots=True)
class Charge:
    """One request's cost under one policy, and the subject that it is charged to.

    Args:
        policy: whose limit and window count.
        group: the route group; the same policy counts each group on its own.
        subject: what is charged, as `user:<id>`, `ip:<address or prefix>` or `email:<hash>`.
        cost: units, an integer from 1 to `MAX_COST`; what is above the policy's limit is never admitted.

    Raises:
        ValueError: the cost is no such integer, or group or subject is not text that UTF-8 can encode.
    """

    policy: Policy
    group: str
    subject: str
    cost: int = 1

    def __post_init__(self) -> None:
        if not _is_count(self.cost, MAX_COST):
            raise ValueError(f"a charge's cost is {self.cost!r}, not an integer from 1 to {MAX_COST}")
        if not (_is_text(self.group) and _is_text(self.subject)):
            raise ValueError(
                "a charge's group and subject are text that UTF-8 can encode, "
                f"not {self.group!r} and {self.subject!r}"
            )


def _is_count(value: object, most: int) -> bool:
    """A whole number from 1 on; True is no number, and 1.0 is none that can be packed for the scripts."""
    return type(value) is int and 1 <= value <= most


def _is_text(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


class Verdict(NamedTuple):
    """The answer of one policy to one charge.

    Args:
        policy: the charge's policy.
        group: the charge's route group.
        subject: the charge's subject.
        allowed: whether this policy has room for the cost.
        limit: the units this verdict was made with; less than the policy's while a fallback shares it out.
        remaining: units left after the decision, never below 0.
        next_release_ms: milliseconds until one more unit is free; 0 when none is in use.
        wait_ms: milliseconds until this cost would fit; 0 when it does.
        retryable: False when the cost is above the limit, so that no wait helps.
        shadow: evaluated only; `allowed` is what would have been decided.
    """

    policy: Policy
    group: str
    subject: str
    allowed: bool
    limit: int
    remaining: int
    next_release_ms: int
    wait_ms: int
    retryable: bool = True
    shadow: bool = False


# Makes a verdict of its fields in order: twice for each request, at half the cost of calling the class.
new_verdict: Final[Callable[[tuple[object, ...]], Verdict]] = partial(tuple.__new__, Verdict)


@dataclass
class Decision:
    """The answer to a request: all of its charges were made, or none.

    Args:
        allowed: every policy that is enforced had room.
        verdicts: one a charge, in the charges' order; shadow policies among them.
        source: what decided.
    """

    allowed: bool
    verdicts: tuple[Verdict, ...]
    source: Source

    @cached_property
    def violated(self) -> tuple[Verdict, ...]:
        """The verdicts that refused the request: enforced policies without room for it."""
        return tuple([verdict for verdict in self.verdicts if not (verdict.allowed or verdict.shadow)])


EPOCH_KEY = b"r:generation"  # the name that running releases share

# The number of the format of what is counted (sliding_window and token_bucket in lua/includes). It is part of the keys'
# names: two versions of the service beside each other, as during a deploy, must not read each other's formats.
STATE_FORMAT = 3

_SUBJECT_BYTES = 12  # 96 bits: two subjects that share a budget can't be found.
_SCOPE_BYTES = 6  # The operator's own names; a process sees a few dozen.
_REQUEST_BYTES = 12


def state_key(charge: Charge) -> bytes:
    """Return the key of a charge's state: `r:{subject}:scope`, of policy name, route group and the state's format.

    The algorithm is no part of it. Each state names its own, so that a reload can carry it over.
    """
    policy = charge.policy
    # A calendar's count says nothing about a window, and back: after a reload each begins with nothing in use.
    name = policy.name if policy.calendar is None else f"{policy.name}\0calendar"
    return subject_prefix(charge.subject) + _scope(name, charge.group)


def pages_key(charge: Charge) -> bytes:
    """Return the key of the list that holds the middle of a long log."""
    return state_key(charge) + b"p"


def block_key(subject: str) -> bytes:
    """Return the key that exists while a subject is blocked."""
    return subject_prefix(subject) + b"b"


def probe_key(subject: str) -> bytes:
    """Return the key that a probe writes: whether the server of a subject's keys takes writes again."""
    return subject_prefix(subject) + b"?"


def record_key(charges: Iterable[Charge], request_id: str) -> bytes:
    """Return the key of the verdict on a request id; the same id for other charges is another request."""
    charges = tuple(charges)
    parts = [request_id, *(f"{state_key(charge).hex()} {charge.cost}" for charge in charges)]
    return subject_prefix(charges[0].subject) + b"i" + _digest("\0".join(parts), _REQUEST_BYTES)


@lru_cache(maxsize=16_384)
def subject_prefix(subject: str) -> bytes:
    """Return the beginning of all keys of a subject, with the hash tag that keeps them in one Cluster slot."""
    return b"r:{" + _digest(subject, _SUBJECT_BYTES) + b"}:"


@lru_cache(maxsize=1024)
def _scope(policy_name: str, group: str) -> bytes:
    return _digest(f"{STATE_FORMAT}\0{policy_name}\0{group}", _SCOPE_BYTES)


def _digest(text: str, size_bytes: int) -> bytes:
    # A request id may be any text, and so may the subject that an operator names.
    data = text.encode(errors="surrogatepass")
    return urlsafe_b64encode(hashlib.blake2b(data, digest_size=size_bytes).digest())


MAX_CHARGES: Final = 64


class PreparedCharges(tuple[Charge, ...]):  # noqa: SLOT001 - a tuple can't have slots
    """A request's charges with all that deciding them needs, made once for a client and group of routes.

    Attributes:
        keys: of each charge's state.
        one_subject: whether all are of one subject.
        cost_more: whether one of them costs more than one unit.
        leases: the indexes of the charges that are given back when the request ends.
        lease_ms: how long such a charge lasts at the most, milliseconds; 0 if there is none.
        calendars: of those that have one.
        turns_at: when the first of these turns, seconds since 1970: `call` holds until then.
        seeds: the indexes of the charges under `local` policies, whose use is kept for the time without Redis.
        call: the script call that decides them without a request id, with the length of logs it was made for; None
            until it is needed.
        overridden: the same under the overrides in force, with these; None until some were looked for.
        refused: the latest `RememberedRefusal` of them; None until there is one.

    Raises:
        ValueError: two charges would be counted as one, or there are more than `MAX_CHARGES`.
    """

    keys: tuple[bytes, ...]
    one_subject: bool
    cost_more: bool
    leases: tuple[int, ...]
    lease_ms: int
    calendars: tuple[Calendar, ...]
    turns_at: float
    seeds: tuple[int, ...]
    call: tuple[int, ScriptCall] | None
    overridden: tuple[object, PreparedCharges] | None
    refused: Any

    def __new__(cls, charges: Iterable[Charge]) -> Self:
        """Prepare charges."""
        self = super().__new__(cls, charges)
        if len(self) > MAX_CHARGES:
            raise ValueError(f"a request has at most {MAX_CHARGES} charges, not {len(self)}")
        self.keys = tuple(map(state_key, self))
        if len(set(self.keys)) < len(self.keys):
            raise ValueError("two charges have the same policy, group and subject: make them one")
        self.one_subject = len({charge.subject for charge in self}) <= 1
        self.cost_more = any(charge.cost > 1 for charge in self)
        self.leases = tuple(
            index for index, charge in enumerate(self) if charge.policy.algorithm == "concurrency"
        )
        self.lease_ms = max((self[index].policy.window_ms for index in self.leases), default=0)
        self.calendars = tuple([charge.policy.calendar for charge in self if charge.policy.calendar])
        self.turns_at = 0.0
        self.seeds = tuple(index for index, charge in enumerate(self) if charge.policy.on_failure == "local")
        self.call = self.overridden = self.refused = None
        return self


class BlockedCharges(PreparedCharges):
    """The charges of a request that is refused whatever they are: its client's address is in a blocked network."""


def prepared(charges: Sequence[Charge]) -> PreparedCharges:
    """Return the charges, prepared unless they are already.

    Raises:
        ValueError: two charges would be counted as one, or there are more than `MAX_CHARGES`.
    """
    return charges if type(charges) is PreparedCharges else PreparedCharges(charges)


@lru_cache(maxsize=8192, typed=True)  # True is no cost, though it equals 1
def charges_of(subject: str, *policies: Policy, cost: int = 1, group: str = "") -> PreparedCharges:
    """Return the charges of a subject's request under some policies, remembered for its next one.

    Args:
        subject: what is charged, such as `user:42`.
        policies: one or more.
        cost: units, the same under every policy.
        group: of what is counted apart from other groups.

    Raises:
        ValueError: the cost or the subject is none (`Charge`), or two policies have the same name.
    """
    return PreparedCharges([Charge(policy, group, subject, cost) for policy in policies])
