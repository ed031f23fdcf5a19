"""Wires the service: settings in, an application out.

Python's cycle collector is set for a server: it looks at what requests leave behind, not at the whole process.
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator
from functools import partial
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from server import __version__
from server.api.assets import HOME, OPENAPI, Asset, Once, home_of
from server.api.pagination import CURSORS, Cursors
from server.api.requests import MAX_BODY_BYTES
from server.api.responses import JSON
from server.api.routes import add_routes, limit_groups, limited_routes
from server.api.services import READINESS, RULES, SERVICES, Readiness, Rule, Services
from server.connections.protocol import ServiceRunner
from server.connections.table import Connections, RefusalWriter
from server.connections.unread import UnreadResponses
from server.dashboard.history import Totals, read_totals
from server.dashboard.keeper import HistoryKeeper, Refusals
from server.domain.catalog.catalog import Catalog
from server.domain.identity.accounts import Accounts
from server.domain.identity.callers import Callers
from server.domain.identity.external import ExternalTokens, KeySet
from server.domain.identity.passwords import Passwords
from server.domain.identity.subjects import parse_subject
from server.domain.identity.tokens import AccessTokens
from server.domain.replica_reads import ReplicaReads
from server.domain.study.overlays import Overlays
from server.domain.study.ratings import Ratings
from server.domain.study.reading import Reading
from server.domain.writing import Writer
from server.middleware.admission import admission
from server.middleware.errors import errors
from server.middleware.headers import StandardHeaders, cors
from server.middleware.metrics import metrics_middleware
from server.middleware.tracing import tracing
from server.ratelimit import Limiter
from server.ratelimit.limits import RateLimits
from server.ratelimit.reloading import LAST_GOOD, RateLimitsFile
from server.settings import Settings, ignored_options
from server.stores.cache.cache import Cache
from server.stores.postgres.database import Database
from server.stores.postgres.replica import Replica
from server.stores.postgres.schema import SchemaWatch
from server.stores.redis.link import RedisLink
from server.telemetry.health import EventLoopLag, Health, HealthWatch
from server.telemetry.logs.setup import configure_logging, handle_loop_exception
from server.telemetry.metrics.directory import multiprocess_directory
from server.telemetry.metrics.index import Metrics

if TYPE_CHECKING:
    from server.telemetry.otlp_metrics import MetricsExport
    from server.telemetry.traces import SpanExport

log = structlog.get_logger(__name__)

# Python's defaults (700, 10, 10) look for cycles every few requests. Requests leave none behind but where something
# raises, so a look every few hundred of them is soon enough: the memory in question is some megabytes.
_THRESHOLDS = (10_000, 50, 100)


def settle_garbage_collection() -> None:
    """Collect once, exempt what is alive from every later collection, and collect less often.

    For a process that has finished starting: modules, routes and schemas live as long as it does, and each full
    collection would walk through all of them (`gc.freeze`).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)


