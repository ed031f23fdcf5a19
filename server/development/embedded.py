"""What the embedded servers have in common."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

from server.command_error import CommandError
from server.development.processes import Process

START_SECONDS = 60.0
PORT_TRIES = 5


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
    """A TCP port of 127.0.0.1 that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def port_was_taken(log: Path) -> bool:
    """Whether a server ended because somebody else took its port meanwhile, by its log."""
    return "Address already in use" in log_tail(log)


def log_tail(log: Path) -> str:
    """The end of a server's log, as much as a person wants to read in an error message."""
    return log.read_text(errors="replace")[-2000:].strip() if log.exists() else "(no log)"
