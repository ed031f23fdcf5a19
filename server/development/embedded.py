"""What the embedded servers have in common: free ports, and running as another user than root.

PostgreSQL refuses to run as root. No account is added for it, and no permission is changed.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from server.development.processes import Process
from server.errors import CommandError

START_SECONDS = 60.0
PORT_TRIES = 5

# A user namespace in which root is user 1000; what it writes still belongs to root outside.
_NAMESPACE = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
# Where the kernel or the container forbids that: user 65534 (nobody), who keeps of root's powers only the one
# to enter a folder that belongs to root.
_OTHER_USER = (
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--inh-caps=+dac_override",
    "--ambient-caps=+dac_override",
)


class EmbeddedServerError(CommandError):
    """An embedded server can't be had or does not start; the message says which and what to do."""


@dataclass(frozen=True, slots=True)
class EmbeddedServer:
    """A running server: its address as a URL, and its process."""

    url: str
    port: int
    process: Process

    @property
    def pid(self) -> int:
        """The operating system's id of the server process."""
        return self.process.pid


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is free at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def port_was_taken(log: Path) -> bool:
    """Whether a server ended because its port was taken in between, by its log."""
    return "Address already in use" in log_tail(log)


def log_tail(log: Path) -> str:
    """The end of a server's log, as much as a person wants to read in an error message."""
    return log.read_text(errors="replace")[-2000:].strip() if log.exists() else "(no log)"


def unprivileged_prefix(folder: Path) -> list[str] | None:
    """What to put before a command so that it does not run as root, and ends by SIGINT when its parent does.

    Args:
        folder: where the command will write.

    Returns:
        Nothing to put there for an ordinary user; None where this machine has no way.
    """
    if os.geteuid() != 0:
        return []
    # Both programs change credentials, and the kernel then forgets what `child_process` asked it for.
    dies_with_parent = ["setpriv", "--pdeathsig", "INT"] if shutil.which("setpriv") else []
    probe = folder / "probe"  # asking for permission is not enough: access(2) ignores that one power
    for prefix in ([*_NAMESPACE, *dies_with_parent], [*_OTHER_USER, "--pdeathsig", "INT"]):
        try:
            done = subprocess.run([*prefix, "touch", str(probe)], capture_output=True, check=False)
        except OSError:
            continue
        if done.returncode == 0:
            probe.unlink()
            return prefix
    return None
