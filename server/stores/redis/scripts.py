"""The Lua scripts of lua/: read once, with their includes put in, known to Redis by their SHA-1."""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

SCRIPTS_FOLDER = Path(__file__).resolve().parents[3] / "lua"
_INCLUDE = re.compile(rb"^(?P<indent> *)-- @include (?P<name>[a-z_/]+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Script:
    """One Redis operation: the name of its file, its whole text, and the digest that EVALSHA calls it by."""

    name: str
    source: bytes
    sha1: str


@functools.cache
def load_script(name: str) -> Script:
    """The script lua/<name>.lua; a line `-- @include part` is replaced by the text of lua/part.lua, the first time.

    Each run of a script makes its functions anew: what is rarely needed is included in the branch that needs it. Such a
    line is indented, and what it brings is seen in its branch only: another branch includes it again.

    Raises:
        FileNotFoundError: there is no such script, or a part that it includes is missing.
    """
    source = _read_with_includes(name, included=set())
    return Script(name, source, hashlib.sha1(source, usedforsecurity=False).hexdigest())


def _read_with_includes(name: str, included: set[str]) -> bytes:
    included.add(name)
    text = (SCRIPTS_FOLDER / f"{name}.lua").read_bytes()

    def put_in(match: re.Match[bytes]) -> bytes:
        part = match["name"].decode()
        if part in included:
            return b""
        return _read_with_includes(part, set(included) if match["indent"] else included)

    return _INCLUDE.sub(put_in, text)
