"""Log events: by structlog where it is installed, as lines of the standard library's logging elsewhere."""

from __future__ import annotations

import logging
from typing import Any


class PlainEvents:
    """Writes events as `name key=value …`.

    Args:
        name: of the logger.
    """

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def info(self, event: str, **values: object) -> None:
        """Log something that is as it should be."""
        self._write(logging.INFO, event, values)

    def warning(self, event: str, **values: object) -> None:
        """Log something that an operator should look at."""
        self._write(logging.WARNING, event, values)

    def exception(self, event: str, **values: object) -> None:
        """Log the exception that is being handled, with its traceback."""
        self._write(logging.ERROR, event, values, is_exception=True)

    def _write(
        self, level: int, event: str, values: dict[str, object], *, is_exception: bool = False
    ) -> None:
        if self._logger.isEnabledFor(level):
            text = "".join(f" {name}={value!r}" for name, value in values.items())
            self._logger.log(level, "%s%s", event, text, exc_info=is_exception)


def get_logger(name: str) -> Any:
    """Return what logs events: structlog's logger, or one of the standard library with the same calls."""
    try:
        import structlog  # noqa: PLC0415 - it is optional
    except ImportError:
        return PlainEvents(name)
    return structlog.get_logger(name)
