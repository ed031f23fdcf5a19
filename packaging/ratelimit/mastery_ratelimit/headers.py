"""The rate limit fields of a response, and the problem body of a refusal."""

from .ratelimit.headers import Waits, problem_of, rate_limit_headers, waits_of

__all__ = ["Waits", "problem_of", "rate_limit_headers", "waits_of"]
