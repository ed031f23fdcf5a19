"""`python -m server status`: the dashboard in a terminal."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from server.errors import CommandError

_TIMEOUT_SECONDS: Final = 10
_COLOURS: Final = {
    "good": "32",
    "healthy": "32",
    "warning": "33",
    "degraded": "33",
    "critical": "31;1",
    "unhealthy": "31;1",
}


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """urllib would take our token along to wherever it is sent."""

    def redirect_request(self, *_arguments: Any, **_options: Any) -> None:
        """None: the redirect is the answer, an error."""


_OPENER: Final = urllib.request.build_opener(_NoRedirects)


@dataclass(frozen=True, slots=True)
class Status:
    """What to print, and what of it is critical: titles of metrics, names of services."""

    text: str
    critical: tuple[str, ...]


def is_this_machine(address: str) -> bool:
    """Whether an address is a loopback one: only there a token of our own making goes."""
    return urlsplit(address).hostname in {"127.0.0.1", "::1", "localhost"}


def fetch_status(address: str, token: str, *, colours: bool = False) -> Status:
    """Ask a running service how it is.

    Args:
        address: where it answers, such as https://mastery.example.com.
        token: its METRICS_TOKEN, or an admin's access token.
        colours: whether the text is for a terminal that has some.

    Raises:
        CommandError: the address is none, or the service does not answer, or not to us.
    """
    if urlsplit(address).scheme not in {"http", "https"}:
        raise CommandError(f"{address}: an address begins with http:// or https://")
    request = urllib.request.Request(  # noqa: S310 - http and https alone, see above
        f"{address.rstrip('/')}/api/dashboard", headers={"Authorization": f"Bearer {token}"}
    )
    try:
        with _OPENER.open(request, timeout=_TIMEOUT_SECONDS) as answer:
            return render_status(json.load(answer), colours=colours)
    except urllib.error.HTTPError as error:
        with error:
            raise CommandError(
                f"{address} answers {error.code} {error.reason}{_advice(error.code)}"
            ) from error
    except (OSError, ValueError, KeyError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise CommandError(f"{address} does not answer: {reason}") from error


def render_status(dashboard: Mapping[str, Any], *, colours: bool = False) -> Status:
    """The answer of /api/dashboard as lines of text."""
    lines = [f"{'KEY METRIC':<24}{'NOW':>10}  {'STATE':<9}  BASIS"]
    critical = []
    for metric in dashboard["keyMetrics"]:
        value = "-" if metric["value"] is None else f"{metric['value']:g} {metric['unit']}"
        state = metric["state"]
        lines.append(
            f"{metric['title']:<24}{value:>10}  {_paint(state, 9, colours=colours)}  {metric['basis']}; "
            f"warning at {metric['warning']:g}, critical at {metric['critical']:g} {metric['unit']}"
        )
        if state in {"warning", "critical"}:
            lines.append(f"{'':24}{metric['action']} docs/performance-monitoring.md#{metric['runbook']}")
        if state == "critical":
            critical.append(metric["title"])
    lines += ["", f"{'SERVICE':<24}{'ANSWERS IN':>10}  STATE"]
    for name, service in dashboard["services"].items():
        state = _paint(service["status"], 9, colours=colours)
        error = "" if service["error"] is None else f"  {service['error']}"
        lines.append(f"{name:<24}{service['responseTime']:>7.2f} ms  {state}{error}".rstrip())
        if service["status"] != "healthy":
            critical.append(name)
    if dashboard.get("metricsFault"):
        lines += [
            "",
            f"The metrics of the worker that answers are not shared with the others: {dashboard['metricsFault']}",
        ]
    return Status("\n".join(lines), tuple(critical))


def _advice(status: int) -> str:
    if status in {401, 403}:
        return "; METRICS_TOKEN has to be the service's"
    return ""


def _paint(state: str, width: int, *, colours: bool) -> str:
    padded = f"{state:<{width}}"
    return f"\033[{_COLOURS[state]}m{padded}\033[0m" if colours and state in _COLOURS else padded
