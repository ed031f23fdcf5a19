"""gunicorn's logger, without handlers of its own: its lines have the form of all others.

A module of its own because it imports gunicorn, which only the master process and its workers have; `logs.setup` is
used by commands too.
"""

from __future__ import annotations

import logging
from typing import Any

from gunicorn.glogging import Logger  # type: ignore[import-untyped]


class GunicornLogger(Logger):  # type: ignore[misc]
    """Leaves gunicorn's records to the root logger, which `configure_logging` has set up; no access log.

    The middleware writes the line of each request. An `--access-logfile -`, which platforms add by
    GUNICORN_CMD_ARGS and which beats every configuration file, would put a line of plain text beside it.
    """

    def setup(self, cfg: Any) -> None:
        """Called at start and at each reload of the configuration."""
        self.cfg = cfg
        self.loglevel = self.LOG_LEVELS.get(cfg.loglevel.lower(), logging.INFO)
        self.error_log.handlers.clear()
        self.error_log.propagate = True
        self.error_log.setLevel(self.loglevel)
        self.access_log.handlers.clear()
        self.access_log.disabled = True
        self._access_log_enabled = False

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        """Write nothing."""
