"""A small application for gunicorn: counts, shows its metrics, logs, and dies when it is asked to."""

from __future__ import annotations

import asyncio
import os
import signal
import warnings

import structlog
from aiohttp import web

from server.middleware.metrics import metrics_middleware
from server.telemetry.logs.setup import handle_loop_exception
from server.telemetry.metrics.index import Metrics

METRICS = web.AppKey("metrics", Metrics)
log = structlog.get_logger("tests.gunicorn_app")


async def application() -> web.AppRunner:
    """What gunicorn serves, unless the file is there that TEST_BROKEN names."""
    broken = os.environ.get("TEST_BROKEN")
    if broken and os.access(broken, os.F_OK):
        raise RuntimeError("The application is broken.")
    metrics = Metrics()
    app = web.Application(middlewares=[metrics_middleware(metrics)])
    app[METRICS] = metrics
    app.router.add_get("/hit/{who}", hit)
    app.router.add_get("/pid", show_pid)
    app.router.add_get("/metrics", show_metrics)
    app.router.add_get("/reset", reset)
    app.router.add_get("/noise", noise)
    app.router.add_get("/slow", slow)
    app.router.add_get("/die", die)
    asyncio.get_running_loop().set_exception_handler(handle_loop_exception)
    return web.AppRunner(app, access_log=None, keepalive_timeout=95, shutdown_timeout=10)


async def hit(request: web.Request) -> web.Response:
    """Count a cache hit."""
    request.app[METRICS].cache_hits.inc()
    return web.Response()


async def show_pid(_request: web.Request) -> web.Response:
    """The worker's process id."""
    return web.Response(text=str(os.getpid()))


async def show_metrics(request: web.Request) -> web.Response:
    """The metrics of all workers, and the cache's numbers as a line at the end."""
    await request.app[METRICS].settle()
    body, content_type = request.app[METRICS].render_text("")
    totals = request.app[METRICS].cache_totals()
    return web.Response(
        body=body + f"# totals {totals.hits}\n".encode(), headers={"Content-Type": content_type}
    )


async def reset(request: web.Request) -> web.Response:
    """Set the cache's numbers to zero."""
    request.app[METRICS].reset_cache_totals()
    return web.Response()


async def noise(_request: web.Request) -> web.Response:
    """Every kind of line: an event, a warning, a failure that nobody retrieves, an error that escapes."""
    log.info("noise.event", request="\n{not json}")
    warnings.warn("this is\na warning", stacklevel=1)
    asyncio.get_running_loop().call_soon(int, "not a number")
    raise RuntimeError("escaped\nfrom the handler")


async def slow(_request: web.Request) -> web.Response:
    """An answer that is still under way when the server is asked to stop."""
    log.info("slow.begun")
    await asyncio.sleep(1)
    return web.Response(text="done")


async def die(_request: web.Request) -> web.Response:
    """The end of this worker, at once."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError
