"""What a real server can do to the link: pause, die, come back, refuse, and how the link says so."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import MutableMapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from server.development import EmbeddedServer, free_port, redis_server
from server.stores.redis.errors import error_from_reply
from server.stores.redis.link import RedisLink, RedisUnavailable
from tests.support.redis_servers import (
    ADD,
    answers,
    let_the_loop_write,
    open_link,
    redis_binaries,
    refusal,
)
from tests.support.waiting import wait_until

every_version = pytest.mark.parametrize("binary", redis_binaries(), ids=lambda path: path.parent.name)


def events(logs: list[MutableMapping[str, Any]]) -> list[tuple[str, str | None]]:
    """The link's log lines: the event and its error."""
    return [(line["event"], line.get("error")) for line in logs if line["event"].startswith("redis.")]


async def test_paused_server(any_redis: EmbeddedServer) -> None:
    """A paused server costs a call its deadline, then nothing: the connection is cut, and made anew later."""
    async with open_link(any_redis.url, deadline_ms=100, stall_limit_ms=400) as link:
        with capture_logs() as logs:
            os.kill(any_redis.pid, signal.SIGSTOP)
            error = await refusal(link.execute("INCR", "count"))
            assert (error.reason, error.outcome_unknown) == ("timeout", True)
            await wait_until(lambda: not link.connected, "the stalled connection is cut")
            error = await refusal(link.execute("INCR", "count"))
            assert error.reason in {"stalled", "timeout"}
            assert not error.outcome_unknown
            os.kill(any_redis.pid, signal.SIGCONT)
            await wait_until(lambda: answers(link), "it recovers")
        assert events(logs) == [("redis.connection_lost", "stalled"), ("redis.connected", None)]
        assert link.status.reconnects == 1


@every_version
async def test_killed_and_restarted_server(binary: Path, tmp_path: Path) -> None:
    """Calls in flight when the server dies may have run, later ones certainly have not; then it is back."""
    port = free_port()
    with redis_server(tmp_path, binary=binary, port=port) as server:
        link = RedisLink(server.url, deadline_ms=2000)
        await link.start()
        os.kill(server.pid, signal.SIGSTOP)
        in_flight = [link.submit("INCR", "count") for _ in range(10)]
        await let_the_loop_write()
        os.kill(server.pid, signal.SIGKILL)
        for future in in_flight:
            error = await refusal(future)
            assert (error.reason, error.outcome_unknown) == ("lost", True)
        error = await refusal(link.execute("INCR", "count"))
        assert not error.outcome_unknown
        await wait_until(lambda: link.status.last_error == "refused", "the port is closed")
    with redis_server(tmp_path, binary=binary, port=port):
        before = datetime.now(UTC)
        await wait_until(lambda: answers(link), "it is back")
        status = link.status
        assert link.connected
        assert status.last_error == "refused"
        assert status.last_error_time is not None
        assert status.last_error_time < before
        assert status.reconnects == 1
        await link.close()


async def test_script_after_a_restart(tmp_path: Path) -> None:
    """A restarted server knows no scripts; the first call after it succeeds all the same."""
    port = free_port()
    with redis_server(tmp_path, port=port, options=('save ""',)) as server:
        link = RedisLink(server.url, deadline_ms=2000)
        await link.start()
        assert await link.run_script(ADD, ["sum"], [1]) == 1
    with redis_server(tmp_path, port=port, options=('save ""',)):
        await wait_until(lambda: link.status.reconnects == 1, "it is back")
        assert await link.run_script(ADD, ["sum"], [1]) == 1
        await link.close()


async def test_server_that_comes_later() -> None:
    """Without a server the start returns, calls are refused, and one line is logged, not one a try."""
    with capture_logs() as logs:
        async with open_link(f"redis://127.0.0.1:{free_port()}") as link:
            error = await refusal(link.execute("PING"))
            assert (error.reason, error.outcome_unknown) == ("refused", False)
            first = link.status.last_error_time
            await wait_until(lambda: link.status.last_error_time != first, "it tries again")
            assert link.status.reconnects == 0
    assert events(logs) == [("redis.connection_lost", "refused")]


