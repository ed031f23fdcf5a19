"""The environment of a command: what it is made of, where it is printed from, and the state of a running `make run`."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from server.cli.environment import (
    Running,
    StateFolder,
    beside_development,
    completed,
    shown_settings,
    with_env_file,
)
from server.errors import CommandError

ENVIRONMENT = {
    "DATABASE_URL": "postgresql://ada:hunter2@db.example/mastery?sslmode=require&password=hunter2",
    "SECRET_KEY": "hunter2-" * 4,
    "WEB_CONCURRENCY": "4",
}
RUNNING = Running(
    pid=1,
    address="http://127.0.0.1:8000",
    database_url="postgresql://d",
    redis_url="redis://r",
    secret_key="s" * 32,
)


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


def rows_of(text: str) -> dict[str, list[str]]:
    """The value and the source of each variable."""
    return {line.split()[0]: line.split()[1:] for line in text.splitlines()}


def test_deploy_04_every_value_has_its_source(tmp_path: Path) -> None:
    """The environment, the .env file and the defaults are told apart; nothing secret is printed."""
    (tmp_path / ".env").write_text("REDIS_URL=rediss://:hunter2@cache.example:6380/0\nWEB_CONCURRENCY=9\n")
    text, problems = shown_settings(ENVIRONMENT, tmp_path)
    rows = rows_of(text)
    assert [] == problems
    assert ["4", "environment"] == rows["WEB_CONCURRENCY"]
    assert ["rediss://:********@cache.example:6380/0", ".env"] == rows["REDIS_URL"]
    assert (
        "postgresql://ada:********@db.example/mastery?sslmode=********&password=********"
        == rows["DATABASE_URL"][0]
    )
    assert ["********", "environment"] == rows["SECRET_KEY"]
    assert ["8000", "default"] == rows["PORT"]
    assert ["-", "default"] == rows["METRICS_TOKEN"]
    assert "hunter2" not in text


def test_deploy_04_problems_come_with_what_is_there(tmp_path: Path) -> None:
    """Settings that can't be used are printed all the same, and what is wrong with them is listed."""
    text, problems = shown_settings({**ENVIRONMENT, "PORT": "none"}, tmp_path)
    assert ["none", "environment"] == rows_of(text)["PORT"]
    assert ["REDIS_URL", "PORT"] == [problem.split(":")[0].split()[0] for problem in problems]


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    """The state folder of a fresh checkout."""
    return StateFolder(tmp_path / ".state")


def test_what_runs_is_found_while_it_runs(state: StateFolder) -> None:
    """Other commands see the announcement until the claim ends."""
    with state.claimed():
        assert state.find_running() is None
        state.announce(RUNNING)
        assert RUNNING == state.find_running()
    assert state.find_running() is None


def test_a_killed_run_is_not_running(state: StateFolder) -> None:
    """An announcement that its owner could not take back is not believed."""
    with state.claimed():
        pass
    state.announce(RUNNING)
    assert state.find_running() is None


def test_a_checkout_runs_once(state: StateFolder) -> None:
    """The second one is told who the first one is."""
    with state.claimed():
        with pytest.raises(CommandError, match="still starting"), StateFolder(state.folder).claimed():
            pass
        state.announce(RUNNING)
        with pytest.raises(CommandError, match=r"process 1, http://127\.0\.0\.1:8000"), state.claimed():
            pass


def test_looking_does_not_disturb_a_start(state: StateFolder) -> None:
    """A command that looks whether we run holds the lock for a moment: the claim waits for it."""
    with state.claimed():
        pass
    assert state.find_running() is None
    with state.claimed():
        state.announce(RUNNING)


def test_a_broken_announcement_is_none(state: StateFolder) -> None:
    """A file of another version, or half a file, is no reason to fail."""
    with state.claimed():
        for text in ("", "{", "[]", '{"pid": 1}'):
            (state.folder / "running.json").write_text(text)
            assert state.find_running() is None


def test_the_secret_key_is_made_once_and_private(state: StateFolder) -> None:
    """Tokens stay valid from one run to the next, and only the owner can make them."""
    with state.claimed():
        key = state.secret_key()
        state.announce(RUNNING)
        files = [state.folder / "secret-key", state.folder / "running.json"]
        assert [0o600] * 2 == [stat.S_IMODE(file.stat().st_mode) for file in files]
    assert 0o700 == stat.S_IMODE(state.folder.stat().st_mode)
    assert 64 == len(key)
    assert key == StateFolder(state.folder).secret_key()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """The error says which folder and why."""
    (tmp_path / "file").touch()
    with (
        pytest.raises(CommandError, match=r"can't write .*\.state: Not a directory"),
        StateFolder(tmp_path / "file" / ".state").claimed(),
    ):
        pass
