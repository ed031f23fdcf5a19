"""What the exporter of traces has to say, as an event of ours, and seldom: a collector that is away stays away."""

from __future__ import annotations

import logging
from time import monotonic
from typing import Final

import structlog

log = structlog.get_logger(__name__)

EVERY_SECONDS: Final = 60.0


class ExportLog(logging.Handler):
    """Takes the records of a library's loggers: one line a minute says the last thing, and how many there were.

    Args:
        name: of the library's topmost logger.

    Attributes:
        unsaid: how many records there were since the last line.
    """

    def __init__(self, name: str) -> None:
        super().__init__(logging.WARNING)
        self._logger = logging.getLogger(name)
        self._logger.addHandler(self)
        self._logger.propagate = False
        self._quiet_until = 0.0
        self.unsaid = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Report a record, or count it. Called with the handler's lock held, from any thread."""
        now = monotonic()
        if now < self._quiet_until:
            self.unsaid += 1
            return
        self._quiet_until = now + EVERY_SECONDS
        unsaid, self.unsaid = self.unsaid, 0
        log.warning("tracing.export_failed", detail=record.getMessage(), unsaid_before=unsaid)

    def close(self) -> None:
        """Leave the records to whoever took them before."""
        self._logger.removeHandler(self)
        self._logger.propagate = True
        super().close()
