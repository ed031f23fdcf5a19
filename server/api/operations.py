"""/api/health, /livez, /readyz, /api/metrics, /dashboard and its data: for operators. Never rate limited."""

from __future__ import annotations

import asyncio
import hmac
import os
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import structlog
from aiohttp import hdrs, web

from server import __version__
from server.api.assets import Once, Site, read_site
from server.api.requests import read_query
from server.api.responses import NO_STORE_LINE, json_response
from server.api.schemas import DashboardQuerySchema
from server.api.services import READINESS, caller_of, checked_caller_of, services_of, state_of
from server.api.whole_response import WholeResponse, header_line
from server.clock import iso_timestamp, optional_timestamp
from server.dashboard.fleet import GAP_SECONDS, key_metrics, share
from server.dashboard.history import (
    REQUEST_BOUNDS_MS,
    WINDOW_SECONDS,
    Point,
    Routes,
    quantile_ms,
    read_workers,
)
from server.dashboard.keeper import mask_subject
from server.errors import Forbidden, ServiceUnavailable, Unauthenticated
from server.ratelimit.limiter import Limiter
from server.stores.redis.errors import RedisReplyError, RedisUnavailable
from server.telemetry.logs.lines import instance_name

log = structlog.get_logger(__name__)

_QUERY = DashboardQuerySchema()
_MOST_ROUTES = 8
_MOST_CLIENTS = 8
_MOST_EXCEPTIONS = 10
_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)


async def health(request: web.Request) -> web.Response:
    """Whether the database and the cache answer, and how fast."""
    report = await services_of(request).health.run()
    if report.serving:
        return json_response(report.as_json())
    return json_response(report.as_json(), status=503, headers={hdrs.RETRY_AFTER: "1"})


async def livez(request: web.Request) -> web.Response:
    """200 while the process turns."""
    del request
    return json_response({"status": "ok", "timestamp": _now()})


async def readyz(request: web.Request) -> web.Response:
    """200 while requests are welcome: not while starting or draining, without a database, or with an old schema."""
    reason = await _unready_reason(request)
    if reason is None:
        return json_response({"status": "ready", "timestamp": _now()})
    services_of(request).metrics.count_error(reason)
    state_of(request).error_code = reason
    return json_response(
        {"status": "unready", "reason": reason},
        status=503,
        headers={hdrs.RETRY_AFTER: "1", hdrs.CACHE_CONTROL: "no-store"},
    )


async def _unready_reason(request: web.Request) -> str | None:
    readiness = request.app[READINESS]
    if not readiness.is_ready:
        return "draining" if readiness.is_draining else "starting"
    services = services_of(request)
    try:
        await services.database.ping()
    except ServiceUnavailable:
        return "database"
    if services.database.blocked_by is None:
        return None
    return "schema" if services.schema.is_outdated else "database"


async def show_metrics(request: web.Request) -> web.Response:
    """All metrics as Prometheus text, or OpenMetrics where that is asked for."""
    _require_metrics_token(request)
    metrics, accept = services_of(request).metrics, request.headers.get(hdrs.ACCEPT, "")
    await metrics.settle()
    # In a thread: reading all workers' files takes tens of milliseconds, and no other request should wait for it.
    body, content_type = await asyncio.to_thread(metrics.render_text, accept)
    return WholeResponse(body, lines=header_line(hdrs.CONTENT_TYPE, content_type) + NO_STORE_LINE)


async def show_metrics_json(request: web.Request) -> web.Response:
    """All metrics as JSON."""
    _require_metrics_token(request)
    metrics = services_of(request).metrics
    await metrics.settle()
    return json_response(await asyncio.to_thread(metrics.render_json))


