"""The embedded servers: real, private, kept between two starts, and never left behind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import psutil
import psycopg2
import pytest
import redis

from server.development import (
    EmbeddedServerError,
    find_postgres_folder,
    find_redis_server,
    postgres_server,
    redis_server,
)
from server.development.servers import unprivileged_prefix
from tests.support.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]


def query(url: str, sql: str) -> object:
    """The first column of the only row."""
    connection = psycopg2.connect(url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(sql)
            row = cursor.fetchone()
            return row[0] if row else None
    finally:
        connection.close()


def listening_addresses(pid: int) -> set[str]:
    """The addresses a process listens on."""
    return {
        connection.laddr.ip
        for connection in psutil.Process(pid).net_connections()
        if connection.status == psutil.CONN_LISTEN
    }


@pytest.fixture
def odd_folder(tmp_path: Path) -> Path:
    """A folder whose name has what configuration files and shells trip over."""
    folder = tmp_path / 'my "data" \\ #1 $HOME'
    folder.mkdir()
    return folder


def test_postgres_keeps_its_data_between_two_starts(odd_folder: Path) -> None:
    """What was committed is there again after a stop and a start, wherever the folder is."""
    with postgres_server(odd_folder) as server:
        query(server.url, "CREATE TABLE kept AS SELECT 42 AS n; SELECT 1")
    with postgres_server(odd_folder) as server:
        assert 42 == query(server.url, "SELECT n FROM kept")


def test_redis_keeps_its_data_between_two_starts(odd_folder: Path) -> None:
    """What was written is there again after a stop and a start, wherever the folder is."""
    with redis_server(odd_folder) as server, redis.Redis.from_url(server.url) as client:
        client.set("kept", "42", ex=600)
    with redis_server(odd_folder) as server, redis.Redis.from_url(server.url) as client:
        assert b"42" == client.get("kept")


def test_servers_listen_on_the_loopback_only(tmp_path: Path) -> None:
    """Nobody else on the network reaches a developer's servers."""
    with postgres_server(tmp_path / "postgres") as postgres, redis_server(tmp_path / "redis") as redis_:
        assert {"127.0.0.1"} == listening_addresses(postgres.pid)
        assert {"127.0.0.1"} == listening_addresses(redis_.pid)


def test_servers_want_their_passwords(tmp_path: Path) -> None:
    """Another user of the machine, who reaches the loopback too, is refused."""
    with postgres_server(tmp_path / "postgres") as postgres, redis_server(tmp_path / "redis") as redis_:
        with pytest.raises(psycopg2.OperationalError, match="password"):
            psycopg2.connect(
                host="127.0.0.1", port=postgres.port, user="mastery", dbname="mastery", password="x"
            )
        with redis.Redis(port=redis_.port) as client, pytest.raises(redis.AuthenticationError):
            client.ping()


def test_secrets_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    """Files that hold a password are closed to everyone else."""
    with postgres_server(tmp_path / "postgres"), redis_server(tmp_path / "redis"):
        secrets = [tmp_path / "postgres/password", tmp_path / "redis/password", tmp_path / "redis/redis.conf"]
        assert [0o600] * 3 == [stat.S_IMODE(path.stat().st_mode) for path in secrets]


def test_nothing_is_left_when_the_block_ends(tmp_path: Path) -> None:
    """Both servers and all their helper processes are gone, also when the block ends by an exception."""

    def run_and_fail() -> None:
        with postgres_server(tmp_path / "postgres") as postgres, redis_server(tmp_path / "redis") as redis_:
            for pid in (postgres.pid, redis_.pid):
                processes.extend([psutil.Process(pid), *psutil.Process(pid).children(recursive=True)])
            raise ZeroDivisionError

    processes: list[psutil.Process] = []
    with pytest.raises(ZeroDivisionError):
        run_and_fail()
    assert len(processes) > 4
    assert [] == [process for process in processes if process.is_running()]


def test_a_paused_server_is_stopped_too(tmp_path: Path) -> None:
    """A test that pauses a server and fails does not leave it behind."""
    with redis_server(tmp_path) as server:
        os.kill(server.pid, signal.SIGSTOP)
    assert server.process.returncode is not None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parents")
def test_killed_parent_takes_its_servers_along(tmp_path: Path) -> None:
    """SIGKILL leaves the parent no time to stop anything, and still both servers end."""
    program = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from server.development import postgres_server, redis_server
        folder = Path(sys.argv[1])
        with postgres_server(folder / "postgres") as postgres, redis_server(folder / "redis") as redis:
            print(postgres.pid, redis.pid, flush=True)
            sys.stdin.read()
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, tmp_path],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        servers = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        parent.kill()
    eventually(lambda: not any(server.is_running() for server in servers), "both servers end")


