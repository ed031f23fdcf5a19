"""Measurements: the service beside bare aiohttp and two peers, and what a request costs; see docs/performance.md."""
