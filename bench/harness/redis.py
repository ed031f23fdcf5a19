"""What Redis has to do for a request: its own counts of commands, of reads from its sockets, and of its time."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, cast

import redis

from bench.harness.load import Load, run_load
from bench.harness.machine import cpu_seconds
from bench.harness.subjects import Subject

_REQUESTS = 300


@dataclass(frozen=True, slots=True)
class RedisCounts:
    """A snapshot of Redis's own counters.

    Attributes:
        calls: by command, those inside of scripts included.
        us: time spent in each command, microseconds; a script's includes its commands'.
        reads: how often it read from a client's socket: one for all commands that were written together.
        cpu_seconds: of the server process.
    """

    calls: Mapping[str, int]
    us: Mapping[str, int]
    reads: int
    cpu_seconds: float

    @classmethod
    def of(cls, url: str, pid: int) -> RedisCounts:
        """The counters now; asking costs one connection, whose reads are taken off by `requests_between`."""
        with closing(redis.Redis.from_url(url)) as client:
            stats = cast("dict[str, dict[str, Any]]", client.info("commandstats"))
            reads = cast("dict[str, int]", client.info("stats"))["total_reads_processed"]
        name = {key: key.removeprefix("cmdstat_") for key in stats}
        return cls(
            {name[key]: int(stat["calls"]) for key, stat in stats.items()},
            {name[key]: int(stat["usec"]) for key, stat in stats.items()},
            reads,
            cpu_seconds(pid),
        )


@dataclass(frozen=True, slots=True)
class RedisUse:
    """What one request costs Redis.

    Attributes:
        round_trips: reads from the subject's connections, a request at a time.
        commands: by name, those inside of scripts included.
        script_us: time of one call of a script, microseconds.
        cpu_us: processor time of Redis for a request under load, in microseconds: all of it, sockets included.
    """

    round_trips: float
    commands: Mapping[str, float]
    script_us: float
    cpu_us: float


_OURS = ("auth", "info", "hello", "client", "client|setinfo", "select", "ping", "config")


def redis_use(subject: Subject, *, seconds: float, connections: int = 64) -> RedisUse:
    """Ask a subject one request at a time and count; then put a load on it and take the time."""
    server = subject.world.redis
    before = RedisCounts.of(server.url, server.pid)
    own = RedisCounts.of(server.url, server.pid).reads - before.reads  # what a snapshot itself costs
    middle = RedisCounts.of(server.url, server.pid)
    for number in range(_REQUESTS):
        subject.ask(
            headers={"Authorization": f"Bearer {subject.world.tokens[number % len(subject.world.tokens)]}"}
        )
    after = RedisCounts.of(server.url, server.pid)
    commands = {
        name: (calls - middle.calls.get(name, 0)) / _REQUESTS
        for name, calls in after.calls.items()
        if name not in _OURS and calls - middle.calls.get(name, 0) >= _REQUESTS / 10
    }
    load = Load(subject.port, subject.requests(), connections=connections, seconds=seconds)
    figures = run_load(load, cores=subject.world.cores.beside)
    loaded = RedisCounts.of(server.url, server.pid)
    scripts = loaded.calls.get("evalsha", 0) - after.calls.get("evalsha", 0)
    script_us = loaded.us.get("evalsha", 0) - after.us.get("evalsha", 0)
    return RedisUse(
        round_trips=(after.reads - middle.reads - own) / _REQUESTS,
        commands=commands,
        script_us=script_us / max(1, scripts),
        cpu_us=(loaded.cpu_seconds - after.cpu_seconds) / figures.requests * 1e6,
    )
