"""The metric of the services' health follows the services without anybody asking."""

from __future__ import annotations

import re

from server.telemetry.health import Health, HealthWatch
from server.telemetry.metrics.index import Metrics
from tests.support.waiting import wait_until


def service_up(metrics: Metrics) -> dict[str, str]:
    """What the metric says, by service."""
    text = metrics.render_text("")[0].decode()
    return dict(re.findall(r'^service_up\{service="(.*?)"\} (\S+)$', text, re.MULTILINE))


async def test_the_metric_follows_the_services() -> None:
    """A service that is lost turns to 0, and back to 1 with its return; the others stay as they are."""
    lost = False

    async def well() -> None:
        return

    async def database() -> None:
        if lost:
            raise ConnectionRefusedError

    health, metrics = Health(), Metrics()
    health.register("database", database, critical=True)
    health.register("cache", well, critical=False)
    watch = HealthWatch(health, metrics, interval_seconds=0.01)
    assert {} == service_up(metrics)
    await watch.start()
    await wait_until(lambda: {"database": "1.0", "cache": "1.0"} == service_up(metrics), "both are up")
    lost = True
    await wait_until(lambda: {"database": "0.0", "cache": "1.0"} == service_up(metrics), "one is down")
    lost = False
    await wait_until(lambda: {"database": "1.0", "cache": "1.0"} == service_up(metrics), "both are up again")
    await watch.close()
    await health.close()


async def test_it_can_be_closed_unstarted() -> None:
    """Closing what never ran, and closing twice, is nothing special."""
    watch = HealthWatch(Health(), Metrics())
    await watch.close()
    await watch.start()
    await watch.close()
    await watch.close()


async def test_a_part_that_does_some_of_its_work_is_up() -> None:
    """Only one that does none of it is down: a database that takes no writes still answers readers."""
    answers = iter([ReadOnly(), ConnectionRefusedError(), ReadOnly()])

    async def database() -> None:
        raise next(answers, ReadOnly())

    health, metrics = Health(), Metrics()
    health.register("database", database, critical=True, degraded_by=frozenset({"read_only"}))
    watch = HealthWatch(health, metrics, interval_seconds=0.05)
    await watch.start()
    for state in ("1.0", "0.0", "1.0"):
        await wait_until(lambda state=state: {"database": state} == service_up(metrics), state)  # type: ignore[misc]
    await watch.close()
    await health.close()


class ReadOnly(Exception):
    """What a database that takes no writes raises."""

    reason = "read_only"
