"""Makes decisions by one limiter, from client to client; prints what they took. Run by the Python that has it.

client.py LIMITER REDIS_URL DECISIONS AT_ONCE CLIENTS LIMIT
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from time import perf_counter, process_time

Decide = Callable[[str], Awaitable[bool]]


async def mastery(url: str, limit: int) -> Decide:
    """This limiter, as its users call it."""
    from server.ratelimit import Limiter, Policy

    limiter = Limiter.from_url(url)
    await limiter.__aenter__()
    policy = Policy.parse(f"{limit}/minute")

    async def decide(subject: str) -> bool:
        return (await limiter.hit(subject, policy)).allowed

    return decide


async def limits_moving(url: str, limit: int) -> Decide:
    """The log of `limits`."""
    from limits import parse
    from limits.aio import storage, strategies

    strategy = strategies.MovingWindowRateLimiter(
        storage.RedisStorage(f"async+{url}", implementation="redispy")
    )
    item = parse(f"{limit}/minute")

    async def decide(subject: str) -> bool:
        return await strategy.hit(item, subject)

    return decide


async def throttled(url: str, limit: int, using: str) -> Decide:
    """An algorithm of throttled-py."""
    from throttled.asyncio import Throttled, rate_limiter, store

    throttle = Throttled(using=using, quota=rate_limiter.per_min(limit), store=store.RedisStore(server=url))

    async def decide(subject: str) -> bool:
        return not (await throttle.limit(subject)).limited

    return decide


MAKERS = {
    "mastery": mastery,
    "limits, moving window": limits_moving,
    "throttled-py, sliding window": lambda url, limit: throttled(url, limit, "sliding_window"),
    "throttled-py, GCRA": lambda url, limit: throttled(url, limit, "gcra"),
}


async def main() -> None:
    """Warm up, then measure."""
    name, url, decisions, at_once, clients, limit = sys.argv[1:]
    decide = await MAKERS[name](url, int(limit))
    for _ in range(int(at_once)):
        await decide("user:warm")
    numbers, admitted = iter(range(int(decisions))), 0

    async def work() -> None:
        nonlocal admitted
        for number in numbers:
            is_admitted = await decide(f"user:{number % int(clients)}")
            admitted += is_admitted

    began, cpu = perf_counter(), process_time()
    await asyncio.gather(*(work() for _ in range(int(at_once))))
    print(json.dumps({"seconds": perf_counter() - began, "cpu": process_time() - cpu, "admitted": admitted}))


asyncio.run(main())
