"""The limiter for code without asyncio."""

from .ratelimit.blocking import BlockingLimiter

__all__ = ["BlockingLimiter"]
