"""The `.state` folder: one owner at a time, who is found by the other commands while it runs."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from server.cli.environment import Running, StateFolder
from server.errors import CommandError

RUNNING = Running(
    pid=1,
    address="http://127.0.0.1:8000",
    database_url="postgresql://d",
    redis_url="redis://r",
    secret_key="s" * 32,
)


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
