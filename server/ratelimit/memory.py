"""The limiter's store in memory, for tests and for services of one process: `Limiter.from_url("memory://")`.

It has the interface of a link to Redis and runs the limiter's scripts, each as a function here: same operands, same
replies (the headers in lua/ say which), so a limiter decides on it as on Redis.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from time import monotonic_ns, time_ns
from typing import Any, Final, NamedTuple, TypeAlias

from ..stores.redis.protocol import ScriptCall
from ..stores.redis.scripts import Script
from .scripts import _ANSWER, _CHARGE, KEPT_LONGER_MS, ChargeState
from .states import (
    Bucket,
    CalendarCount,
    Weighed,
    Window,
    bucket_from_window,
    calendar_count,
    window_from_bucket,
)

_SWEPT_AFTER: Final = 1024  # writes, or as many as there are keys


def _microseconds() -> int:
    return monotonic_ns() // 1000


_WINDOW, _BUCKET, _CALENDAR = range(3)

_State: TypeAlias = Window | Bucket | CalendarCount


class _Charge(NamedTuple):
    """A charge as decide_charges gets it, with the key of its state; `span` is microseconds, or a calendar's period."""

    key: Any
    algorithm: int
    limit: int
    span: int
    cost: float
    block: Any = None
    enforced: bool = True


class _Receipt(NamedTuple):
    """What a decision has charged: units, and where; of a calendar's period its start and end."""

    units: float
    edition: object = None
    at: int = 0
    born: int = 0
    algorithm: int = _WINDOW


