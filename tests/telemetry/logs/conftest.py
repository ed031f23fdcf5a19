"""Some of what is logged, only the whole service says."""

from tests.api.conftest import people, redis_url, settings, start_api

__all__ = ["people", "redis_url", "settings", "start_api"]