async def show_cache_metrics(request: web.Request) -> web.Response:
    """The cache's numbers since the last reset, over all workers, and whether Redis answers now."""
    require_admin_or_metrics_token(request)
    services = services_of(request)
    await services.metrics.settle()
    totals = services.metrics.cache_totals()
    report = await services.health.run()
    cache = report.services["cache"]
    return json_response(
        {
            "metrics": {
                "hits": totals.hits,
                "misses": totals.misses,
                "sets": totals.sets,
                "deletes": totals.deletes,
                "errors": totals.errors,
                "hitRate": round(totals.hit_rate, 2),
                "hitRateFormatted": f"{totals.hit_rate:.2f}%",
                "totalOperations": totals.operations,
                "connectionStatus": "connected" if services.redis.connected else "disconnected",
                "lastError": totals.last_error,
                "lastErrorTime": optional_timestamp(totals.last_error_time),
            },
            "health": {
                "healthy": cache.status == "healthy",
                "latency": round(cache.response_time_ms, 2),
                "latencyFormatted": f"{cache.response_time_ms:.2f}ms",
            },
            "timestamp": _now(),
        }
    )


async def reset_cache_metrics(request: web.Request) -> web.Response:
    """Zero the numbers of GET /api/metrics/cache; the Prometheus counters stay monotonic."""
    metrics = services_of(request).metrics
    await metrics.settle()
    metrics.reset_cache_totals()
    log.info("audit.cache_metrics_reset", admin_id=str(caller_of(request).user_id))
    return json_response({"message": "The cache metrics have been reset.", "timestamp": _now()})


def _require_metrics_token(request: web.Request) -> None:
    """Where METRICS_TOKEN is set, the request has to carry it."""
    token = services_of(request).settings.metrics_token
    if token is not None and not _carries(request, token):
        raise Unauthenticated("These metrics need the METRICS_TOKEN as a Bearer token.")


def require_admin_or_metrics_token(request: web.Request) -> None:
    """Raise unless the caller is an admin or carries the METRICS_TOKEN."""
    token = services_of(request).settings.metrics_token
    if token is not None and _carries(request, token):
        return
    if checked_caller_of(request).role != "admin":
        raise Forbidden


def _carries(request: web.Request, token: str) -> bool:
    scheme, _, value = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(
        value.strip().encode(errors="surrogateescape"), token.encode(errors="surrogateescape")
    )


def _now() -> str:
    return iso_timestamp(datetime.now(UTC))


def _quantile(q: float) -> Callable[[Point], float | None]:
    return lambda point: quantile_ms(q, point.requests, REQUEST_BOUNDS_MS)


def _rate(name: str) -> Callable[[Point], float]:
    return lambda point: point[name] / point.seconds


_SERIES: dict[str, Callable[[Point], float | None]] = {
    "throughput": _rate("requests"),
    "errors": _rate("errors"),
    "p50": _quantile(0.50),
    "p95": _quantile(0.95),
    "p99": _quantile(0.99),
    "hitRate": lambda point: share(point["hits"], point["hits"] + point["misses"]),
    "allowed": _rate("allowed"),
    "denied": _rate("denied"),
    "poolInUse": lambda point: point["pool_in_use"],
    "poolSize": lambda point: point["pool_size"],
    "poolWaiters": lambda point: point["pool_waiters"],
    "loopLag": lambda point: point["lag_us"] / 1000 / point["lag_count"] if point["lag_count"] else None,
}


async def show_dashboard(request: web.Request) -> web.Response:
    """The key metrics, the health of each service and the history as JSON; `?after=` sends only later points."""
    require_admin_or_metrics_token(request)
    after = read_query(request, _QUERY)["after"]
    services = services_of(request)
    report, blocks, refused, fleet, workers = await asyncio.gather(
        services.health.run(),
        _blocks(services.limiter),
        services.refusals.most_refused(_MOST_CLIENTS),
        services.history.fleet(),
        asyncio.to_thread(lambda: read_workers(services.metrics.render_json(declared_names=True))),
    )
    health = report.as_json()
    return json_response(
        {
            "timestamp": iso_timestamp(datetime.now(UTC)),
            "version": __version__,
            "status": health["status"],
            "machine": instance_name(),
            "process": os.getpid(),
            "machines": fleet.machines,
            "windowSeconds": WINDOW_SECONDS,
            "keyMetrics": key_metrics(fleet.window),
            "services": health["services"],
            "uptime": health["uptime"],
            "metricsFault": services.metrics.sharing_fault,
            "history": _columns(fleet.points, after),
            "slowestRoutes": _slowest_routes(fleet.routes),
            "refusedClients": [{"client": client, "refusals": count} for client, count in refused],
            "blocks": blocks,
            "overrides": _overrides(services.limiter),
            "workers": workers,
        }
    )


