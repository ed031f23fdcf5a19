"""The environment of a command: the real one, then a `.env` file, then the servers of a running `make run`.

These are found by the `.state` folder of a checkout: what `make run` keeps, in files that only their owner can read.
`python -m server settings` prints what is in force, with secrets masked, and where each value comes from.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from dotenv import dotenv_values

from server.cli.signals import pause
from server.errors import CommandError
from server.settings import Settings, SettingsError, variables

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


def with_env_file(environment: Mapping[str, str], file: Path) -> dict[str, str]:
    """The environment with a `.env` file's variables where it has none, or an empty one.

    Raises:
        CommandError: the file can't be read.
    """
    try:
        values = dotenv_values(file) if file.exists() else {}
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"can't read {file}: {error}") from error
    return completed(environment, {name: value for name, value in values.items() if value is not None})


def beside_development(environment: Mapping[str, str], state: StateFolder) -> dict[str, str]:
    """The environment with the address, the servers and the key of this checkout's running `make run`, where unset."""
    running = state.find_running()
    if running is None:
        return dict(environment)
    address = urlsplit(running.address)
    found = {
        "HOST": address.hostname or "",
        "PORT": str(address.port or ""),
        "DATABASE_URL": running.database_url,
        "REDIS_URL": running.redis_url,
        "SECRET_KEY": running.secret_key,
        "MASTERY_ENV": "development",
    }
    return completed(environment, found)


def is_development(environment: Mapping[str, str], state: StateFolder) -> bool:
    """Whether an environment is that of this checkout's running `make run`, or says that it is a development one."""
    running = state.find_running()
    is_that_of_the_running = running is not None and environment.get("SECRET_KEY") == running.secret_key
    return is_that_of_the_running or environment.get("MASTERY_ENV", "").strip() == "development"


def completed(environment: Mapping[str, str], fallback: Mapping[str, str]) -> dict[str, str]:
    """The environment, with other values for what it does not set; an empty variable counts as not set."""
    missing = {name: value for name, value in fallback.items() if not environment.get(name, "").strip()}
    return {**environment, **missing}


_MASKED = "********"


def shown_settings(environment: Mapping[str, str], root: Path) -> tuple[str, list[str]]:
    """A line for each variable: its name, its value, and its source.

    Returns:
        The lines, and what is wrong with the settings, a sentence each.
    """
    with_file = with_env_file(environment, root / ".env")
    complete = beside_development(with_file, StateFolder(root / ".state"))
    sources = (("environment", environment), (".env", with_file), ("make run", complete))
    try:
        settings, problems = Settings.from_env(complete), []
    except SettingsError as error:
        settings, problems = None, error.problems
    rows = []
    for variable, name, default, is_secret in variables():
        text = complete.get(variable, "").strip()
        source = next((label for label, where in sources if where.get(variable, "").strip()), "default")
        value = text or _in_words(default if settings is None else getattr(settings, name))
        rows.append((variable, _masked(value) if is_secret else value, source))
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    lines = [f"{name:{widths[0]}}  {value:{widths[1]}}  {source}".rstrip() for name, value, source in rows]
    return "\n".join(lines) + "\n", problems


def _in_words(value: Any) -> str:
    if value in (None, "", frozenset()) or not isinstance(value, str | int | Path | frozenset):
        return "-"
    if isinstance(value, bool):
        return "on" if value else "off"
    return ",".join(sorted(value)) if isinstance(value, frozenset) else str(value)


def _masked(value: str) -> str:
    """A secret, or a URL without its password and the values of its options, which may be secrets too."""
    if value == "-":
        return value
    parts = urlsplit(value)
    if not parts.scheme or "://" not in value:
        return _MASKED
    credentials, at, host = parts.netloc.rpartition("@")
    user, colon, _ = credentials.partition(":")
    query = "&".join(f"{option.partition('=')[0]}={_MASKED}" for option in parts.query.split("&") if option)
    shown = f"{user}{colon and f':{_MASKED}'}{at}{host}"
    return urlunsplit(parts._replace(netloc=shown, query=query, fragment=""))