def create_app(settings: Settings) -> web.Application:
    """The application, complete but not started: it connects to its servers when it starts up.

    Raises:
        RateLimitsError: the rate limits file is not valid.
    """
    metrics = Metrics()
    decisions = metrics.labelled(metrics.rate_limit_decisions)
    near_limits = metrics.labelled(metrics.rate_limit_near_limit)
    failures = metrics.labelled(metrics.rate_limit_failures)
    cost_units = metrics.labelled(metrics.rate_limit_cost_units)
    database, replica = _databases(settings, metrics)
    redis = RedisLink(
        settings.redis_url,
        deadline_ms=settings.cache_deadline_ms,
        connect_timeout_ms=settings.redis_connect_timeout_ms,
        verify_tls=settings.redis_verify_tls,
        on_round_trip=metrics.tally(metrics.redis_round_trip_seconds).observe,
    )
    cache = Cache(
        redis,
        metrics,
        ttl_seconds=settings.cache_ttl_seconds,
        stale_seconds=settings.cache_stale_seconds,
        deadline_ms=settings.cache_deadline_ms,
    )
    limiter_redis = redis
    if settings.limiter_redis_url != settings.redis_url:
        limiter_redis = RedisLink(
            settings.limiter_redis_url,
            deadline_ms=settings.rate_limit_deadline_ms,
            connect_timeout_ms=settings.redis_connect_timeout_ms,
            verify_tls=settings.redis_verify_tls,
        )
    limiter = Limiter(
        limiter_redis,
        deadline_ms=settings.rate_limit_deadline_ms,
        workers=lambda: settings.web_concurrency,
        on_decision=decisions.count,
        on_near_limit=near_limits.count,
        on_cost=lambda policy, units: cost_units(policy, "added" if units > 0 else "returned").inc(
            abs(units)
        ),
        on_failure=failures.count,
        on_fallback=lambda is_on: metrics.rate_limit_worker_alone.set(1 if is_on else 0),
    )

    def use_limits(limits: RateLimits) -> None:
        limiter.forget_denials()
        limiter.overrides.use_file(limits.overrides)

    run_directory = multiprocess_directory()
    rate_limits = RateLimitsFile(
        settings.rate_limits_file,
        last_good=run_directory and run_directory / LAST_GOOD,
        required_groups=limit_groups(),
        routes=limited_routes(),
        parse_subject=parse_subject,
        on_change=use_limits,
    )
    use_limits(rate_limits.current)

    health = Health(deadline_ms=settings.health_timeout_ms)
    health.register(
        "database", database.check, critical=True, degraded_by=frozenset({"read_only", "disk_full"})
    )
    health.register("cache", redis.ping, critical=False)
    if replica is not None:
        health.register("replica", replica.check, critical=False)

    refusals = Refusals(redis)
    history = HistoryKeeper(redis, sample=lambda: _count_up(metrics), also=refusals.flush)

    tokens = AccessTokens(settings.secret_key, lifetime_seconds=settings.access_token_seconds)
    external = None
    if settings.auth_jwks_url is not None:
        external = ExternalTokens(
            KeySet(settings.auth_jwks_url),
            issuer=settings.auth_issuer,
            audience=settings.auth_audience,
            authorized_parties=settings.auth_authorized_parties,
        )
    catalog = Catalog(database, cache)

    callers = Callers(database, tokens, external)
    spans = _span_export(settings)
    rules: dict[web.AbstractRoute, Rule] = {}
    app = web.Application(
        client_max_size=MAX_BODY_BYTES,
        middlewares=[
            tracing(
                headers=StandardHeaders(settings),
                trusted=settings.trusted_proxies,
                spans=spans,
                addresses=settings.shown_addresses,
            ),
            metrics_middleware(metrics, with_exemplars=spans is not None),
            *([cors(settings.cors_origins)] if settings.cors_origins else []),
            errors,
            admission(
                callers,
                limiter,
                rate_limits,
                rules,
                on_refusal=refusals.note,
                count_error=metrics.count_error,
            ),
        ],
    )
    writer = Writer(database, cache, wait_seconds=settings.database_query_timeout_ms / 1000)
    app[CURSORS] = Cursors(settings.secret_key)
    app[OPENAPI] = _openapi_asset
    app[HOME] = home_of(settings)
    app[READINESS] = Readiness()
    app[SERVICES] = Services(
        settings=settings,
        database=database,
        schema=SchemaWatch(database),
        redis=redis,
        limiter_redis=limiter_redis,
        cache=cache,
        metrics=metrics,
        health=health,
        refusals=refusals,
        history=history,
        limiter=limiter,
        rate_limits=rate_limits,
        callers=callers,
        accounts=Accounts(
            database, Passwords(), tokens, refresh_token_seconds=settings.refresh_token_seconds
        ),
        catalog=catalog,
        reading=Reading(catalog, Overlays(database)),
        writer=writer,
        replica=replica,
        replica_reads=ReplicaReads(database, replica, redis),
        ratings=Ratings(database, writer),
    )
    rules.update(add_routes(app))
    app[RULES] = rules
    app.cleanup_ctx.append(_run_services)
    if spans is not None:
        app.on_cleanup.append(lambda _: spans.close())
    app.on_shutdown.append(_stop_being_ready)
    return app


def _databases(settings: Settings, metrics: Metrics) -> tuple[Database, Replica | None]:
    """The primary, and its replica where there is one."""
    query_durations = metrics.labelled(metrics.database_query_duration_seconds)
    open_database = partial(
        Database,
        pool_size=settings.database_pool_size,
        acquire_timeout_ms=settings.database_acquire_timeout_ms,
        idle_seconds=settings.database_idle_seconds,
        slow_query_ms=settings.slow_query_ms,
    )
    primary = open_database(
        settings.database_url,
        query_timeout_ms=settings.database_query_timeout_ms,
        on_query=lambda name, seconds: query_durations(name, "primary").observe(seconds),
    )
    if settings.database_replica_url is None:
        return primary, None
    replica = Replica(
        open_database(
            settings.database_replica_url,
            # Half of it: after a replica that hangs, the primary has its own time for the answer.
            query_timeout_ms=settings.database_query_timeout_ms / 2,
            on_query=lambda name, seconds: query_durations(name, "replica").observe(seconds),
            logs_outages=False,
        ),
        primary,
        max_lag_seconds=settings.database_replica_max_lag_seconds,
    )
    return primary, replica


@Once
def _openapi_asset() -> Asset:
    """The description of the API as it is served, made once a process."""
    from server.api.openapi.document import openapi_document  # noqa: PLC0415 - a tenth of all that is imported

    return Asset.of(openapi_document(), JSON)


