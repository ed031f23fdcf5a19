"""A real streaming replica of a PostgreSQL server."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from server.development import EmbeddedServer, free_port
from server.development.processes import Process, child_process, wait_until_ready
from server.development.servers import find_postgres_folder, log_tail, unprivileged_prefix
from tests.stores.postgres.databases import ask

START_SECONDS = 60.0


class ReplicaServer:
    """A standby in hot-standby mode, which may be stopped and started again.

    Attributes:
        port: where it answers, or would.
        process: the running server.
    """

    def __init__(self, folder: Path, primary: EmbeddedServer, options: Sequence[str]) -> None:
        self._folder = folder
        self._data = folder / "data"
        self._log = folder / "postgres.log"
        self._options = options
        self._binaries = find_postgres_folder()
        self._prefix = unprivileged_prefix(folder)
        address = urlsplit(primary.url)
        self.port = free_port()
        self.url = primary.url.replace(f":{address.port}/", f":{self.port}/")
        self._stack = contextlib.ExitStack()
        self.process: Process | None = None
        command = [
            *(self._prefix or []), str(self._binaries / "pg_basebackup"), "--pgdata", str(self._data),
            "--host", "127.0.0.1", "--port", str(address.port), "--username", str(address.username),
            "--checkpoint=fast", "--no-sync", "--wal-method=stream", "--write-recovery-conf",
        ]  # fmt: skip
        environment = {**os.environ, "PGPASSWORD": str(address.password)}
        subprocess.run(command, env=environment, check=True, capture_output=True)

    def start(self) -> None:
        """Start it, and wait until it can be read from."""
        command = [*(self._prefix or []), str(self._binaries / "postgres"), "-D", str(self._data)]
        settings = (
            "listen_addresses=127.0.0.1", f"port={self.port}", "unix_socket_directories=", *self._options,
        )  # fmt: skip
        for setting in settings:
            command += ["-c", setting]
        output = self._stack.enter_context(self._log.open("ab"))
        self.process = self._stack.enter_context(
            child_process(command, stop_with=signal.SIGINT, output=output.fileno())
        )
        is_up = functools.partial(_answers, self.url)
        assert wait_until_ready(self.process, is_up, seconds=START_SECONDS), log_tail(self._log)

    def stop(self) -> None:
        """End it, with all of its connections."""
        stack, self._stack = self._stack, contextlib.ExitStack()
        stack.close()


@contextlib.contextmanager
def replica_server(
    folder: Path, primary: EmbeddedServer, options: Sequence[str] = ()
) -> Iterator[ReplicaServer]:
    """A running replica of a whole server, for the length of the block."""
    folder.mkdir()
    replica = ReplicaServer(folder, primary, options)
    replica.start()
    try:
        yield replica
    finally:
        replica.stop()


def _answers(url: str) -> bool:
    try:
        return [(True,)] == ask(url, "SELECT pg_is_in_recovery()")
    except Exception:  # noqa: BLE001 - not yet
        return False
