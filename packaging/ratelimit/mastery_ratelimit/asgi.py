"""Rate limits for ASGI applications: a middleware."""

from .ratelimit.asgi import *  # noqa: F403 - the same names