def _span_export(settings: Settings) -> SpanExport | None:
    """Where the traces of this process go, if anywhere."""
    if settings.traces_url is None:
        return None
    from server.telemetry.traces import SpanExport  # noqa: PLC0415 - what it needs is an extra

    return SpanExport(settings.traces_url, service="mastery", env=settings.environment, version=__version__)


def _metrics_export(settings: Settings, metrics: Metrics) -> MetricsExport | None:
    """What sends the metrics of this machine to a collector, if anything."""
    if settings.metrics_url is None:
        return None
    from server.telemetry.otlp_metrics import MetricsExport  # noqa: PLC0415 - what it needs is an extra

    return MetricsExport(
        metrics,
        settings.metrics_url,
        env=settings.environment,
        version=__version__,
        interval_seconds=settings.metric_export_interval_ms / 1000.0,
    )


async def application() -> web.AppRunner:
    """What gunicorn serves: the application in a runner that owns log, keep-alive and shutdown.

    Raises:
        SettingsError: the environment is not usable.
        RateLimitsError: the rate limits file is not valid.
    """
    settings = Settings.from_env(os.environ)
    configure_logging(**settings.logging, version=__version__)
    for variable, option in ignored_options(os.environ):
        log.warning("settings.option_ignored", variable=variable, option=option)
    app = create_app(settings)
    app.on_startup.append(_settle)
    asyncio.get_running_loop().set_exception_handler(handle_loop_exception)
    return service_runner(app)


def service_runner(app: web.Application) -> web.AppRunner:
    """What serves an application of `create_app`: its connections, with their deadlines and their bound."""
    services = app[SERVICES]
    settings, metrics = services.settings, services.metrics

    def make_connections() -> Connections:
        return Connections(
            RefusalWriter(StandardHeaders(settings), metrics),
            metrics,
            UnreadResponses(
                metrics,
                still_seconds=settings.response_timeout_ms / 1000.0,
                limit_bytes=settings.response_buffer_mb << 20,
            ),
            limit=settings.connection_limit,
            head_seconds=settings.request_head_timeout_ms / 1000.0,
        )

    return ServiceRunner(app, make_connections, shutdown_timeout=settings.shutdown_seconds)


async def _run_services(app: web.Application) -> AsyncIterator[None]:
    """Start what talks to servers, in an order in which each finds what it needs; stop it in the reverse one."""
    services = app[SERVICES]
    lag = EventLoopLag(services.metrics, probes=[lambda: _sample(services)])
    watch = HealthWatch(services.health, services.metrics)
    await asyncio.gather(services.database.start(), services.redis.start(), services.limiter_redis.start())
    await services.schema.start()
    await services.database.warn_of_limits(services.settings.web_concurrency)
    if services.replica is not None:
        await services.replica.start()
    await services.limiter.start()
    await services.rate_limits.start()
    await lag.start()
    await watch.start()
    await services.history.start()
    export = _metrics_export(services.settings, services.metrics)
    if export is not None:
        await export.start()
    app[READINESS].is_ready = True
    log.info("service.started", redis=services.redis.connected)
    yield
    if export is not None:
        await export.close()
    await services.history.close()
    await watch.close()
    await lag.close()
    await services.rate_limits.close()
    await services.limiter.close()
    await services.health.close()
    await services.callers.close()
    await services.cache.close()
    await services.limiter_redis.close()
    await services.redis.close()
    await services.schema.close()
    if services.replica is not None:
        await services.replica.close()
    await services.database.close()
    log.info("service.stopped")


async def _settle(_app: web.Application) -> None:
    settle_garbage_collection()


async def _stop_being_ready(app: web.Application) -> None:
    app[READINESS].is_ready = False
    app[READINESS].is_draining = True


def _sample(services: Services) -> None:
    """The gauges that are read at each scrape."""
    metrics, database = services.metrics, services.database
    metrics.repair_files()
    metrics.cache_connection_status.set(1 if services.redis.connected else 0)
    targets = {"primary": database}
    if services.replica is not None:
        targets["replica"] = services.replica.database
        metrics.database_replica_lag_seconds.set(services.replica.lag_seconds)
    for target, server in targets.items():
        metrics.database_pool_size.labels(target).set(server.pool.open)
        metrics.database_pool_in_use.labels(target).set(server.pool.in_use)
        metrics.database_pool_waiters.labels(target).set(server.pool.waiters)
    for source, decisions in services.limiter.sources.items():
        metrics.rate_limit_worker_decisions.labels(source).set(decisions)


async def _count_up(metrics: Metrics) -> Totals:
    """What all workers have counted, read in a thread: it takes tens of milliseconds."""
    await metrics.settle()
    return await asyncio.to_thread(lambda: read_totals(metrics.render_json(declared_names=True)))
