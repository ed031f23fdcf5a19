"""Many connections at once: nobody gets more than the limit, whatever the worker is busy with."""

from __future__ import annotations

import asyncio
import json
import re
import resource
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from server.development import EmbeddedServer
from tests.ratelimit.broken_redis import Proxy
from tests.support.service import Service, running_service
from tests.support.waiting import wait_until

CONNECTIONS = 1000
LIMIT = 100  # of the policy `generous`


@contextmanager
def many_files() -> Iterator[None]:
    """More open files than some machines allow by default, for this process and those that it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    if wanted < 2 * CONNECTIONS:
        pytest.skip(f"this machine allows {hard} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_share_01_a_thousand_connections_of_one_user(
    shared_postgres: EmbeddedServer, own_redis: EmbeddedServer, database_template: str
) -> None:
    """One request on each of a thousand kept-alive connections, default limits: as many as the limit are answered."""
    with (
        many_files(),
        running_service(shared_postgres, own_redis, database_template, WEB_CONCURRENCY="1") as service,
    ):
        request = (
            f"GET /api/classes?limit=1 HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Bearer {service.user_token}\r\n\r\n"
        ).encode()
        connections = [await asyncio.open_connection("127.0.0.1", service.port) for _ in range(CONNECTIONS)]
        for _, writer in connections:
            writer.write(request)
        statuses = Counter(await asyncio.gather(*(status_of(reader) for reader, _ in connections)))
        assert {b"200": LIMIT, b"429": CONNECTIONS - LIMIT} == statuses
        sources = {re.findall('source="([a-z-]+)"', line)[0] for line in decisions_of(service)}
        assert {"redis", "local-deny"} == sources
        for _, writer in connections:
            writer.close()


async def test_share_05_a_worker_that_decides_alone_is_seen(
    shared_postgres: EmbeddedServer, own_redis: EmbeddedServer, database_template: str
) -> None:
    """One of two workers loses Redis: metrics and dashboard say which, and who made each worker's decisions."""
    async with Proxy(own_redis.port).running() as proxy:
        url = own_redis.url.replace(f":{own_redis.port}/", f":{proxy.port}/")
        # The deadline is not what this is about, and a healthy worker must not miss it on a busy machine.
        starting = running_service(
            shared_postgres, own_redis, database_template, REDIS_URL=url, RATE_LIMIT_DEADLINE_MS="5000"
        )
        with ExitStack() as stack:
            # In a thread: the proxy has to work while the service starts.
            service = await asyncio.to_thread(stack.enter_context, starting)

            async def are_both_connected() -> bool:
                return len(await asyncio.to_thread(proxy.clients)) == 2

            await wait_until(are_both_connected, "both workers have a connection to Redis")
            workers = await asyncio.to_thread(proxy.clients)
            lonely = min(workers)
            proxy.shut_out(lonely)
            states: dict[str, tuple[bool, int]] = {}

            async def is_alone() -> bool:
                await asyncio.to_thread(service.request, "GET", "/api/classes", token=service.user_token)
                _, body = await asyncio.to_thread(
                    service.request, "GET", "/api/dashboard", token=service.admin_token
                )
                for worker in json.loads(body)["workers"]:
                    states[worker["worker"]] = worker["alone"], worker["decisions"]["open"]
                alone, without_redis = states[str(lonely)]
                return alone and without_redis > 0

            await wait_until(is_alone, "the worker that lost Redis is seen to decide alone")
            assert {str(pid) for pid in workers} == states.keys()
            assert [(False, 0)] == [state for pid, state in states.items() if pid != str(lonely)]
            _, text = await asyncio.to_thread(service.request, "GET", "/api/metrics")
            assert f'rate_limit_worker_alone{{pid="{lonely}"}} 1.0' in text
            assert f'rate_limit_worker_decisions{{pid="{lonely}",source="open"}}' in text
            await asyncio.to_thread(stack.close)


async def status_of(reader: asyncio.StreamReader) -> bytes:
    """The status of an answer."""
    return (await reader.readline()).split()[1]


def decisions_of(service: Service) -> list[str]:
    """The lines of the metrics that count decisions."""
    _, text = service.request("GET", "/api/metrics")
    return [line for line in text.splitlines() if line.startswith("rate_limit_decisions_total{")]
