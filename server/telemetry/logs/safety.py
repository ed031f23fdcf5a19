"""Makes any Python value fit for a log line: JSON types only, bounded in size, without secrets.

Secrets are found by the name of a field at any depth, and by their form inside texts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from itertools import islice
from pathlib import PurePath
from typing import Any, ClassVar
from uuid import UUID

REDACTED = "[redacted]"

# A key is secret when its last word is one of these: `refreshToken` and `set-cookie` are, `token_count` is
# not; or when it is a kind of key that opens something: `X-Api-Key` is, `cacheKey` is not. A carrier at the
# end does not change that: `password_hash` is secret.
_SECRET_WORDS = frozenset({
    "password", "passwords", "passwd", "passphrase", "passcode", "pwd", "pass", "pin", "otp", "secret",
    "secrets", "token", "tokens", "jwt", "jwts", "bearer", "auth", "authorization", "cookie", "cookies",
    "credential", "credentials", "apikey", "apikeys", "accesskey", "secretkey", "privatekey",
})  # fmt: skip
_OPENING_KEYS = frozenset({"api", "private", "secret", "access", "signing", "encryption", "master", "auth"})
_CARRIERS = frozenset(
    {"hash", "digest", "value", "header", "text", "raw", "string", "plain", "encoded", "base64"}
)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")

# One look decides whether a text needs the patterns below; nearly none does.
_SUSPECT = re.compile(
    r"://|eyJ|bearer|basic|passw|passphrase|pwd|secret|token|api.?key|authorization|cookie", re.IGNORECASE
)
_PATTERNS = (
    # Header lines: everything to the end of the line or of the quoted string.
    (
        re.compile(
            r"((?:authorization|cookie)(?:['\"]?\s{0,3}[:=]|['\"],)\s{0,3})(b?['\"]|)[^\r\n'\"]+",
            re.IGNORECASE,
        ),
        rf"\1\2{REDACTED}",
    ),
    # `Bearer x`, but not the prose "a Bearer token is required".
    (
        re.compile(
            r"\b(bearer\s{1,3})"
            r"(?!(?:tokens?|auth\w*|scheme|realm|headers?|credentials?|is|or|and|required)\b)[\w.~+/=\-]+",
            re.IGNORECASE,
        ),
        rf"\1{REDACTED}",
    ),
    (re.compile(r"\b(basic\s{1,3})(?=[a-z+/]*[0-9=])[a-z0-9+/]{6,}={0,2}", re.IGNORECASE), rf"\1{REDACTED}"),
    # A JSON Web Token, also one whose end is cut off.
    (re.compile(r"eyJ[\w\-]{8,}(?:\.[\w\-]*){0,4}"), REDACTED),
    # The password of scheme://user:password@host; after a port comes a path, not a password.
    (
        re.compile(r"(?<=://)([^\s/?#\"'<>:@]*):(?!\d{1,5}(?:[/?#,\s]|$))[^\s\"'<>]*@"),
        rf"\1:{REDACTED}@",
    ),
    # password=x, refreshToken=x, "secret": "x"
    (
        re.compile(
            r"((?:password|passwd|passphrase|pwd|secret|token|api[_-]?key)"
            r"(?:['\"]?\s{0,3}=|['\"]\s{0,3}:)\s{0,3})(?:(['\"])[^'\"\r\n]+|[^\s'\"&,;)}\]]+)",
            re.IGNORECASE,
        ),
        rf"\1\2{REDACTED}",
    ),
)
_OVERLAP = 512  # How far beyond a cut a secret may reach and still be recognised by its end.
_MAX_KEY_CHARACTERS = 100
_TOTAL_CHARACTERS = 40_000
_CHARACTERS_OF_ANYTHING_ELSE = 8
_LARGEST_SHOWN_BITS = 1024
Clean = Callable[[str], str]


@lru_cache(maxsize=4096)
def is_secret_key(key: str) -> bool:
    """Whether the value under this key must never be shown, whatever it is."""
    words = [word.lower() for word in _WORD.findall(key)]
    while len(words) > 1 and words[-1] in _CARRIERS:
        words.pop()
    if not words:
        return False
    if words[-1] in {"key", "keys"}:
        return len(words) > 1 and words[-2] in _OPENING_KEYS
    return words[-1] in _SECRET_WORDS


def redact(text: str) -> str:
    """The text without credentials: Bearer, Basic, JSON Web Tokens, cookies, passwords of URLs and DSNs."""
    # Every pattern needs one of these and a mere id has none. Written out, for this runs for each text of each line.
    if not (" " in text or ":" in text or "=" in text or "eyJ" in text or "\n" in text or "\t" in text):
        return text
    if _SUSPECT.search(text) is None:
        return text
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a line may hold: characters of a text, items of a container, levels, characters of a stack."""

    characters: int
    items: int
    depth: int
    stack: int


"""What takes out of a text whatever must not be shown; before a cut, which would hide it from the patterns."""


def safe_text(text: str, characters: int, clean: Clean = redact) -> str:
    """The text as valid Unicode, cleaned, and cut with a marker that counts what is missing."""
    length = len(text)
    if length > characters + _OVERLAP:
        text = text[: characters + _OVERLAP]
    text = clean(text)
    if length > characters:
        text = f"{text[:characters]}…[+{length - characters} characters]"
    if not text.isascii():
        text = text.encode("utf-8", "backslashreplace").decode()  # a lone surrogate is no Unicode
    return text