def test_forgotten_servers_are_replaced(tmp_path: Path) -> None:
    """Servers that outlived their parent (a system that does not end them) are stopped by the next start."""
    with (
        postgres_server(tmp_path / "postgres") as old_postgres,
        redis_server(tmp_path / "redis") as old_redis,
    ):
        query(old_postgres.url, "CREATE TABLE kept AS SELECT 42 AS n; SELECT 1")
        with redis.Redis.from_url(old_redis.url) as client:
            client.set("kept", "42", ex=600)
        with postgres_server(tmp_path / "postgres") as postgres, redis_server(tmp_path / "redis") as redis_:
            assert 42 == query(postgres.url, "SELECT n FROM kept")
            with redis.Redis.from_url(redis_.url) as client:
                assert b"42" == client.get("kept")
        assert old_postgres.process.poll() is not None
        assert old_redis.process.poll() is not None


def test_an_interrupted_first_start_is_begun_again(tmp_path: Path) -> None:
    """What an initdb that was killed left behind is no obstacle, nor taken for a database."""
    unfinished = tmp_path / "data.new"
    unfinished.mkdir()
    (unfinished / "PG_VERSION").write_text("16\n")
    with postgres_server(tmp_path) as server:
        assert 1 == query(server.url, "SELECT 1")


def test_a_server_that_does_not_start_shows_its_log(tmp_path: Path) -> None:
    """The error tells what the server itself said."""
    with (
        pytest.raises(EmbeddedServerError, match="no_such_setting"),
        postgres_server(tmp_path / "postgres", options=("no_such_setting=on",)),
    ):
        pass
    with (
        pytest.raises(EmbeddedServerError, match="did not start"),
        redis_server(tmp_path / "redis", options=("no-such-option yes",)),
    ):
        pass


def test_a_port_that_is_asked_for_and_taken_is_an_error(tmp_path: Path) -> None:
    """A fixed port is not silently replaced by another."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with (
            pytest.raises(EmbeddedServerError, match="in use"),
            redis_server(tmp_path, port=taken.getsockname()[1]),
        ):
            pass


def test_missing_binaries_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    """A platform without the packages learns what to install or to set."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EmbeddedServerError, match="REDIS_URL"):
        find_redis_server()
    with pytest.raises(EmbeddedServerError, match="DATABASE_URL"):
        find_postgres_folder()


def test_a_redis_on_the_path_is_the_second_choice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where no package brings a server, an installed one is taken."""
    installed = tmp_path / "redis-server"
    installed.write_text("#!/bin/sh\n")
    installed.chmod(0o755)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert installed == find_redis_server()


@pytest.fixture
def without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make a machine on which some programs fail, as a container's rules make them."""

    def forbid(*programs: str) -> None:
        folder = tmp_path / "forbidden"
        folder.mkdir()
        for program in programs:
            (folder / program).write_text("#!/bin/sh\nexit 1\n")
            (folder / program).chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    return forbid


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs a way around")
class TestAsRoot:
    """PostgreSQL refuses to run as root, and still a container's only user can have one."""

    def test_a_user_namespace_changes_no_owner(self, tmp_path: Path) -> None:
        """The first choice: the files belong to root as everything else that root makes."""
        if shutil.which("unshare") is None or unprivileged_prefix(tmp_path)[:1] != ["unshare"]:  # type: ignore[index]
            pytest.skip("no user namespaces here")
        with postgres_server(tmp_path):
            assert 0 == (tmp_path / "data").stat().st_uid

    def test_another_user_enters_a_folder_of_root(self, tmp_path: Path, without: Callable[..., None]) -> None:
        """Without user namespaces, PostgreSQL runs as nobody, even in a folder that only root may enter."""
        without("unshare")
        folder = tmp_path / "private"
        folder.mkdir(mode=0o700)
        with postgres_server(folder) as server:
            assert 65534 == psutil.Process(server.pid).uids().effective
            assert 1 == query(server.url, "SELECT 1")
        assert (0, 0o700) == (folder.stat().st_uid, stat.S_IMODE(folder.stat().st_mode))

    def test_without_any_way_the_error_says_what_to_do(
        self, tmp_path: Path, without: Callable[..., None]
    ) -> None:
        """A machine that forbids both ways is told to use another user or another server."""
        without("unshare", "setpriv")
        with pytest.raises(EmbeddedServerError, match="ordinary user"), postgres_server(tmp_path):
            pass
