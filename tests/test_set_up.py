"""The set-up behind make: the first Python that fits, once, begun again after an interruption."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.checkout import ROOT

LOCK = "requirements-embedded.txt"


@dataclass(frozen=True, slots=True)
class SetUp:
    """A checkout with a lock that needs no network, and a PATH of its own."""

    folder: Path
    path: Path

    def add_python(self, name: str, script: str) -> None:
        """Put a command on the PATH."""
        command = self.path / name
        command.write_text(f"#!/bin/sh\n{script}\n")
        command.chmod(0o755)

    def run(self, **variables: str) -> subprocess.CompletedProcess[str]:
        """Set up, as make does."""
        return subprocess.run(
            [self.folder / ".ci" / "set-up", LOCK],
            env={"PATH": str(self.path), "HOME": os.environ.get("HOME", "/")} | variables,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def set_up(tmp_path: Path) -> SetUp:
    """A fresh checkout in a folder with a space, on a machine with the usual tools and no Python yet."""
    folder = tmp_path / "check out"
    (folder / ".ci").mkdir(parents=True)
    shutil.copy2(ROOT / ".ci" / "set-up", folder / ".ci" / "set-up")
    (folder / LOCK).write_text("# nothing\n")
    path = tmp_path / "bin"
    path.mkdir()
    for tool in ("sh", "dirname", "cmp", "cp", "rm", "mkdir", "printf"):
        found = shutil.which(tool)
        assert found is not None
        (path / tool).symlink_to(found)
    return SetUp(folder, path)


def test_the_first_python_that_fits_is_taken_once(set_up: SetUp) -> None:
    """A python3 that is too old, or that only prints an error, is passed over; then nothing more is done."""
    set_up.add_python("python3", 'echo "pyenv: python3: command not found" >&2; exit 127')
    set_up.add_python("python3.13", "exit 1")
    set_up.add_python("python3.12", f'exec "{sys.executable}" "$@"')
    done = set_up.run()
    assert 0 == done.returncode, done.stderr
    assert "installing" in done.stderr
    assert (set_up.folder / ".venv" / "bin" / "python").exists()
    again = set_up.run()
    assert (0, "") == (again.returncode, again.stderr)

    kept = set_up.folder / ".venv" / "kept"
    kept.touch()
    (set_up.folder / LOCK).write_text("# something else\n")
    assert "installing" in set_up.run().stderr, "a changed lock is installed"
    assert kept.exists(), "into the environment that is there"


def test_an_interrupted_set_up_is_begun_again(set_up: SetUp) -> None:
    """Half an environment is not trusted, and a failed installation is not taken for a whole one."""
    # Without pip the installation fails, too, and to make an environment takes a tenth of the time.
    without_pip = 'case "$*" in "-m venv .venv") set -- -m venv --without-pip .venv;; esac'
    set_up.add_python("python3", f'{without_pip}; exec "{sys.executable}" "$@"')
    rest = set_up.folder / ".venv" / "half a package"
    rest.parent.mkdir()
    rest.touch()
    (rest.parent / "set-up-unfinished").touch()
    done = set_up.run()
    assert 1 == done.returncode
    assert "pip could not install requirements-embedded.txt" in done.stderr
    assert not rest.exists()
    assert (rest.parent / "set-up-unfinished").exists()


def test_a_machine_without_ensurepip_is_told_what_to_install(set_up: SetUp) -> None:
    """Debian splits Python: the package to install is named."""
    refuses = f'case "$*" in *ensurepip*) exit 1;; esac; exec "{sys.executable}" "$@"'
    set_up.add_python("python3", refuses)
    done = set_up.run()
    assert 1 == done.returncode
    assert "python3-venv" in done.stderr


def test_a_python_that_does_not_fit_is_named(set_up: SetUp) -> None:
    """PYTHON that is too old, or that is none, is an error and not replaced by another."""
    set_up.add_python("python3", f'exec "{sys.executable}" "$@"')
    set_up.add_python("old", 'case "$*" in *exit*) exit 1;; *) echo 3.9;; esac')
    assert "PYTHON=old is Python 3.9; 3.11 or newer is needed" in set_up.run(PYTHON="old").stderr
    assert "PYTHON=none is no command" in set_up.run(PYTHON="none").stderr
