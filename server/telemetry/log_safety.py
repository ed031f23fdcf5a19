"""Makes any Python value fit for a log line: JSON types only, bounded in size, without secrets."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from itertools import islice
from pathlib import PurePath
from typing import Any
from uuid import UUID

from server.telemetry.log_redaction import REDACTED, is_secret_key, redact

_OVERLAP = 512  # How far beyond a cut a secret may reach and still be recognised by its end.
_MAX_KEY_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a line may hold: characters of a text, items of a container, levels, characters of a stack."""

    characters: int
    items: int
    depth: int
    stack: int


def safe_text(text: str, characters: int) -> str:
    """The text as valid Unicode, redacted, and cut with a marker that says how much is missing."""
    length = len(text)
    if length > characters + _OVERLAP:
        text = text[: characters + _OVERLAP]
    text = redact(text)
    if length > characters:
        text = f"{text[:characters]}…[+{length - characters} characters]"
    if not text.isascii():
        text = text.encode("utf-8", "backslashreplace").decode()  # a lone surrogate is no Unicode
    return text


def safe_stack(text: str, characters: int) -> str:
    """A traceback, redacted, cut in its middle: where it began and, more of it, where it failed."""
    longest = 20 * characters
    if len(text) > longest:
        text = text[: longest // 2] + text[-longest // 2 :]
    text = redact(text).encode("utf-8", "backslashreplace").decode()
    if len(text) <= characters:
        return text
    head = characters // 4
    return f"{text[:head]}\n…[+{len(text) - characters} characters]\n{text[head - characters :]}"


def safe_value(value: object, limits: Limits, depth: int = 0) -> Any:
    """The value as JSON types. Never raises: what can't be shown is named by its type."""
    kind = type(value)
    if kind is str:
        return safe_text(value, limits.characters)  # type: ignore[arg-type]
    if value is None or kind is bool:
        return value
    try:
        for kinds, convert in _CONVERTERS:
            if isinstance(value, kinds):
                return convert(value, limits, depth)
        return safe_text(repr(value), limits.characters)
    except Exception:  # noqa: BLE001 - anybody's __repr__ may raise anything, and the line must go out
        return f"<{kind.__name__}: not representable>"


def safe_pair(key: object, value: object, limits: Limits, depth: int = 0) -> tuple[str, Any]:
    """A key as text and its value, which is redacted when the key says that it is secret."""
    name = key if type(key) is str else _key_text(key)
    secret = is_secret_key(name[-_MAX_KEY_CHARACTERS:])
    if len(name) > _MAX_KEY_CHARACTERS or not name.isascii():
        name = safe_text(name, _MAX_KEY_CHARACTERS)
    if secret and not _harmless(name, value):
        return name, REDACTED
    return name, safe_value(value, limits, depth)


def _harmless(key: str, value: object) -> bool:
    """Whether a value under a secret key tells nothing: absent, a yes or no, or a number of tokens."""
    return value is None or type(value) is bool or (type(value) in {int, float} and key.endswith("tokens"))


def _key_text(key: object) -> str:
    if isinstance(key, bytes):
        return key.decode("utf-8", "backslashreplace")
    try:
        return str(key)
    except Exception:  # noqa: BLE001 - as above
        return f"<{type(key).__name__}>"


def _integer(value: int, limits: Limits, _depth: int) -> int | str:
    return int(value) if -(2**63) <= value < 2**63 else _large_integer(value, limits)


def _float(value: float, _limits: Limits, _depth: int) -> float | str:
    return float(value) if math.isfinite(value) else repr(float(value))  # JSON has no NaN


def _bytes(value: bytes | bytearray | memoryview, limits: Limits, _depth: int) -> str:
    head = bytes(value[: limits.characters + _OVERLAP])
    text = safe_text(head.decode("utf-8", "backslashreplace"), limits.characters)
    return text if len(head) == len(value) else f"{text}…[{len(value)} bytes]"


def _large_integer(value: int, limits: Limits) -> str:
    if value.bit_length() > 4 * limits.characters:
        return f"<integer of {value.bit_length()} bits>"
    return hex(value) if value.bit_length() > 1024 else str(value)


def _mapping(value: Mapping[Any, Any], limits: Limits, depth: int) -> Any:
    if depth >= limits.depth:
        return f"<{type(value).__name__} of {len(value)}>"
    # tuple(): another thread may change the mapping while it is read
    pairs = tuple(islice(value.items(), limits.items))
    shown = dict(safe_pair(key, item, limits, depth + 1) for key, item in pairs)
    if len(value) > limits.items:
        shown["…"] = f"+{len(value) - limits.items} items"
    return shown


def _sequence(value: Iterable[Any], length: int, limits: Limits, depth: int) -> Any:
    if depth >= limits.depth:
        return f"<{type(value).__name__} of {length}>"
    shown = [_item(item, limits, depth + 1) for item in tuple(islice(value, limits.items))]
    if length > limits.items:
        shown.append(f"…+{length - limits.items} items")
    return shown


def _item(item: object, limits: Limits, depth: int) -> Any:
    """An item of a sequence; a (name, value) pair, as header lists hold them, is redacted by its name."""
    match item:
        case (str() | bytes() as name, value) if is_secret_key(_key_text(name)):
            return [_key_text(name), value if value is None else REDACTED]
        case _:
            return safe_value(item, limits, depth)


# The first that fits converts; whatever else there is shows its repr().
_CONVERTERS: tuple[tuple[type | tuple[type, ...], Callable[[Any, Limits, int], Any]], ...] = (
    (Enum, lambda value, limits, depth: safe_value(value.value, limits, depth)),
    (int, _integer),
    (float, _float),
    (str, lambda value, limits, _: safe_text(str.__str__(value), limits.characters)),
    ((bytes, bytearray, memoryview), _bytes),
    ((datetime, date, time), lambda value, *_: value.isoformat().replace("+00:00", "Z")),
    (timedelta, lambda value, *_: value.total_seconds()),
    ((UUID, Decimal, PurePath), lambda value, limits, _: safe_text(str(value), limits.characters)),
    (
        BaseException,
        lambda value, limits, _: safe_text(f"{type(value).__name__}: {value}", limits.characters),
    ),
    (type, lambda value, *_: f"{value.__module__}.{value.__qualname__}"),
    (Mapping, _mapping),
    ((list, tuple, AbstractSet), lambda value, limits, depth: _sequence(value, len(value), limits, depth)),
)
