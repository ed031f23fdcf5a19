"""Values of the cache that this process has decoded already: the same version of a key is not decoded twice."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

# Decoded, a value takes several times its encoded size.
DEFAULT_MAX_BYTES = 16 << 20


class DecodedValues:
    """Decoded values by key and version, bounded by the encoded size of what it holds; the oldest go first.

    Redis stays the only judge of what is current: a value is found only under the version that Redis has just named.
    Whoever gets a value shares it with others and must not change it.
    """

    def __init__(self, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._known: OrderedDict[str, tuple[bytes, int, Any]] = OrderedDict()

    def find(self, key: str, version: bytes) -> Any:
        """The value of a version of a key; None if it is not known."""
        known = self._known.get(key)
        return known[2] if known is not None and known[0] == version else None

    def remember(self, key: str, version: bytes, size: int, value: Any) -> None:
        """Keep the value of a version, in the place of the one before. Args: size: of its encoded form, bytes."""
        former = self._known.pop(key, None)
        if former is not None:
            self._bytes -= former[1]
        self._known[key] = (version, size, value)
        self._bytes += size
        while self._bytes > self._max_bytes:
            _, (_, oldest_size, _) = self._known.popitem(last=False)
            self._bytes -= oldest_size
