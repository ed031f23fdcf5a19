"""The middlewares are tested from outside, on the whole service."""

from tests.api.conftest import api, redis_url, settings, start_api, strict_limits
from tests.telemetry.conftest import logged

__all__ = ["api", "logged", "redis_url", "settings", "start_api", "strict_limits"]