async def show_page(request: web.Request) -> web.Response:
    """The page; it is empty before an operator signs in."""
    return (await _site.result()).show_page(request)


async def show_file(request: web.Request) -> web.Response:
    """A file of the page; its name changes with its content."""
    return (await _site.result()).show_file(request, request.match_info["file"])


def asset_names() -> list[str]:
    """The names of the page's files."""
    return list(_site().files)


@Once
def _site() -> Site:
    """The page and its files, read once."""
    return read_site(
        "dashboard/index.html",
        (
            "uplot/uPlot.min.css",
            "uplot/uPlot.iife.min.js",
            "dashboard/icon.svg",
            "dashboard/dashboard.css",
            "dashboard/session.js",
            "dashboard/charts.js",
            "dashboard/dashboard.js",
        ),
        address="/dashboard",
        content_security_policy=_CONTENT_SECURITY_POLICY,
    )


async def _blocks(limiter: Limiter) -> list[dict[str, Any]]:
    """Those that end first; none that are known while Redis is down."""
    try:
        blocks = await limiter.blocks.first(_MOST_EXCEPTIONS)
    except (RedisUnavailable, RedisReplyError):
        return []
    return [{"client": mask_subject(block.subject), "endsAt": _instant(block.ends_at)} for block in blocks]


def _overrides(limiter: Limiter) -> list[dict[str, Any]]:
    """Those that end first, of operators and of the rate limits file."""
    in_force = [override for own in limiter.overrides.in_force.values() for override in own.values()]
    return [
        {
            "client": mask_subject(override.subject),
            "policy": override.policy,
            "limit": override.limit,
            "endsAt": _instant(override.ends_at),
            "source": override.source,
        }
        for override in sorted(in_force, key=lambda override: override.ends_at)[:_MOST_EXCEPTIONS]
        if override.ends_at > time.time()
    ]


def _instant(seconds: float) -> str:
    return iso_timestamp(datetime.fromtimestamp(seconds, UTC))


def _columns(points: Sequence[Point], after: int) -> dict[str, list[float | None]]:
    """The points after a time, a list for each series: what a chart takes."""
    columns: dict[str, list[float | None]] = {"time": [], **{name: [] for name in _SERIES}}
    former = after
    for point in points:
        if point.time <= after:
            continue
        if former and point.time - former > GAP_SECONDS:
            columns["time"].append(point.time - 1)
            for name in _SERIES:
                columns[name].append(None)
        former = point.time
        columns["time"].append(point.time)
        for name, value_of in _SERIES.items():
            value = value_of(point)
            columns[name].append(None if value is None else round(value, 3))
    return columns


def _slowest_routes(fleet: Routes) -> list[dict[str, Any]]:
    """By p95, of the last five to ten minutes."""
    routes = []
    for name, (microseconds, *counts) in fleet.items():
        method, _, template = name.partition(" ")
        requests = sum(counts)
        routes.append(
            {
                "method": method,
                "route": template,
                "requests": requests,
                "mean": round(microseconds / 1000 / requests, 2),
                "p95": round(quantile_ms(0.95, counts, REQUEST_BOUNDS_MS) or 0.0, 2),
            }
        )
    return sorted(routes, key=lambda route: (route["p95"], route["mean"]), reverse=True)[:_MOST_ROUTES]
