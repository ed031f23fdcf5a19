"""Real servers on this machine, and `make run`."""

from __future__ import annotations

from server.development.servers import (
    EmbeddedServer,
    EmbeddedServerError,
    bundled_servers,
    find_postgres_folder,
    find_redis_server,
    free_port,
    postgres_server,
    redis_server,
)

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
