"""A load generator of our own, for machines without wrk: `python -m bench.harness.generator --help`.

Raw sockets and as little per request as Python can do, yet it saturates before wrk would: a server that answers
more than some 25,000 requests a second is faster than this says.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import cast

import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_LAST_ANSWER_SECONDS = 10.0
_BUCKET_SECONDS = 10e-6
# In a request: replaced by something else each time it is sent. Of the same length, which the head may have announced.
UNIQUE = b"@unique-in-each-request@"

Latencies = Counter[int]


class Client(asyncio.Protocol):
    """One connection: a request, its whole answer, the next request; until it is told to stop.

    Args:
        every: the seconds from one request to the next, where the answer does not take longer.
    """

    def __init__(self, requests: Iterable[bytes], latencies: Latencies, every: float = 0.0) -> None:
        self._requests = iter(requests)
        self._latencies = latencies
        self._every = every
        self._due = 0.0
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._missing = -1  # bytes of the answer that is on its way; -1 while its head is not complete
        self._sent_at = 0.0
        self._stopping = False
        self.refused = 0
        self.broken = 0
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's do not inherit from asyncio's
        self._due = self._loop.time() + random.uniform(0, self._every)
        self._send_when_due()

    def data_received(self, data: bytes) -> None:
        """Count an answer when all of it is here."""
        if self._missing < 0:
            data = self._buffer + data
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._buffer = data
                return
            self._buffer = b""
            length = _LENGTH.search(data, 0, end)
            if data[9:10] in b"45":
                self.refused += 1
            self._missing = (int(length[1]) if length else 0) + end + 4
        self._missing -= len(data)
        if self._missing == 0:
            self._latencies[int((time.perf_counter() - self._sent_at) / _BUCKET_SECONDS)] += 1
            self._missing = -1
            self._send_when_due()
        elif self._missing < 0:
            self._end(broken=1)  # more than was announced, and we don't pipeline

    def connection_lost(self, _error: Exception | None) -> None:
        """The server hung up, or we did."""
        self._end(broken=0 if self._stopping else 1)

    def stop(self) -> None:
        """Let the answer that is on its way be the last one."""
        self._stopping = True

    def _send_when_due(self) -> None:
        if self._every:
            self._loop.call_at(self._due, self._send)
            self._due = max(self._due + self._every, self._loop.time())
        else:
            self._send()

    def _send(self) -> None:
        assert self._transport is not None
        if self._stopping:
            self._end()
            return
        self._sent_at = time.perf_counter()
        self._transport.write(next(self._requests))

    def _end(self, *, broken: int = 0) -> None:
        if not self.ended.done():
            self._stopping = True
            self.broken += broken
            self.ended.set_result(None)
            if self._transport is not None:
                self._transport.abort()


async def generate(
    port: int, requests: Sequence[bytes], *, connections: int, seconds: float, per_second: float | None = None
) -> tuple[Latencies, int, int, float]:
    """Load from this process: latencies in units of 10 µs, answers of 400 and more, failures, and the seconds."""
    every = connections / per_second if per_second else 0.0
    loop = asyncio.get_running_loop()
    latencies: Latencies = Counter()
    in_turn = never_the_same(requests) if any(UNIQUE in request for request in requests) else cycle(requests)
    began = time.perf_counter()
    made = await asyncio.gather(
        *(
            loop.create_connection(lambda: Client(in_turn, latencies, every), "127.0.0.1", port)
            for _ in range(connections)
        ),
        return_exceptions=True,
    )
    clients = [client[1] for client in made if isinstance(client, tuple)]
    await asyncio.sleep(max(0.0, began + seconds - time.perf_counter()))
    for client in clients:
        client.stop()
    elapsed = time.perf_counter() - began
    late: set[asyncio.Future[None]] = set()
    if clients:
        _, late = await asyncio.wait([client.ended for client in clients], timeout=_LAST_ANSWER_SECONDS)
    broken = connections - len(clients) + len(late) + sum(client.broken for client in clients)
    return latencies, sum(client.refused for client in clients), broken, elapsed


def never_the_same(requests: Sequence[bytes]) -> Iterator[bytes]:
    """The requests in turn, each with something of its own in the place of UNIQUE."""
    process = os.urandom(4).hex().encode()
    for number, request in enumerate(cycle(requests)):
        yield request.replace(UNIQUE, b"%s%016x" % (process, number))


def percentile_ms(latencies: Latencies, share: float) -> float:
    """The time that a share of the answers did not exceed, in milliseconds."""
    left = share * latencies.total()
    for bucket, count in sorted(latencies.items()):
        left -= count
        if left <= 0:
            return (bucket + 1) * _BUCKET_SECONDS * 1e3
    return 0.0


def read_requests(file: Path) -> list[bytes]:
    """The requests in a file, each preceded by its length and a line break."""
    content, requests = file.read_bytes(), []
    while content:
        length, _, rest = content.partition(b"\n")
        requests.append(rest[: int(length)])
        content = rest[int(length) :]
    return requests


def _generate(
    port: int, requests: list[bytes], connections: int, seconds: float, per_second: float | None
) -> tuple[Latencies, int, int, float]:
    return uvloop.run(
        generate(port, requests, connections=connections, seconds=seconds, per_second=per_second)
    )


def main() -> None:
    """Parse the command line, put the load on, print the figures as one line of JSON."""
    parser = argparse.ArgumentParser(
        description="Load on 127.0.0.1; the requests are in the file BENCH_REQUESTS names"
    )
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--per-second", type=float, help="how many requests (as fast as possible)")
    options = parser.parse_args()
    requests = read_requests(Path(os.environ["BENCH_REQUESTS"]))
    processes = min(options.processes, options.connections)
    shares = [len(range(n, options.connections, processes)) for n in range(processes)]
    rate = options.per_second
    work = [
        (options.port, requests, share, options.seconds, rate and rate * share / options.connections)
        for share in shares
    ]
    if processes == 1:
        parts = [_generate(*work[0])]
    else:
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            parts = pool.starmap(_generate, work)
    latencies: Latencies = sum((part[0] for part in parts), Counter())
    figures = {
        "requests": latencies.total(),
        "seconds": max(part[3] for part in parts),
        "p50_ms": percentile_ms(latencies, 0.5),
        "p99_ms": percentile_ms(latencies, 0.99),
        "max_ms": percentile_ms(latencies, 1.0),
        "refused": sum(part[1] for part in parts),
        "broken": sum(part[2] for part in parts),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
