"""What a request pays for Redis: a script and a read, awaited, through the link and through redis.asyncio.

Run `python -m bench.redis_link`, or with `--url` against a server of yours; it takes a few seconds. "CPU" is
this process's time alone, of which a core of the service has a second each second.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import redis.asyncio as aioredis
import structlog
import uvloop
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from server.development import redis_server
from server.stores.redis.link import RedisLink
from server.stores.redis.scripts import Script

SOURCE = b"return {redis.call('INCRBY', KEYS[1], ARGV[1]), ARGV[2]}"
SCRIPT = Script("bench", SOURCE, hashlib.sha1(SOURCE, usedforsecurity=False).hexdigest())

Request = Callable[[], Awaitable[object]]


async def measure(name: str, request: Request, *, seconds: float, clients: int) -> None:
    """Let so many clients make one request after the other for that long, then print a line."""
    done = 0
    await request()
    end = time.perf_counter() + seconds
    began, cpu_began = time.perf_counter(), time.process_time()

    async def client() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await request()
            done += 1

    await asyncio.gather(*(client() for _ in range(clients)))
    elapsed, cpu = time.perf_counter() - began, time.process_time() - cpu_began
    print(f"{name:<34}{clients:>8}{2 * done / elapsed:>12,.0f}{cpu / done / 2 * 1e6:>12.1f}")


async def with_link(url: str, seconds: float, clients: int) -> None:
    """The link: everyone shares one connection."""
    link = RedisLink(url, deadline_ms=1000)
    await link.start()

    async def request() -> None:
        await link.run_script(SCRIPT, ["bench:count"], [1, "x"])
        await link.execute("GET", "bench:count")

    await measure("RedisLink", request, seconds=seconds, clients=clients)
    await link.close()


async def with_redis_py(url: str, seconds: float, clients: int) -> None:
    """redis.asyncio, set up as well as it can be: a blocking pool, no retries, hiredis."""
    pool = aioredis.BlockingConnectionPool.from_url(
        url,
        max_connections=50,
        timeout=1,
        socket_timeout=1,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
    )
    client = aioredis.Redis(connection_pool=pool)
    await client.script_load(SOURCE)  # type: ignore[no-untyped-call,unused-ignore]

    async def request() -> None:
        await client.evalsha(SCRIPT.sha1, 1, "bench:count", 1, "x")
        await client.get("bench:count")

    await measure("redis.asyncio, pool of 50", request, seconds=seconds, clients=clients)
    await client.aclose()
    await pool.aclose()


async def compare(url: str, seconds: float) -> None:
    """All measurements, printed as a table."""
    print(f"{'':<34}{'clients':>8}{'calls/s':>12}{'CPU µs/call':>12}")
    for clients in (1, 10, 50):
        await with_redis_py(url, seconds, clients)
        await with_link(url, seconds, clients)


def main() -> None:
    """Parse the command line and compare."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--url", help="the Redis to use; an embedded one by default")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long each line takes")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    if arguments.url:
        uvloop.run(compare(arguments.url, arguments.seconds))
        return
    with (
        tempfile.TemporaryDirectory() as folder,
        redis_server(Path(folder), options=('save ""',)) as server,
    ):
        uvloop.run(compare(server.url, arguments.seconds))


if __name__ == "__main__":
    main()
