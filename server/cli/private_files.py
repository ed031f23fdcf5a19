"""Files that only their owner can read."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from server.command_error import CommandError


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, wholly or not at all.

    Raises:
        CommandError: it can't be written; the message says where and why.
    """
    unfinished = path.with_name(f"{path.name}.new")
    try:
        unfinished.unlink(missing_ok=True)
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        unfinished.replace(path)
    except OSError as error:
        raise CommandError(f"can't write {path}: {error.strerror}") from error


def kept_secret(path: Path) -> str:
    """The secret in a file: 32 random bytes in hexadecimal, made at the first call."""
    if not path.exists():
        write_private(path, secrets.token_hex(32))
    return path.read_text(encoding="ascii").strip()
