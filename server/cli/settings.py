"""The environment of a command: the real one, then a `.env` file, then the servers of a running `make run`.

`python -m server settings` prints what is in force, with secrets masked, and where each value comes from.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from dotenv import dotenv_values

from server.cli.state import StateFolder
from server.errors import CommandError
from server.settings import Settings, SettingsError, variables


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

    Args:
        environment: the process's own.
        root: the checkout, with its `.env` file and the state of a running `make run`.

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
