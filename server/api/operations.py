"""/api/health, /livez, /readyz, /api/metrics: for operators. Never rate limited."""

from __future__ import annotations

import asyncio
import hmac
from datetime import UTC, datetime

import structlog
from aiohttp import hdrs, web

from server.api.responses import NO_STORE_LINE, json_response
from server.api.services import READINESS, caller_of, checked_caller_of, services_of
from server.api.state import state_of
from server.api.whole_response import WholeResponse, header_line
from server.clock import iso_timestamp, optional_timestamp
from server.errors import Forbidden, ServiceUnavailable, Unauthenticated

log = structlog.get_logger(__name__)


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