def safe_stack(text: str, characters: int, clean: Clean = redact) -> str:
    """A traceback, cleaned, cut in its middle: where it began and, more of it, where it failed."""
    longest = 20 * characters
    if len(text) > longest:
        text = text[: longest // 2] + text[-longest // 2 :]
    text = clean(text).encode("utf-8", "backslashreplace").decode()
    if len(text) <= characters:
        return text
    head = characters // 4
    return f"{text[:head]}\n…[+{len(text) - characters} characters]\n{text[head - characters :]}"


class Converter:
    """Turns the values of one line into JSON types, within the line's limits.

    Together they may hold `_TOTAL_CHARACTERS`, several times what a line takes: the work for a structure of any
    size, breadth and depth is bounded, too.
    """

    __slots__ = ("_clean", "_left", "limits")

    def __init__(self, limits: Limits, clean: Clean = redact) -> None:
        self.limits = limits
        self._clean = clean
        self._left = _TOTAL_CHARACTERS

    def pair(self, key: object, value: object, depth: int = 0) -> tuple[str, Any]:
        """A key as text and its value, which is redacted if the key is that of a secret."""
        name = key if type(key) is str else _key_text(key)
        secret = is_secret_key(name[-_MAX_KEY_CHARACTERS:])
        name = safe_text(name, _MAX_KEY_CHARACTERS, self._clean)
        self._left -= len(name)
        if secret and not _harmless(name, value):
            return name, REDACTED
        return name, self.value(value, depth)

    def value(self, value: object, depth: int = 0) -> Any:
        """The value as JSON types. Never raises: what can't be shown is named by its type."""
        kind = type(value)
        if kind is str:
            shown: Any = self._text(value)  # type: ignore[arg-type]
        elif value is None or kind is bool:
            shown = value
        else:
            try:
                shown = self._convert(value, depth)
            except Exception:  # noqa: BLE001 - any __repr__ may raise anything
                shown = f"<{kind.__name__}: not representable>"
        self._left -= len(shown) if type(shown) is str else _CHARACTERS_OF_ANYTHING_ELSE
        return shown

    def _text(self, value: str) -> str:
        return safe_text(value, self.limits.characters, self._clean)

    def _convert(self, value: object, depth: int) -> Any:
        for kinds, convert in self._converters:
            if isinstance(value, kinds):
                return convert(self, value, depth)
        return self._text(repr(value))

    def _integer(self, value: int, _depth: int) -> int | str:
        if -(2**63) <= value < 2**63:
            return int(value)
        bits = value.bit_length()
        return str(int(value)) if bits <= _LARGEST_SHOWN_BITS else f"<integer of {bits} bits>"

    def _float(self, value: float, _depth: int) -> float | str:
        return float(value) if math.isfinite(value) else repr(float(value))  # JSON has no NaN

    def _bytes(self, value: bytes | bytearray | memoryview, _depth: int) -> str:
        head = bytes(value[: self.limits.characters + _OVERLAP])
        text = self._text(head.decode("utf-8", "backslashreplace"))
        return text if len(head) == len(value) else f"{text}…[{len(value)} bytes]"

    def _error(self, value: BaseException, _depth: int) -> str:
        return self._text(f"{type(value).__name__}: {value}")

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> Any:
        length = len(value)
        if depth >= self.limits.depth:
            return f"<{type(value).__name__} of {length}>"
        shown: dict[str, Any] = {}
        taken = 0
        # tuple(): another thread may change the mapping while it is read
        for key, item in tuple(islice(value.items(), self.limits.items)):
            if self._left <= 0:
                break
            name, safe = self.pair(key, item, depth + 1)
            shown[name] = safe
            taken += 1
        if length > taken:
            shown["…"] = f"+{length - taken} items"
        return shown

    def _sequence(self, value: Collection[Any], depth: int) -> Any:
        length = len(value)
        if depth >= self.limits.depth:
            return f"<{type(value).__name__} of {length}>"
        shown: list[Any] = []
        for item in tuple(islice(value, self.limits.items)):
            if self._left <= 0:
                break
            shown.append(self._item(item, depth + 1))
        if length > len(shown):
            shown.append(f"…+{length - len(shown)} items")
        return shown

    def _item(self, item: object, depth: int) -> Any:
        """An item of a sequence; a (name, value) pair, as header lists hold them, is redacted by its name."""
        match item:
            case (str() | bytes() as name, value) if is_secret_key(_key_text(name)[-_MAX_KEY_CHARACTERS:]):
                return list(self.pair(name, value, depth))
            case _:
                return self.value(item, depth)

    # The first that fits converts; whatever else there is shows its repr().
    _converters: ClassVar[tuple[tuple[type | tuple[type, ...], Callable[[Any, Any, int], Any]], ...]] = (
        (Enum, lambda self, value, depth: self.value(value.value, depth)),
        (int, _integer),
        (float, _float),
        (str, lambda self, value, _: self._text(str.__str__(value))),
        ((bytes, bytearray, memoryview), _bytes),
        ((datetime, date, time), lambda _, value, __: value.isoformat().replace("+00:00", "Z")),
        (timedelta, lambda _, value, __: value.total_seconds()),
        ((UUID, Decimal, PurePath), lambda self, value, _: self._text(str(value))),
        (BaseException, _error),
        (type, lambda _, value, __: f"{value.__module__}.{value.__qualname__}"),
        (Mapping, _mapping),
        ((list, tuple, AbstractSet), _sequence),
    )


def _harmless(key: str, value: object) -> bool:
    """Whether a value under a secret key is no secret: absent, a yes or no, or a number of tokens."""
    return value is None or type(value) is bool or (type(value) in {int, float} and key.endswith("tokens"))


def _key_text(key: object) -> str:
    if isinstance(key, bytes):
        return key.decode("utf-8", "backslashreplace")
    try:
        return str(key)
    except Exception:  # noqa: BLE001 - the same of __str__
        return f"<{type(key).__name__}>"
