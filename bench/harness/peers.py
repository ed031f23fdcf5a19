"""The peers: installed once below .state, from their own locks, and started beside the service."""

from __future__ import annotations

import contextlib
import filecmp
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import redis

from bench.harness.subjects import Launch
from bench.harness.world import STATE, World
from server.settings import ROOT

SOURCES = ROOT / "bench" / "peers"
CONTENT_PREFIX = "bench:class:"
_NO_LIMIT = 100_000_000
_INSTALL_SECONDS = 300
_CONTENT_SECONDS = 24 * 3600
_OLDEST_NODE = 20
# Where Debian keeps the sources of Go packages, and the packages of which go.
_GO_PATH = Path("/usr/share/gocode")
_GO_PACKAGES = {
    "gomodule/redigo": "golang-github-gomodule-redigo-dev",
    "golang-jwt/jwt": "golang-github-golang-jwt-jwt-dev",
    "prometheus/client_golang": "golang-github-prometheus-client-golang-dev",
}


class PeerMissing(Exception):
    """A peer can't run on this machine; the message says why. The others are measured without it."""


def seed_content(world: World, body: bytes) -> None:
    """Put the bytes that the service answers with where the peers look for them."""
    with closing(redis.Redis.from_url(world.redis.url)) as client:
        client.set(f"{CONTENT_PREFIX}{world.class_id}", body, ex=_CONTENT_SECONDS)


def fastify(world: World, *, per_minute: int = _NO_LIMIT, per_hour: int = _NO_LIMIT) -> Launch:
    """The Fastify service.

    Raises:
        PeerMissing: there is no Node, or its packages can't be installed.
    """
    folder = install_fastify()
    environment = {**_environment(world, per_minute, per_hour), "NODE_ENV": "production"}
    return Launch("fastify", ["node", str(folder / "server.js")], environment, logs_itself=True)


def fastapi(world: World, *, per_minute: int = _NO_LIMIT, per_hour: int = _NO_LIMIT) -> Launch:
    """The FastAPI service.

    Raises:
        PeerMissing: its packages can't be installed.
    """
    python = install_python("fastapi")
    command = [
        str(python), "-m", "uvicorn", "app:app", "--app-dir", str(SOURCES / "fastapi"),
        "--host", "127.0.0.1", "--port", "{port}", "--loop", "uvloop", "--http", "httptools",
        "--no-access-log", "--log-level", "warning",
    ]  # fmt: skip
    return Launch("fastapi", command, _environment(world, per_minute, per_hour))


def go(world: World, *, per_minute: int = _NO_LIMIT, per_hour: int = _NO_LIMIT) -> Launch:
    """The service on Go's net/http: a compiled one, to know the distance.

    Raises:
        PeerMissing: there is no Go, or not the packages of Debian that it is built from.
    """
    return Launch("go", [str(_build_go())], _environment(world, per_minute, per_hour), logs_itself=True)


PEERS: Mapping[str, Callable[..., Launch]] = {"fastify": fastify, "fastapi": fastapi, "go": go}
# Those that rate cards as well, in PostgreSQL.
RATING_PEERS = ("fastify", "fastapi")


def _environment(world: World, per_minute: int, per_hour: int) -> dict[str, str]:
    return {
        "REDIS_URL": world.redis.url,
        "SECRET_KEY": world.secret_key,
        "CONTENT_PREFIX": CONTENT_PREFIX,
        "LIMIT_PER_MINUTE": str(per_minute),
        "LIMIT_PER_HOUR": str(per_hour),
    }


def install_fastify() -> Path:
    """The folder below .state that has what bench/peers/fastify/package-lock.json locks.

    Raises:
        PeerMissing: there is no Node, or its packages can't be installed.
    """
    source, folder = SOURCES / "fastify", STATE / "fastify"
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise PeerMissing("there is no node and npm on the PATH")
    version = subprocess.run([node, "--version"], capture_output=True, check=True, text=True).stdout.strip()
    if int(version.lstrip("v").partition(".")[0]) < _OLDEST_NODE:
        raise PeerMissing(f"Node {version} is older than {_OLDEST_NODE}")
    folder.mkdir(parents=True, exist_ok=True)
    if not _is_installed(source / "package-lock.json", folder):
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(source / name, folder / name)
        _run([npm, "ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund"], folder)
        _mark_installed(source / "package-lock.json", folder)
    shutil.copy(source / "server.js", folder / "server.js")
    return folder


def _build_go() -> Path:
    """The program below .state, built from bench/peers/go with the sources that Debian's packages have put there.

    Raises:
        PeerMissing: it can't be built here.
    """
    source, folder = SOURCES / "go" / "server.go", STATE / "go"
    compiler, packages = shutil.which("go"), _GO_PATH / "src" / "github.com"
    if compiler is None or not all((packages / path).is_dir() for path in _GO_PACKAGES):
        debian = " ".join(_GO_PACKAGES.values())
        raise PeerMissing(f"it takes packages of Debian or Ubuntu: apt-get install golang-go {debian}")
    folder.mkdir(parents=True, exist_ok=True)
    if not _is_installed(source, folder):
        # No modules: nothing is downloaded.
        environment = {"GO111MODULE": "off", "GOPATH": str(_GO_PATH), "GOCACHE": str(folder / "cache")}
        _run([compiler, "build", "-o", str(folder / "server"), str(source)], folder, **environment)
        _mark_installed(source, folder)
    return folder / "server"


def install_python(peer: str) -> Path:
    """The Python of an environment below .state that has what bench/peers/<peer>/requirements.txt locks.

    Raises:
        PeerMissing: it can't be installed.
    """
    lock, folder = SOURCES / peer / "requirements.txt", STATE / peer
    python = folder / "venv" / "bin" / "python"
    if not _is_installed(lock, folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _run([sys.executable, "-m", "venv", "venv"], folder)
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
        _run([str(python), *install, "--require-hashes", "-r", str(lock)], folder)
        _mark_installed(lock, folder)
    return python


def _is_installed(lock: Path, folder: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return filecmp.cmp(lock, folder / "installed.lock", shallow=False)
    return False


def _mark_installed(lock: Path, folder: Path) -> None:
    shutil.copy(lock, folder / "installed.lock")


def _run(command: list[str], folder: Path, **variables: str) -> None:
    print(f"installing into {folder.relative_to(ROOT)}, once", file=sys.stderr)
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "NODE_ENV": "production", **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            text=True,
            timeout=_INSTALL_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise PeerMissing(f"{command[0]} did not end in {_INSTALL_SECONDS} s") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise PeerMissing(f"it could not be installed: {' '.join(said)}")
