"""No event shows more of a client's address than LOG_CLIENT_IP allows, in whatever format; nor do traces."""

from __future__ import annotations

import ast
import asyncio
import json
import logging
import os
import re
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, get_args

import pytest
import redis
import structlog

from server.api.assets import asset_names
from server.net import AddressForm, TrustedProxies
from server.ratelimit.policies import Charge, Policy, state_key
from server.settings import ROOT, Settings
from server.telemetry.logs.setup import configure_logging
from server.telemetry.logs.shapes import LogFormat
from tests.api.conftest import Api, StartApi
from tests.cli.commands import limits_command, run_command
from tests.support.otlp_receiver import otlp_receiver
from tests.support.waiting import wait_until

# Of clients behind a proxy that is trusted, one of them in our own network, and of a connection without a proxy.
V4, V6, OWN, PEER = "203.0.113.9", "2001:db8:1:2:3:4:5:6", "10.11.12.13", "127.77.88.99"
# What no line may hold: an address, also of a client's IPv6 network, or the end of one. Of an end it is three parts,
# for two look like the seconds of a time (18:36:12.136) or the milliseconds of a request.
WHOLE = (V4, V6, "2001:db8:1:2", OWN, PEER, "0.113.9", "11.12.13", "77.88.99")
# Every event that has a client's address, and the fields it is in.
EVENTS = {
    "http.request": {"client_ip"},
    "http.refused": {"client_ip"},
    "http.response_cut": {"client_ip"},
    "rate_limit.denied": {"subject"},
    "rate_limit.reset": {"subject"},
    "rate_limit.blocked": {"subject"},
    "rate_limit.script_failed": {"subject"},
    "rate_limits.unreadable": {"subject"},
    "rate_limit.overridden": {"subject"},
    "audit.rate_limits_reset": {"subject"},
    "audit.rate_limit_overridden": {"subject"},
    "audit.rate_limit_override_ended": {"subject"},
    "audit.rate_limits_blocked": {"subject"},
}
_NAMES = {
    "client_ip": ("client_ip", "client.ip", "remoteIp", "client.address", "network.client.ip"),
    "subject": ("subject", "mastery.subject"),
}
(_LARGE,) = (f"/api/docs/{name}" for name in asset_names() if name.startswith("swagger-ui-bundle"))
_OTHER_ID = f"a-proxy-names-requests-so-{V4}-0123456789"
_READS = Policy("generous", 100, 60_000)
_ADDRESS_FIELDS = ("client_ip", "subject", "address", "peer", "remote")
_EVENT = re.compile(r"[a-z_]+\.[a-z_]+")

log = structlog.get_logger("tests.own")


@pytest.fixture
def log_to(fresh_logging: None, tmp_path: Path) -> Iterator[Callable[[Settings], Callable[[], str]]]:
    """Logging by settings; calling what it returns gives what was written."""
    del fresh_logging
    path = tmp_path / "log"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)

    def configure(settings: Settings) -> Callable[[], str]:
        configure_logging(
            level="debug", format=settings.log_format, service="mastery", env="test", version="1",
            descriptor=descriptor, addresses=settings.shown_addresses,
        )  # fmt: skip
        return path.read_text

    yield configure
    os.close(descriptor)


def fail() -> None:
    """Raise an exception that names a client, of a cause that names another."""
    cause = ConnectionError(f"[{V6}]:443 hung up")
    raise ValueError(f"no answer for {V4}") from cause


def field(line: dict[str, Any], name: str) -> str | None:
    """A field of a line in any JSON format."""
    where = line | line.get("httpRequest", {})
    return next((where[known] for known in _NAMES[name] if known in where), None)


@asynccontextmanager
async def connection(port: int) -> AsyncIterator[socket.socket]:
    """A connection from PEER that reads as little as it can."""
    with socket.socket() as client:
        client.setblocking(False)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.bind((PEER, 0))
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
        yield client


