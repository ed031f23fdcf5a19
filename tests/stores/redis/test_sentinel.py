"""A real Sentinel: the link goes to whoever is master."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from server.development import free_port
from tests.support.redis_fleet import PASSWORD, follows, password_server, sentinel_server
from tests.support.redis_servers import ADD, answers, open_link, redis_binaries, refusal
from tests.support.waiting import wait_until

every_version = pytest.mark.parametrize("binary", redis_binaries(), ids=lambda path: path.parent.name)


def sentinel_url(port: int, service: str = "mymaster", database: int = 0) -> str:
    """Names a Sentinel that is not there, and one that is."""
    return f"redis+sentinel://:{PASSWORD}@127.0.0.1:{free_port()},127.0.0.1:{port}/{service}/{database}"


async def test_each_sentinel_that_does_not_answer_has_its_time(tmp_path: Path) -> None:
    """Behind two Sentinels that take connections and say nothing, the third one is asked."""
    binary = redis_binaries()[0]
    with (
        socket.create_server(("127.0.0.1", 0)) as first,
        socket.create_server(("127.0.0.1", 0)) as second,
        password_server(tmp_path / "master", binary, ('save ""',)) as master,
        sentinel_server(tmp_path / "sentinel", binary, master.port) as port,
    ):
        silent = ",".join(f"127.0.0.1:{one.getsockname()[1]}" for one in (first, second))
        url = f"redis+sentinel://:{PASSWORD}@{silent},127.0.0.1:{port}/mymaster/0"
        async with open_link(url, connect_timeout_ms=300) as link:
            await wait_until(lambda: answers(link), "the third Sentinel names the master")


@every_version
async def test_failover(binary: Path, tmp_path: Path) -> None:
    """When the master dies, calls are refused until Sentinel names another, which knows no scripts yet."""
    with (
        password_server(tmp_path / "master", binary, ('save ""',)) as master,
        password_server(tmp_path / "replica", binary, ('save ""',)) as replica,
    ):
        async with open_link(replica.url) as admin:
            await admin.execute("REPLICAOF", "127.0.0.1", master.port)
            await wait_until(lambda: follows(admin), "the replica follows")
            with sentinel_server(tmp_path / "sentinel", binary, master.port) as port:
                await wait_until(lambda: _knows_the_replica(port), "Sentinel knows it")
                async with open_link(sentinel_url(port, database=2)) as link:
                    assert await link.run_script(ADD, ["sum"], [1]) == 1
                    await link.execute("WAIT", 1, 5000, deadline_ms=6000)
                    os.kill(master.pid, signal.SIGKILL)
                    await wait_until(lambda: not link.connected, "the loss is noticed")
                    assert not (await refusal(link.execute("GET", "sum"))).outcome_unknown
                    await wait_until(lambda: answers(link), "the replica is the master", seconds=40)
                    assert await link.run_script(ADD, ["sum"], [1]) == 2
                    assert (await admin.execute("ROLE"))[0] == b"master"
                    assert link.status.reconnects == 1


async def test_unknown_service(tmp_path: Path) -> None:
    """A service that Sentinel does not know has no master, and the word says so."""
    binary = redis_binaries()[0]
    with (
        password_server(tmp_path / "master", binary) as master,
        sentinel_server(tmp_path / "sentinel", binary, master.port) as port,
    ):
        async with open_link(sentinel_url(port, "other"), connect_timeout_ms=2000) as link:
            assert (await refusal(link.execute("PING"))).reason == "no-master"


async def test_no_sentinel_answers() -> None:
    """Without any Sentinel there is no master either."""
    async with open_link(sentinel_url(free_port())) as link:
        assert (await refusal(link.execute("PING"))).reason == "no-master"


async def _knows_the_replica(port: int) -> bool:
    async with open_link(f"redis://127.0.0.1:{port}") as sentinel:
        return len(await sentinel.execute("SENTINEL", "REPLICAS", "mymaster")) == 1
