"""Logging that a test may configure, and that is as before after it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from server.telemetry.logs.setup import configure_logging

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def logged(tmp_path: Path) -> Iterator[Lines]:
    """Logging as JSON at level info; calling it gives the lines so far."""
    path = tmp_path / "log"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    configure_logging(
        level="info", format="json", service="mastery", env="test", version="1.2.3", descriptor=descriptor
    )
    yield lambda: [orjson.loads(line) for line in path.read_bytes().splitlines()]
    os.close(descriptor)