async def everything(api: Api, redis_url: str, read: Callable[[], str]) -> None:
    """Have the service log each of EVENTS, each about each of the addresses that it may be about."""
    loop, port = asyncio.get_running_loop(), api.client.port
    assert port is not None
    for address, subject in ((V4, f"ip:{V4}"), (V6, "ip:2001:db8:1:2::/64"), (OWN, f"ip:{OWN}")):

        async def ask(status: int, *, client: str = address) -> None:
            headers = {"X-Forwarded-For": client, "X-Request-ID": _OTHER_ID}
            assert status == (await api.get("/api/classes", by=None, headers=headers)).status

        limits = f"/api/admin/rate-limits/{subject.replace('/', '%2F')}"
        await ask(401)
        await limits_command(api.services.settings, "block", subject, "--seconds=60")
        await ask(429)
        override = f"{limits}/overrides/*"
        changes = {"limit": None, "seconds": 60}
        assert 200 == (await api.put(override, by="admin", json=changes)).status
        assert 204 == (await api.delete(override, by="admin")).status
        assert 204 == (await api.delete(limits, by="admin")).status
        with closing(redis.Redis.from_url(redis_url)) as store:
            store.set(state_key(Charge(_READS, "reads", subject)), b"not ours", px=60_000)
        assert 409 == (await api.get(limits, by="admin")).status
        await ask(401)
    async with connection(port) as client:
        await loop.sock_sendall(client, b"NONSENSE\r\n\r\n")
        assert (await loop.sock_recv(client, 1000)).startswith(b"HTTP/1.1 400 ")
    async with connection(port) as client:
        await loop.sock_sendall(client, f"GET {_LARGE} HTTP/1.1\r\nHost: x\r\n\r\n".encode() * 4)
        await wait_until(lambda: "http.response_cut" in read(), "the response is cut")


@pytest.fixture
def logged_as(
    settings: Settings, start_api: StartApi, log_to: Callable[[Settings], Callable[[], str]]
) -> Callable[..., Any]:
    """Start a service behind a proxy with a LOG_CLIENT_IP and other settings; it comes with what reads its log."""

    async def start(form: AddressForm, **others: Any) -> tuple[Api, Callable[[], str]]:
        changed = replace(
            settings,
            log_client_ip=form,
            trusted_proxies=TrustedProxies.parse("1"),
            response_timeout_ms=200,
            **others,
        )
        read = log_to(changed)
        return await start_api(changed), read

    return start


@pytest.mark.parametrize("form", ["short", "hashed"])
@pytest.mark.parametrize("log_format", get_args(LogFormat))
async def test_deploy_17_no_event_shows_a_whole_address(
    logged_as: Callable[..., Any], redis_url: str, log_format: str, form: AddressForm
) -> None:
    """Each event that is about a client is there, and none of it, nor of the rest, shows where the client is."""
    api, read = await logged_as(form, log_format=log_format)
    await everything(api, redis_url, read)
    text = read()
    for event in EVENTS:
        # For people, a request's line begins with its method.
        assert (
            event if (event, log_format) != ("http.request", "console") else "GET /api/classes 429"
        ) in text
    for whole in WHOLE:
        assert whole not in text
    if log_format == "console":
        return
    shown: dict[str, set[str]] = {"client_ip": set(), "subject": set()}
    for line in map(json.loads, text.splitlines()):
        for name in EVENTS.get(str(line.get("message", line.get("body"))), ()):
            value = field(line, name)
            assert value is not None, line
            shown[name].add(value)
    if form == "short":
        assert {"203.0.113.0", "2001:db8:1::", "10.11.12.0", "127.77.88.0"} <= shown["client_ip"]
        assert {"ip:203.0.113.0/24", "ip:2001:db8:1::/48", "ip:10.11.12.0/24"} == shown["subject"]
    else:
        assert all(ip_address(one) in ip_network("100::/64") for one in shown["client_ip"])
        # What is refused is found by the address of its request's line.
        assert shown["subject"] <= {f"ip:{one}" for one in shown["client_ip"]}
        assert 3 == len(shown["subject"])


