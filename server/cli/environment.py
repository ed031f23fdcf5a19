"""The environment of a command: the real one, a `.env` file below it, and what `make run` runs below both."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values

from server.cli.state import StateFolder
from server.command_error import CommandError


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
    """The environment with the servers and the key of this checkout's running `make run`, where unset."""
    running = state.find_running()
    if running is None:
        return dict(environment)
    found = {
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
