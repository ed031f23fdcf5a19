"""The middlewares are tested from outside, on the whole service."""

from tests.api.conftest import api, course, people, redis_url, settings, strict_limits, start_api

__all__ = ["api", "course", "people", "redis_url", "settings", "strict_limits", "start_api"]
