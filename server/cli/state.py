"""The `.state` folder of a checkout: what `make run` keeps, in files that only their owner can read.

By it other commands find the servers of a running `make run`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from server.cli.signals import pause
from server.errors import CommandError

_CLAIM_TRIES = 10
_CLAIM_PAUSE_SECONDS = 0.05


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A `make run` that is running, as it announced itself."""

    pid: int
    address: str
    database_url: str
    redis_url: str
    secret_key: str


class StateFolder:
    """Everything that `make run` keeps between two runs, in one folder of one checkout."""

    def __init__(self, folder: Path) -> None:
        self._lock = folder / "lock"
        self._running = folder / "running.json"
        self._secret_key = folder / "secret-key"
        self.folder = folder
        self.postgres = folder / "postgres"
        self.redis = folder / "redis"

    def secret_key(self) -> str:
        """The key that signs this checkout's access tokens, made once."""
        return kept_secret(self._secret_key)

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Keep the folder for ourselves until the block ends.

        Raises:
            CommandError: another process has it, or it can't be written.
        """
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            lock = self._lock.open("a")
        except OSError as error:
            raise CommandError(f"can't write {self.folder}: {error.strerror}") from error
        with lock:
            for _ in range(_CLAIM_TRIES):
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                pause(_CLAIM_PAUSE_SECONDS)  # it may only be another command that looks whether we run
            else:
                running = self._read()
                who = f"process {running.pid}, {running.address}" if running else "it is still starting"
                raise CommandError(f"this checkout runs already ({who}); stop that one first")
            try:
                yield
            finally:
                with contextlib.suppress(OSError):
                    self._running.unlink()

    def announce(self, running: Running) -> None:
        """Tell other commands what runs; only for the holder of the claim."""
        write_private(self._running, json.dumps(asdict(running), indent=1) + "\n")

    def find_running(self) -> Running | None:
        """The `make run` that runs in this checkout now, if there is one and we may know about it."""
        try:
            with self._lock.open() as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return self._read()
        except OSError:
            return None
        return None  # the claim is free: what is written there is left from a killed process

    def _read(self) -> Running | None:
        try:
            return Running(**json.loads(self._running.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