async def test_killed_connection(any_redis: EmbeddedServer) -> None:
    """CLIENT KILL loses the calls in flight and nothing else."""
    async with open_link(any_redis.url) as link, open_link(any_redis.url) as other:
        await other.execute("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await wait_until(lambda: link.status.reconnects == 1, "it reconnects")
        assert await link.execute("ECHO", "hi") == b"hi"
        assert link.status.last_error == "lost"
        assert other.status.reconnects == 0


@pytest.mark.parametrize("credentials", ["", ":wrong@", "nobody:wrong@"])
async def test_wrong_password(any_redis: EmbeddedServer, credentials: str) -> None:
    """A missing or wrong password is told as `auth`, and the log does not hold it."""
    with capture_logs() as logs:
        async with open_link(f"redis://{credentials}127.0.0.1:{any_redis.port}") as link:
            assert (await refusal(link.execute("PING"))).reason == "auth"
            assert link.status.last_error == "auth"
    assert "wrong@" not in str(logs)
    assert ":wrong" not in str(logs)


async def test_out_of_memory(any_redis: EmbeddedServer) -> None:
    """A server without room refuses writes, a script's too, as `oom`; reads and the connection go on."""
    async with open_link(any_redis.url) as link:
        await link.execute("SET", "key", "x")
        await link.execute("CONFIG", "SET", "maxmemory", 1)
        for call in (link.execute("SET", "key", "y"), link.run_script(ADD, ["sum"], [1])):
            error = await refusal(call)
            assert (error.reason, error.outcome_unknown) == ("oom", False)
        assert await link.execute("GET", "key") == b"x"
        assert (link.connected, link.status.reconnects) == (True, 0)
        assert link.status.last_error == "oom"


async def test_replica(any_redis: EmbeddedServer) -> None:
    """A write to a replica is `readonly`; the link leaves it and is back only when it finds a master."""
    async with open_link(any_redis.url) as link, open_link(any_redis.url) as admin:
        await admin.execute("REPLICAOF", "127.0.0.1", free_port())
        error = await refusal(link.run_script(ADD, ["sum"], [1]))
        assert (error.reason, error.outcome_unknown) == ("readonly", False)
        await wait_until(lambda: not link.connected, "it leaves the replica")
        assert (await refusal(link.execute("SET", "key", 1))).reason == "readonly"
        await admin.execute("REPLICAOF", "NO", "ONE")
        await wait_until(lambda: answers(link), "it finds a master")
        assert link.status.reconnects == 1


async def test_replica_without_its_master(any_redis: EmbeddedServer) -> None:
    """A replica that will not serve old data says `masterdown`."""
    async with open_link(any_redis.url) as link:
        await link.execute("CONFIG", "SET", "replica-serve-stale-data", "no")
        await link.execute("REPLICAOF", "127.0.0.1", free_port())
        error = await refusal(link.execute("GET", "key"))
        assert (error.reason, error.outcome_unknown) == ("masterdown", False)


@every_version
async def test_loading_server(binary: Path, tmp_path: Path) -> None:
    """A server that is still loading its data is not connected, with that word, until it is done."""
    port = free_port()
    with redis_server(tmp_path, binary=binary, port=port) as server:
        async with open_link(server.url) as link:
            await link.execute("CONFIG", "SET", "rdbcompression", "no")
            await asyncio.gather(*(link.submit("SET", number, b"x" * 100_000) for number in range(200)))
            await link.execute("SAVE")
    slowly = ('save ""', "key-load-delay 5000")  # 1 s in all; while loading it answers every 2 MB
    starting = redis_server(tmp_path, binary=binary, port=port, options=slowly)
    async with open_link(server.url) as link:
        entering = asyncio.create_task(asyncio.to_thread(starting.__enter__))
        try:
            await wait_until(lambda: link.status.last_error == "loading", "it sees the loading")
            error = await refusal(link.execute("GET", "1"))
            assert (error.reason, error.outcome_unknown) == ("loading", False)
            await wait_until(lambda: link.connected, "the data is loaded")
        finally:
            await entering
            await asyncio.to_thread(starting.__exit__, None, None, None)


async def test_too_many_clients(any_redis: EmbeddedServer) -> None:
    """A server that takes no more clients refuses."""
    async with open_link(any_redis.url) as admin:
        await admin.execute("CONFIG", "SET", "maxclients", 1)
        async with open_link(any_redis.url) as link:
            assert (await refusal(link.execute("PING"))).reason == "refused"
            await admin.execute("CONFIG", "SET", "maxclients", 100)
            await wait_until(lambda: link.connected, "there is room again")


async def test_name_that_does_not_resolve() -> None:
    """A host that DNS does not know is told as such."""
    async with open_link("redis://no-such-host.invalid:6379", connect_timeout_ms=5000) as link:
        assert (await refusal(link.execute("PING"))).reason == "dns"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("LOADING Redis is loading the dataset in memory", "loading"),
        ("CLUSTERDOWN The cluster is down", "clusterdown"),
        ("TRYAGAIN Multiple keys request during rehashing of slot", "tryagain"),
        ("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", "masterdown"),
        ("NOAUTH Authentication required.", "auth"),
        ("WRONGPASS invalid username-password pair or user is disabled.", "auth"),
        ("NOREPLICAS Not enough good replicas to write.", "noreplicas"),
        ("OOM command not allowed when used memory > 'maxmemory'.", "oom"),
        ("READONLY You can't write against a read only replica.", "readonly"),
        ("ERR Error running script (call to f_1): @user_script:1: @user_script: 1: -OOM command", "oom"),
        ("MISCONF Redis is configured to save RDB snapshots", "misconf"),
        ("BUSY Redis is busy running a script.", "busy"),
        ("ERR max number of clients reached", "refused"),
    ],
)
def test_replies_that_mean_not_now(message: str, reason: str) -> None:
    """Each of these error replies means that the command was not run, and says why in a word."""
    error = error_from_reply(message)
    assert isinstance(error, RedisUnavailable)
    assert (error.reason, error.outcome_unknown) == (reason, False)
