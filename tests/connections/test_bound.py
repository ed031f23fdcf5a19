"""More connections than a worker has room for: the idle ones make room, and health probes always get through."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from time import monotonic

import psutil
import pytest

from server.settings import Settings, SettingsError, connection_room
from tests.connections.conftest import Serve, Watched
from tests.connections.raw import Client, connected, get, post
from tests.support.waiting import eventually
from tests.test_settings import GOOD

TOO_MANY = 'http_refusals_total{reason="too_many_connections"}'
PROBES = ("/livez", "/readyz", "/api/health")


@pytest.fixture(scope="module")
def few_files(serve: Serve) -> Iterator[Watched]:
    """The default settings, where a process may have 256 files open."""
    with serve(open_files=256) as watched:
        yield watched


@pytest.fixture(scope="module")
def four_places(serve: Serve) -> Iterator[Watched]:
    """A service with room for four connections."""
    with serve(MAX_CONNECTIONS="4") as watched:
        yield watched


@pytest.fixture
def small(four_places: Watched) -> Watched:
    """The same, none of whose places is taken."""
    four_places.wait_until_alone()
    return four_places


def ask(watched: Watched, path: str, *headers: str) -> int:
    """The status of an answer over a connection of its own."""
    with connected(watched.port) as client:
        client.send(get(path, "Connection: close", *headers))
        return client.last_answer().status


def can_ask(watched: Watched) -> bool:
    """Whether an ordinary request is served."""
    try:
        return ask(watched, "/api/classes", f"Authorization: Bearer {watched.service.user_token}") == 200
    except AssertionError:
        return False


@pytest.mark.parametrize(
    "beginning", [b"", get("/livez"), b"GET /livez HTTP/1.1\r\n"], ids=["silent", "kept", "slow"]
)
def test_share_08_600_connections_lock_nobody_out(few_files: Watched, beginning: bytes) -> None:
    """With 256 files: whatever the 600 have sent, probes get through, and everybody else when the idle are found."""
    with ExitStack() as stack:
        for _ in range(600):
            stack.enter_context(connected(few_files.port)).send(beginning)
        for _ in range(3):
            assert [200, 200, 200] == [ask(few_files, probe) for probe in PROBES]
        eventually(lambda: can_ask(few_files), "an ordinary request is served")
        assert few_files.metric("http_connections") < 256 - 10


def busy(stack: ExitStack, watched: Watched, count: int) -> list[Client]:
    """Connections with a request under way: its body is awaited."""
    clients = [stack.enter_context(connected(watched.port)) for _ in range(count)]
    for client in clients:
        client.send(post("/api/auth/login", "Expect: 100-continue", length=2))
    for client in clients:
        assert 100 == client.read_answer().status
    return clients


def test_share_08_where_all_are_at_work_only_probes_are_served(small: Watched) -> None:
    """The others are refused with 503 and the time to wait, until somebody has finished."""
    refused = small.metric(TOO_MANY)
    small.wait_until_alone()
    with ExitStack() as stack:
        clients = busy(stack, small, 4)
        with connected(small.port) as late:
            late.send(get("/api/classes", "X-Request-ID: the-one-that-comes-late"))
            answer = late.last_answer()
        answer.check_problem(503)
        assert ("1", "the-one-that-comes-late") == (
            answer.headers["retry-after"],
            answer.headers["x-request-id"],
        )
        assert [200, 200, 200] == [ask(small, probe) for probe in PROBES]
        with connected(small.port) as prober:
            prober.send(get("/livez"))
            assert 200 == prober.read_answer().status
            clients[0].send(b"{}")
            assert 400 == clients[0].read_answer().status
            clients[0].socket.close()
            eventually(lambda: can_ask(small), "an ordinary request is served")
        assert refused < small.metric(TOO_MANY)


def test_share_08_the_room_for_probes_is_not_taken_by_others(small: Watched) -> None:
    """More connections than there are spare places: the oldest of those that ask nothing makes room."""
    with ExitStack() as stack:
        busy(stack, small, 4)
        for _ in range(40):
            stack.enter_context(connected(small.port))
        for _ in range(20):
            assert [200, 200, 200] == [ask(small, probe) for probe in PROBES]


def test_share_08_the_one_idle_for_longest_makes_room(small: Watched) -> None:
    """A connection that has just been used is kept, however old it is."""
    closed = small.metric("http_idle_connections_closed_total")
    small.wait_until_alone()
    with ExitStack() as stack:
        oldest, idle, third, fourth = (stack.enter_context(connected(small.port)) for _ in range(4))
        for client in (oldest, idle, third, fourth, oldest):
            # The loop's clock counts milliseconds, in one of which there is time for all five.
            later = monotonic() + 0.002
            eventually(lambda: monotonic() > later, "another millisecond")  # noqa: B023 - used at once
            client.send(get("/livez"))
            assert 200 == client.read_answer().status

        def made_room() -> bool:
            # A probe has a place of its own until the worker looks for idle connections again (0.1 s).
            with connected(small.port) as newest:
                newest.send(get("/livez"))
                assert 200 == newest.read_answer().status
                return not idle.is_open()

        eventually(made_room, "the end of an idle connection")
        assert b"" == idle.read_all()
        for client in (oldest, third, fourth):
            assert client.is_open()
    assert closed + 1 <= small.metric("http_idle_connections_closed_total")


def test_share_08_the_bound_follows_the_limit_of_files() -> None:
    """Room is kept for the database, for the rest, and for many at the same moment; a setting may lower it."""
    settings = Settings.from_env(GOOD)
    assert 1 <= settings.connection_limit <= 4096
    assert connection_room(10) - 5 == connection_room(15)
    assert 7 == Settings.from_env({**GOOD, "MAX_CONNECTIONS": "7"}).connection_limit
    assert 1 == replace(settings, database_pool_size=10**9).connection_limit


def test_share_08_a_bound_that_there_are_no_files_for_is_refused() -> None:
    """It is said at the start, with the number that is possible."""
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({**GOOD, "MAX_CONNECTIONS": str(connection_room(10) + 1)})
    (problem,) = caught.value.problems
    assert re.search(rf"MAX_CONNECTIONS.* {connection_room(10)} at most", problem)


@pytest.mark.long
def test_deploy_16_a_busy_worker_finds_all_who_have_come_meanwhile(serve: Serve) -> None:
    """Four hundred connect while the worker stands still: none is dropped by the system, each gets its answer."""
    crowd = 400
    if int(Path("/proc/sys/net/core/somaxconn").read_text()) < crowd:
        pytest.skip("this system has no room for so many")
    with serve() as watched, ExitStack() as stack:
        (worker,) = psutil.Process(watched.service.process.pid).children()
        worker.suspend()
        try:
            clients = [stack.enter_context(connected(watched.port)) for _ in range(crowd)]
            for client in clients:
                client.send(get("/livez", "Connection: close"))
        finally:
            worker.resume()
        assert {200} == {client.last_answer().status for client in clients}
