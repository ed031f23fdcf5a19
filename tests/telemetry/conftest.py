"""Logging that a test may configure, and that is as before after it."""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import structlog

from server.telemetry.logs.setup import configure_logging

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def fresh_logging() -> Iterator[None]:
    """Everything that `configure_logging` changes is put back."""
    root = logging.getLogger()
    handlers, level, show_warning = list(root.handlers), root.level, warnings.showwarning
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    logging.captureWarnings(capture=False)
    warnings.showwarning = show_warning
    root.handlers[:] = handlers
    root.setLevel(level)
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks


@pytest.fixture
def logged(fresh_logging: None, tmp_path: Path) -> Iterator[Lines]:
    """Logging as JSON at level info; calling it gives the lines so far."""
    del fresh_logging
    path = tmp_path / "log"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    configure_logging(
        level="info", format="json", service="mastery", env="test", version="1.2.3", descriptor=descriptor
    )
    yield lambda: [orjson.loads(line) for line in path.read_bytes().splitlines()]
    os.close(descriptor)
