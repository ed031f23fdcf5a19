"""A copy of this checkout, in which the commands run as a user runs them, and what they leave behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from venv import EnvBuilder

import psutil

from tests.support.forked_commands import run_forked
from tests.support.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
_PARTS = (
    ".ci", ".python-version", "Makefile", "Procfile", "Procfile.dev", "app.json", "config", "lua", "pyproject.toml",
    "requirements.txt", "requirements-dev.txt", "requirements-embedded.txt", "server", "sql",
)  # fmt: skip
_COMMAND_SECONDS = 100
_OURS = (
    "DATABASE_URL", "REDIS_URL", "SECRET_KEY", "PORT", "HOST", "WEB_CONCURRENCY", "LOG_", "MASTERY_", "OTEL_",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Checkout:
    """A folder with a checkout in it."""

    folder: Path

    @classmethod
    def copy(cls, folder: Path) -> Checkout:
        """Everything that is needed to run, and a virtual environment that has this one's packages."""
        for part in _PARTS:
            source, target = ROOT / part, folder / part
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                # Compiled files, too: to compile all of them anew takes longer than a start. But not what is written.
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.pyc.*"))
            else:
                shutil.copy2(source, target)
        environment_folder = folder / ".venv"
        EnvBuilder(symlinks=True).create(environment_folder)
        site = Path(sysconfig.get_path("purelib", "venv", {"base": str(environment_folder)}))
        (site / "tests.pth").write_text(sysconfig.get_path("purelib") + "\n")
        for lock in folder.glob("requirements*.txt"):
            shutil.copy2(lock, environment_folder / f"installed-{lock.name}")
        return cls(folder)

    @property
    def python(self) -> str:
        """The interpreter of its virtual environment."""
        return str(self.folder / ".venv" / "bin" / "python")

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            command,
            cwd=self.folder,
            env=environment(**variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )

    def server(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run `python -m server` with some arguments to its end."""
        return self.run(self.python, "-m", "server", *arguments, **variables)

    def forked(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """The same in a process that has imported everything already, for tests of many commands."""
        return run_forked(arguments, environment(**variables), None, folder=self.folder)

    def start(self, *command: str, **variables: str) -> Service:
        """Start a command in a session of its own; its output goes to a file of its own."""
        with NamedTemporaryFile(dir=self.folder, suffix=".log", delete=False) as output:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment(**variables),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Service(process, Path(output.name))

    def processes(self) -> list[str]:
        """The processes that belong to this checkout: by their folder, or by a path in their command."""
        found = []
        for process in psutil.process_iter():
            try:
                places = [process.cwd(), *process.cmdline()]
            except psutil.Error:
                continue
            if any(str(self.folder) in place for place in places):
                found.append(f"{process.pid}: {' '.join(places)}")
        return found


@dataclass(frozen=True, slots=True)
class Service:
    """A command that was started, and what it has written so far."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def output(self) -> str:
        """Everything that it wrote so far, to stdout and stderr."""
        return self.log.read_text(errors="replace")

    def wait_for(self, text: str) -> None:
        """Wait until it has written something; fail when it ends instead."""

        def written() -> bool:
            assert self.process.poll() is None or text in self.output, self.output
            return text in self.output

        eventually(written, f"{text!r} in the output")

    def wait_until_ready(self) -> str:
        """Wait for the banner, and return the address in it."""
        self.wait_for("Ctrl-C stops it")
        found = re.search(r"Mastery is ready: (\S+)", self.output)
        assert found is not None
        return found[1]

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to its whole process group, as a terminal does."""
        os.killpg(self.process.pid, number)


def environment(**variables: str) -> dict[str, str]:
    """Our environment without settings of the service, and with some."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith((*_OURS, "MAKE", "MFLAGS"))
    }
    return kept | variables