async def test_deploy_17_by_default_addresses_are_whole(
    logged_as: Callable[..., Any], redis_url: str
) -> None:
    """An operator who sets nothing finds every client, and its subject as commands take it."""
    api, read = await logged_as("full")
    await everything(api, redis_url, read)
    lines = [json.loads(line) for line in read().splitlines()]
    of_clients = [line for line in lines if line["message"] in EVENTS]
    assert EVENTS.keys() == {line["message"] for line in of_clients}
    assert {V4, V6, PEER} <= {line.get("client_ip") for line in of_clients}
    assert {f"ip:{V4}", "ip:2001:db8:1:2::/64"} <= {line.get("subject") for line in of_clients}


def test_deploy_17_these_are_all_events_with_an_address() -> None:
    """A new event about a client has to be among those that the tests above drive."""
    found: dict[str, set[str]] = {}
    for file in (ROOT / "server").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call):
                continue
            fields = {keyword.arg for keyword in node.keywords} & {*_ADDRESS_FIELDS}
            for argument in node.args:
                match argument:
                    case ast.Constant(value=str(name)) if fields and _EVENT.fullmatch(name):
                        found[name] = {str(one) for one in fields}
    # The request's line is put together from pieces.
    assert EVENTS == found | {"http.request": {"client_ip"}}


@pytest.mark.parametrize("form", ["short", "hashed"])
@pytest.mark.parametrize("log_format", get_args(LogFormat))
def test_deploy_17_what_libraries_and_exceptions_say_is_shown_likewise(
    log_to: Callable[[Settings], Callable[[], str]], settings: Settings, log_format: Any, form: AddressForm
) -> None:
    """Whoever speaks, in whatever place: a message, an extra field, a key, an exception, its cause, a cut text."""
    read = log_to(replace(settings, log_format=log_format, log_client_ip=form))
    logging.getLogger("aiohttp.server").error("Error handling request from %s", V4, extra={"client_ip": V6})
    logging.getLogger("careless").error("%d requests", f"many, of {V4}")
    try:
        fail()
    except ValueError as error:
        log.exception("own.failure", error=error, seen={V4: 1, "list": [V6, (V4, b"ip=" + V4.encode())]})
    log.warning("own.cut", text=f"{'x' * 1994} {V4} {'x' * 3000}")
    text = read()
    assert 4 == text.count("own.") + text.count("aiohttp.server") + text.count("careless")
    for whole in WHOLE:
        assert whole not in text


@pytest.mark.parametrize("form", ["short", "hashed"])
async def test_deploy_17_traces_show_what_the_log_shows(
    logged_as: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, form: AddressForm
) -> None:
    """A span's client.address is the client_ip of its request's line."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    async with otlp_receiver() as collector:
        api, read = await logged_as(form, otlp_endpoint=collector.url)
        await api.get("/livez", headers={"X-Forwarded-For": V4})
        (span,) = await collector.wait_for(1)
        await wait_until(lambda: "http.request" in read(), "the request's line")
        (line,) = [one for one in map(json.loads, read().splitlines()) if one["message"] == "http.request"]
        assert line["client_ip"] == span.attributes["client.address"] != V4
        assert V4 not in repr(collector.spans)


async def test_deploy_17_a_command_logs_the_same_hash(
    logged_as: Callable[..., Any], database_url: str, redis_url: str
) -> None:
    """`limits` beside the service says of a client what the service says; without the service's key it says nothing."""
    api, read = await logged_as("hashed")
    variables = {"REDIS_URL": redis_url, "LOG_CLIENT_IP": "hashed", "database_url": database_url}
    refused = await asyncio.to_thread(run_command, "limits", "reset", f"ip:{V4}", **variables, SECRET_KEY="")
    assert (2, "") == (refused.returncode, refused.stdout)
    assert "SECRET_KEY" in refused.stderr
    assert "LOG_CLIENT_IP=hashed" in refused.stderr
    key = api.services.settings.secret_key
    done = await asyncio.to_thread(run_command, "limits", "reset", f"ip:{V4}", **variables, SECRET_KEY=key)
    (line,) = [
        one for one in map(json.loads, done.stderr.splitlines()) if one["message"] == "rate_limit.reset"
    ]
    await api.services.limiter.reset(f"ip:{V4}", ())
    (ours,) = [one for one in map(json.loads, read().splitlines()) if one["message"] == "rate_limit.reset"]
    assert ours["subject"] == line["subject"]
    assert V4 not in done.stderr