class MemoryLink:
    """Memory with the interface of a `RedisLink`; the source of its decisions is `redis`, as there.

    Limiters of one process that share it share what they count.

    Args:
        clock: returns microseconds; by default those of a clock that never goes back.
    """

    is_cluster: Final = False
    connected: Final = True
    kept_longer_us: int = KEPT_LONGER_MS * 1000

    def __init__(self, clock: Callable[[], int] = _microseconds) -> None:
        self._clock = clock
        self._kept: dict[Any, tuple[Any, int]] = {}  # each value with the end of its life
        self._writes = 0
        self._scripts: dict[str, Callable[[Sequence[Any], Sequence[Any]], Any]] = {
            "decide_charges": self._decide_charges,
            "peek_charges": self._peek_charges,
            "refund_charges": self._refund_charges,
            "charge_unbilled": self._charge_unbilled,
            "read_overrides": self._read_overrides,
            "write_override": self._write_override,
        }

    def __len__(self) -> int:
        return len(self._kept)

    async def start(self) -> None:
        """Nothing has to be connected."""

    async def close(self) -> None:
        """Nothing has to be cut; what was counted stays."""

    def node_of(self, _key: bytes) -> str:
        """Return the name of the only place there is."""
        return "memory"

    async def execute(self, *command: Any, deadline_ms: float | None = None) -> Any:
        """Run one of the commands that a limiter sends: SET with PX, GET, HGET, PTTL, UNLINK, CONFIG, INFO.

        Raises:
            ValueError: it is another one.
        """
        del deadline_ms
        match command:
            case ("SET", key, value, "PX", life_ms):
                self._keep(key, value.encode() if isinstance(value, str) else value, int(life_ms) * 1000)
                return b"OK"
            case ("GET", key):
                return self._find(key)
            case ("HGET", key, field):
                return (self._find(key) or {}).get(field.encode())
            case ("PTTL", key):
                return -2 if self._find(key) is None else self._life_us(key) // 1000
            case ("UNLINK", *keys):
                return sum(self._find(key) is not None for key in keys if self._kept.pop(key, None))
            case ("CONFIG" | "INFO", *_):
                return []
        raise ValueError(f"a store in memory has no command {command[0]!r}")

    def begin(self, call: ScriptCall, *, deadline_ms: float | None = None) -> Awaitable[Any]:
        """Run one of the limiter's scripts, once it is awaited."""
        return self.run(call, deadline_ms=deadline_ms)

    async def run(self, call: ScriptCall, *, deadline_ms: float | None = None) -> Any:
        """Run one of the limiter's scripts."""
        count = int(call.operands[0])
        keys, args = call.operands[1 : count + 1], call.operands[count + 1 :]
        return await self.run_script(call.script, keys, args, deadline_ms=deadline_ms)

    async def run_script(
        self, script: Script, keys: Sequence[Any], args: Sequence[Any], *, deadline_ms: float | None = None
    ) -> Any:
        """Run one of the limiter's scripts."""
        del deadline_ms
        return self._scripts[script.name](keys, args)

    def _decide_charges(self, keys: Sequence[Any], args: Sequence[Any]) -> bytes:
        charges = list(_unpacked(keys, args[0]))
        record_key = keys[-1] if len(args) > 1 else None
        if record_key is not None and (record := self._find(record_key)) is not None:
            reply: bytes = record[0]
            return reply
        entries, now = _entries(args[0]), self._clock()
        allowed, rows = self._weigh_all(charges, now, writes=True)
        reply, receipts = bytes((allowed,)), []
        for charge, (code, remaining, weighed, wait) in zip(charges, rows, strict=True):
            if allowed and code == ChargeState.FITS:
                receipts.append(self._charge(charge, now, entries))
                reply += _ANSWER.pack(code, remaining - int(charge.cost), weighed.after, wait)
            else:
                receipts.append(_Receipt(0))
                reply += _ANSWER.pack(code, remaining, weighed.release, wait)
        if record_key is not None:
            self._keep(record_key, (reply, receipts), int(args[1]) * 1000)
        return reply

    def _peek_charges(self, keys: Sequence[Any], args: Sequence[Any]) -> bytes:
        allowed, rows = self._weigh_all(list(_unpacked(keys, args[0])), self._clock(), writes=False)
        answers = (
            _ANSWER.pack(code, remaining, weighed.release, wait) for code, remaining, weighed, wait in rows
        )
        return bytes((allowed,)) + b"".join(answers)

    def _refund_charges(self, keys: Sequence[Any], args: Sequence[Any]) -> list[int]:
        count, entries, now = len(keys) // 2, int(args[0]), self._clock()
        reply, receipts = self._find(keys[-1]) or (None, None)
        if receipts is None:
            return []
        left = [_Receipt(0)] * count
        units = []
        for index, receipt in enumerate(receipts[:count]):
            limit, window_ms, cost = map(int, args[index * 3 + 1 : index * 3 + 4])
            if cost < 0:
                left[index] = receipt
                units.append(0)
                continue
            span = window_ms if receipt.algorithm == _CALENDAR else window_ms * 1000
            charge = _Charge(keys[index], receipt.algorithm, limit, span, cost - receipt.units)
            units.append(self._settle(charge, receipt, now, entries) if receipt.units else 0)
        is_over = not any(int(args[index * 3 + 3]) < 0 for index in range(count))
        self._kept[keys[-1]] = ((reply, None if is_over else left), self._kept[keys[-1]][1])
        return units

    def _settle(self, charge: _Charge, receipt: _Receipt, now: int, entries: int) -> int:
        """Change what a request has cost by the charge's units; return the units given back, below 0 if charged."""
        limit, span, more = charge.limit, charge.span, charge.cost
        if charge.algorithm == _CALENDAR:
            return self._settle_calendar(charge, receipt)
        if more > 0:
            state = self._state(charge, now, writes=True)
            used = state.weigh(now, limit, span, 0).used if state is not None else 0
            if (more := min(more, math.floor(limit - used))) > 0:
                self._charge(charge._replace(cost=more), now, entries)
            return -max(0, int(more))
        state, units = self._find(charge.key), -more
        if units == 0 or state is None or state.edition is not receipt.edition:
            return 0
        if isinstance(state, Window):
            back: int = state.refund(now, span, int(units), receipt.at)
            if not state.times:
                del self._kept[charge.key]
            return back
        return self._settle_bucket(charge, receipt, state, now)

    def _settle_bucket(self, charge: _Charge, receipt: _Receipt, state: Bucket, now: int) -> int:
        limit, span, units = charge.limit, charge.span, -charge.cost
        bucket = state.at_time(now, limit, span)
        credit: float = min(bucket.level, units, receipt.units - (now - receipt.at) * limit / span)
        if bucket.born != receipt.born or credit <= 0:
            return 0
        bucket.level -= credit
        self._keep(charge.key, bucket, math.ceil(bucket.level * span / limit) + self.kept_longer_us)
        return math.floor(credit)

    def _settle_calendar(self, charge: _Charge, receipt: _Receipt) -> int:
        kept: CalendarCount | None = self._find(charge.key)
        if kept is None:
            return 0
        count, more = calendar_count(kept, self._wall_us(), charge.span), int(charge.cost)
        if count.edition is not receipt.edition:
            return 0
        units = -more if more < 0 else -max(0, min(more, charge.limit - count.used))
        back = count.refund(units, receipt.at, receipt.born)
        kept.used -= back
        return back

    def _charge_unbilled(self, keys: Sequence[Any], args: Sequence[Any]) -> int:
        entries, now, charged = int(args[0]), self._clock(), 0
        for index in range(len(keys) // 2):
            algorithm, limit, window_ms, units, age = map(int, args[index * 5 + 1 : index * 5 + 6])
            span, cost = window_ms if algorithm == _CALENDAR else window_ms * 1000, float(units)
            charge = _Charge(keys[index], algorithm, limit, span, 0)
            state = self._state(charge, now, writes=True)
            used = state.weigh(now, limit, span, 0).used if state is not None else 0
            if algorithm == _WINDOW and age >= span:
                continue
            if isinstance(state, CalendarCount) and self._wall_us() - age < state.start * 60_000_000:
                continue
            if algorithm == _BUCKET and not used:
                cost -= age * limit / span
            cost = min(cost, 2 * limit - used)
            if cost > 0:
                self._charge(charge._replace(cost=cost), now, entries, at=now - age)
                charged += 1
        return charged

    def _read_overrides(self, keys: Sequence[Any], _args: Sequence[Any]) -> list[Any]:
        overrides: dict[bytes, Any] = self._find(keys[0]) or {}
        now, reply = self._lives_at(), [overrides.get(b"word", b"")]
        for name, value in overrides.items():
            if name != b"word" and (rest_ms := (value[1] - now) // 1000) > 0:
                reply += [name, value[0], rest_ms]
        return reply

    def _write_override(self, keys: Sequence[Any], args: Sequence[Any]) -> int:
        word, most, limit, duration_ms, *fields = args
        now, kept = self._lives_at(), self._find(keys[0]) or {}
        overrides = {field: value for field, value in kept.items() if field == b"word" or value[1] > now}
        there = {field for field in fields if field in overrides}
        if limit < 0:
            overrides = {field: value for field, value in overrides.items() if field not in there}
        elif len(overrides.keys() - {b"word"}) + len(fields) - len(there) > most:
            return -1
        else:
            overrides |= dict.fromkeys(fields, (limit, now + duration_ms * 1000))
        overrides[b"word"] = word.encode()
        ends = [value[1] - now for field, value in overrides.items() if field != b"word"]
        self._keep(keys[0], overrides, max([duration_ms * 1000, *ends]) + 1_000_000)
        return len(there) if limit < 0 else len(fields)

    def _weigh_all(
        self, charges: Sequence[_Charge], now: int, *, writes: bool
    ) -> tuple[bool, list[tuple[int, int, Weighed, int]]]:
        allowed, rows = True, []
        for charge in charges:
            state = self._state(charge, now, writes=writes) or Window()
            instant = self._wall_us() if charge.algorithm == _CALENDAR else now
            weighed = state.weigh(instant, charge.limit, charge.span, charge.cost)
            code, remaining, wait = ChargeState.FITS, charge.limit - weighed.used, 0
            if (blocked := self._life_us(charge.block)) > 0:
                code, remaining, wait = ChargeState.BLOCKED, 0, blocked // 1000 * 1000
            elif charge.cost > charge.limit:
                code, wait = ChargeState.TOO_DEAR, -1
            elif weighed.wait:
                code, wait = ChargeState.DENIED, weighed.wait
                if writes and self._life_us(charge.key) < weighed.lasts:
                    self._keep(charge.key, state, weighed.lasts + self.kept_longer_us)
            allowed = allowed and (code == ChargeState.FITS or not charge.enforced)
            rows.append((int(code), max(0, math.floor(remaining)), weighed, wait))
        return allowed, rows

    def _state(self, charge: _Charge, now: int, *, writes: bool) -> _State | None:
        """Return a charge's state for its algorithm, converted if it was the other one's; kept so if it may write."""
        state: _State | None = self._find(charge.key)
        if charge.algorithm == _CALENDAR:
            known = state if isinstance(state, CalendarCount) else None
            return calendar_count(known, self._wall_us(), charge.span)
        found = state
        is_bucket = charge.algorithm == _BUCKET
        if state is None:
            return Bucket(0.0, now, now) if is_bucket else None
        if isinstance(state, Window) and is_bucket:
            state = bucket_from_window(state, now, charge.limit, charge.span)
            life = math.ceil(state.level * charge.span / charge.limit)
        elif isinstance(state, Bucket) and not is_bucket:
            state, life = window_from_bucket(state, now, charge.limit, charge.span), charge.span
        if writes and state is not found:
            if state is None:
                del self._kept[charge.key]
            else:
                self._keep(charge.key, state, life + self.kept_longer_us)
        if writes and isinstance(state, Window):
            state.notice_clock(now)
        return state

    def _charge(self, charge: _Charge, now: int, entries: int, *, at: int | None = None) -> _Receipt:
        state = self._state(charge, now, writes=True)
        if isinstance(state, Bucket):
            bucket = state.at_time(now, charge.limit, charge.span)
            bucket.level += charge.cost
            life = math.ceil(bucket.level * charge.span / charge.limit)
            self._keep(charge.key, bucket, life + self.kept_longer_us)
            return _Receipt(charge.cost, bucket.edition, now, bucket.born, _BUCKET)
        if isinstance(state, CalendarCount):
            state.used += int(charge.cost)
            life = state.life_us(self._wall_us(), charge.span % 65536)
            self._keep(charge.key, state, life + self.kept_longer_us)
            return _Receipt(charge.cost, state.edition, state.start, state.end, _CALENDAR)
        window = state or Window()
        window.charge(now, charge.span, int(charge.cost), entries, at=at)
        self._keep(charge.key, window, charge.span + self.kept_longer_us)
        return _Receipt(charge.cost, window.edition, window.times[-1])

    def _wall_us(self) -> int:
        """Return microseconds since 1970, for the calendar."""
        return time_ns() // 1000

    def _lives_at(self) -> int:
        """Return the instant by which lives are measured."""
        return self._clock()

    def _find(self, key: Any) -> Any:
        value, ends_at = self._kept.get(key, (None, 0))
        return value if ends_at > self._lives_at() else None

    def _life_us(self, key: Any) -> int:
        _, ends_at = self._kept.get(key, (None, 0))
        return ends_at - self._lives_at()

    def _keep(self, key: Any, value: Any, life_us: int) -> None:
        now = self._lives_at()
        self._kept[key] = (value, now + life_us)
        self._writes += 1
        if self._writes > _SWEPT_AFTER + len(self._kept):
            self._writes = 0
            self._kept = {key: kept for key, kept in self._kept.items() if kept[1] > now}


def _entries(packed: bytes) -> int:
    """Return how long a log grows before it becomes a ring; the same for every charge."""
    entries: int = _CHARGE.unpack_from(packed)[5]
    return entries


def _unpacked(keys: Sequence[Any], packed: bytes) -> Iterator[_Charge]:
    """Return the charges of a decision or a peek."""
    for index, (rule, limit, high, low, cost, _, block) in enumerate(_CHARGE.iter_unpack(packed)):
        algorithm, is_shadow = divmod(rule, 2)
        span = high << 32 | low
        yield _Charge(keys[index], algorithm, limit, span, cost, keys[block - 1], not is_shadow)
