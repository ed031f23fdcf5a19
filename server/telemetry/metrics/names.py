"""The names under which metrics are exposed: our own begin with `mastery_`.

`cache_…` and `process_…` are promised to clients as they are; `http_…` and `python_…` are everybody's. The others had
no prefix up to version 0.1. They keep that name beside the new one in 0.2, so that queries can be moved; then the
index declares the new names, and this module goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from server.telemetry.metrics.series import Family, Series

NAMESPACE: Final = "mastery_"
# Families, so counters without `_total`.
RENAMED: Final = frozenset({
    "database_pool_in_use", "database_pool_size", "database_pool_waiters", "database_query_duration_seconds",
    "database_replica_lag_seconds",
    "errors", "event_loop_lag_seconds", "rate_limit_cost_units", "rate_limit_decisions", "rate_limit_failures",
    "rate_limit_near_limit", "rate_limit_worker_alone", "rate_limit_worker_decisions", "redis_round_trip_seconds",
    "service_up",
})  # fmt: skip


def with_new_names(families: Iterable[Family]) -> Iterator[Family]:
    """The families as they are exposed: each renamed one under its new name, and then under its old one."""
    for family in families:
        if family.name not in RENAMED:
            yield family
            continue
        samples = [
            (Series(f"{NAMESPACE}{series.name}", series.labels, f"{NAMESPACE}{series.text}"), value)
            for series, value in family.samples
        ]
        new = Family(f"{NAMESPACE}{family.name}", family.kind, family.documentation, samples)
        yield new
        deprecated = f"Deprecated, use {new.exposed_name}. {family.documentation}"
        yield Family(family.name, family.kind, deprecated, family.samples)
