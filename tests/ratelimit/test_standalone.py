"""The limiter, its link to Redis and the scripts are usable without the rest of the service, under another name."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

from server.development import EmbeddedServer
from tests.support.checkout import ROOT

PARTS = ("ratelimit", "stores/redis")
PROGRAM = """
import asyncio, sys
from elsewhere.ratelimit import Charge, Limiter, Policy
from elsewhere.ratelimit import headers, reloading
from elsewhere.stores.redis.link import RedisLink

async def main():
    link = RedisLink(sys.argv[1], deadline_ms=5000)
    await link.start()
    limiter = Limiter(link, deadline_ms=5000)
    await limiter.start()
    charges = [Charge(Policy("standalone", 1, 60_000), "group", "user:standalone")]
    decisions = [await limiter.decide(charges) for _ in range(3)]
    print([(decision.allowed, decision.source) for decision in decisions])
    await limiter.close()
    await link.close()

asyncio.run(main())
assert not [name for name in sys.modules if name.partition(".")[0] == "server"]
"""


def test_it_works_under_another_name(shared_redis: EmbeddedServer, tmp_path: Path) -> None:
    """Its files alone, copied into another package, decide on a real Redis and import nothing of the service."""
    for part in PARTS:
        shutil.copytree(ROOT / "server" / part, tmp_path / "elsewhere" / part)
    shutil.copy(ROOT / "server" / "bounded_dict.py", tmp_path / "elsewhere")
    shutil.copytree(ROOT / "lua", tmp_path / "lua")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, shared_redis.url],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "[(True, 'redis'), (False, 'redis'), (False, 'local-deny')]" == done.stdout.splitlines()[-1], (
        done.stderr
    )


def test_its_imports_of_itself_are_relative() -> None:
    """No module of it names the package that it is in, not even where it is imported seldom."""
    absolute = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for part in PARTS
        for path in sorted((ROOT / "server" / part).glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom) and not node.level
            else [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else []
        )
        if name.partition(".")[0] == "server"
    ]
    assert [] == absolute
