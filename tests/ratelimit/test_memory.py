"""The store in memory: what the suites that run over every store do not say of it."""

from __future__ import annotations

import ast

import pytest

from server.ratelimit import Limiter, MemoryLink
from tests.support.checkout import ROOT


def test_point_25_the_oracle_is_independent_of_the_store() -> None:
    """The tests' oracle imports nothing of the program: it adds up lists, where the store bisects running totals."""
    tree = ast.parse((ROOT / "tests" / "ratelimit" / "oracle.py").read_text())
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [alias.name for alias in node.names] if isinstance(node, ast.Import) else [str(node.module)]
        )
    }
    assert {"__future__", "dataclasses", "fractions"} == imported


async def test_point_25_limiters_share_a_memory() -> None:
    """Limiters over one link count together; each URL is a memory of its own."""
    link = MemoryLink()
    one, other = Limiter(link), Limiter(link)
    async with one, other, Limiter.from_url("memory://") as alone:
        assert [True, False, True] == [
            (await limiter.hit("user:1", "1/minute")).allowed for limiter in (one, other, alone)
        ]


async def test_point_05_memory_forgets_what_is_over() -> None:
    """Every key has an end, and is dropped some time after it."""
    now = 0
    link = MemoryLink(lambda: now)
    async with Limiter(link) as limiter:
        for number in range(3000):
            await limiter.hit(f"user:{number}", "1/second")
        assert 3000 == len(link)
        now += 3_000_000
        for number in range(10_000):
            await limiter.hit(f"user:{number % 10}", "1000/second", "10000/minute")
    assert len(link) <= 30


async def test_point_25_memory_runs_the_limiters_commands_only() -> None:
    """Another command is an error of the caller, not an empty answer."""
    with pytest.raises(ValueError, match="FLUSHALL"):
        await MemoryLink().execute("FLUSHALL")


async def test_point_23_overrides_hold_in_memory_too() -> None:
    """What operators do works without Redis: another limit, an exemption, a block and its end."""
    async with Limiter.from_url("memory://") as limiter:
        await limiter.overrides.set("user:1", ["1/minute"], limit=2, duration_ms=60_000)
        assert [True, True, False] == [(await limiter.hit("user:1", "1/minute")).allowed for _ in range(3)]
        await limiter.overrides.set("user:1", ["*"], limit=None, duration_ms=60_000)
        assert 1 == await limiter.overrides.end("user:1", ["1/minute"])
        assert all([(await limiter.hit("user:1", "1/minute")).allowed for _ in range(3)])
        await limiter.block("user:1", duration_ms=60_000)
        assert 59_000 < (await limiter.block_left_ms("user:1") or 0) <= 60_000
        assert not (await limiter.hit("user:1", "1/minute")).allowed
        assert await limiter.block_left_ms("user:2") is None
