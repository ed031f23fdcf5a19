"""Servers for the tests of the stores, in every version that is there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from server.development import EmbeddedServer, redis_server
from tests.support.redis_servers import redis_binaries


@pytest.fixture(params=redis_binaries(), ids=lambda path: path.parent.name)
def any_redis(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A Redis that belongs to one test, once for each version of Redis on this machine."""
    with redis_server(tmp_path / "redis", binary=request.param, options=('save ""',)) as server:
        yield server
