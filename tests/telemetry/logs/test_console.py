"""The service as a developer sees it who starts it on a terminal."""

from __future__ import annotations

import contextlib
import os
import re

from server.development import EmbeddedServer
from tests.support.service import running_service
from tests.support.waiting import eventually

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def test_on_a_terminal_requests_are_read_at_a_glance(
    shared_postgres: EmbeddedServer, shared_redis: EmbeddedServer, database_template: str
) -> None:
    """Without LOG_FORMAT every line is for people; a request's begins with method, path, status and duration."""
    ours, theirs = os.openpty()
    os.set_blocking(ours, False)
    shown = bytearray()

    def lines() -> list[str]:
        with contextlib.suppress(BlockingIOError):
            shown.extend(os.read(ours, 65_536))
        return _COLOURS.sub("", shown.decode(errors="replace")).splitlines()

    with (
        os.fdopen(ours, "rb"),
        os.fdopen(theirs, "wb") as terminal,
        running_service(
            shared_postgres,
            shared_redis,
            database_template,
            output=terminal,
            LOG_FORMAT="",
            LOG_LEVEL="info",
            WEB_CONCURRENCY="1",
        ) as service,
    ):
        status, _ = service.request("GET", "/api/classes?limit=1", token=service.user_token)
        assert 200 == status
        wanted = re.compile(r"\[info {5}\] GET /api/classes 200 \d+\.\d\d ms +\[server\.access\]")
        eventually(lambda: any(wanted.search(line) for line in lines()), "the line of the request")
        status, _ = service.request("GET", "/api/%0anowhere?token=hunter2")
        assert 404 == status
        eventually(
            lambda: any("GET /api/%0anowhere 404 " in line for line in lines()), "the line of a wrong path"
        )
        assert any("Starting gunicorn" in line for line in lines())
        assert not any(line.startswith("{") for line in lines())
        assert "hunter2" not in shown.decode()
