"""Rate limits for aiohttp applications: a middleware, and a decorator for handlers."""

from .ratelimit.aiohttp import *  # noqa: F403 - the same names
