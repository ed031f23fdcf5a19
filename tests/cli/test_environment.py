"""What a command's settings are made of: the environment, then .env, then what runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.cli.environment import Running, StateFolder, beside_development, completed, with_env_file
from server.errors import CommandError


def test_env_file_fills_what_is_not_set(tmp_path: Path) -> None:
    """The real environment wins, unless its variable is empty."""
    file = tmp_path / ".env"
    file.write_text("# ours\nPORT=8001\nHOST='::1'\nexport LOG_LEVEL=debug\nNOTHING\n")
    found = with_env_file({"PORT": "9000", "HOST": " ", "HOME": "/h"}, file)
    assert {"PORT": "9000", "HOST": "::1", "LOG_LEVEL": "debug", "HOME": "/h"} == found


def test_no_env_file_is_fine(tmp_path: Path) -> None:
    """A fresh checkout has none."""
    assert {"PORT": "9000"} == with_env_file({"PORT": "9000"}, tmp_path / ".env")


def test_an_unreadable_env_file_is_named(tmp_path: Path) -> None:
    """A file that is no text is refused by name, not by a traceback."""
    file = tmp_path / ".env"
    file.write_bytes(b"PORT=\xff\xfe\n")
    with pytest.raises(CommandError, match=r"can't read .*\.env"):
        with_env_file({}, file)


def test_a_running_service_fills_the_rest(tmp_path: Path) -> None:
    """Beside `make run`, the other commands find its servers and its key; what is set still wins."""
    state = StateFolder(tmp_path / ".state")
    environment = {"DATABASE_URL": "postgresql://mine", "REDIS_URL": ""}
    assert environment == beside_development(environment, state)
    with state.claimed():
        state.announce(
            Running(
                pid=1,
                address="http://127.0.0.1:8123",
                database_url="postgresql://d",
                redis_url="redis://r",
                secret_key="key",
            )
        )
        expected = {
            "DATABASE_URL": "postgresql://mine",
            "REDIS_URL": "redis://r",
            "SECRET_KEY": "key",
            "HOST": "127.0.0.1",
            "PORT": "8123",
            "MASTERY_ENV": "development",
        }
        assert expected == beside_development(environment, state)


def test_completing_keeps_what_is_set() -> None:
    """A fallback never replaces a value."""
    assert {"A": "1", "B": "3"} == completed({"A": "1", "B": " "}, {"A": "2", "B": "3"})
