"""The Lua scripts of lua/: read once, together with what they include, and called by their SHA-1."""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

# Inside the package when it is installed, beside it in a checkout.
_PACKAGE = Path(__file__).resolve().parents[2]
SCRIPTS_FOLDER = next(
    (folder for folder in (_PACKAGE / "lua", _PACKAGE.parent / "lua") if folder.is_dir()),
    _PACKAGE / "lua",
)
_INCLUDE = re.compile(rb"^(?P<indent> *)-- @include (?P<name>[a-z_]+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Script:
    """One operation of Redis: the name of its file, its whole text, and the digest for EVALSHA."""

    name: str
    source: bytes
    sha1: str


@functools.cache
def load_script(name: str) -> Script:
    """Return the script lua/<name>.lua with its includes.

    The first line `-- @include part` is replaced by the text of lua/includes/part.lua. Each run of a script makes its
    functions anew, so what is rarely needed is included in the branch that needs it. Such a line is indented, and
    what it brings is visible in its branch only: another branch includes it again.

    Raises:
        FileNotFoundError: there is no such script, or a part that it includes is missing.
    """
    source = _read_with_includes(SCRIPTS_FOLDER / f"{name}.lua", included=set())
    return Script(name, source, hashlib.sha1(source, usedforsecurity=False).hexdigest())


def _read_with_includes(path: Path, included: set[str]) -> bytes:
    included.add(path.stem)

    def put_in(match: re.Match[bytes]) -> bytes:
        part = match["name"].decode()
        if part in included:
            return b""
        return _read_with_includes(
            SCRIPTS_FOLDER / "includes" / f"{part}.lua", set(included) if match["indent"] else included
        )

    return _INCLUDE.sub(put_in, path.read_bytes())
