"""What a Redis URL says: which servers, of which kind, and how to log in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from redis.asyncio.connection import parse_url

Kind = Literal["single", "sentinel", "cluster"]
Node = tuple[str, int]

_DEFAULT_PORTS: Mapping[Kind, int] = {"single": 6379, "sentinel": 26379, "cluster": 6379}
_SCHEMES = {
    ("unix", ""),
    *((base, kind) for base in ("redis", "rediss") for kind in ("", "sentinel", "cluster")),
}
# Options of redis-py's pools and of its clients, not of a connection: a link has neither.
_NOT_OURS = (
    "max_connections",
    "timeout",
    "retry_on_timeout",
    "health_check_interval",
    "protocol",
    "legacy_responses",
)


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where Redis is.

    Attributes:
        kind: one server, a master named by Sentinel, or a Cluster.
        nodes: the server, the Sentinels, or the first Cluster nodes to ask; empty for a Unix socket.
        service: what Sentinel calls the master; empty otherwise.
        tls: whether connections are encrypted.
        options: how redis-py connects to a server: username, password, db, path, TLS files.
        sentinel_options: how it connects to the Sentinels, which have passwords of their own.
    """

    kind: Kind
    nodes: tuple[Node, ...]
    service: str = ""
    tls: bool = False
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    sentinel_options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        where = ",".join(f"{host}:{port}" for host, port in self.nodes) or str(self.options.get("path", ""))
        return f"{where}/{self.service}" if self.service else where


def parse_redis_url(url: str, *, verify_tls: bool = True) -> RedisAddress:
    """The address that a URL stands for.

    Args:
        url: `redis://` or `rediss://` `[user:password@]host[:port][/db]`, `unix://[:password@]/path[?db=]`,
            `redis+sentinel://[user:password@]host[:port],…/service[/db][?sentinel_password=]` (and
            `sentinel_username`), or `redis+cluster://[user:password@]host[:port],…`; the last two with
            `rediss+` for TLS. Options of redis-py's connections may follow, such as `?ssl_ca_certs=`.
        verify_tls: check the server's certificate and its name.

    Raises:
        ValueError: it is none of these; the message does not repeat the URL, which may hold a password.
    """
    scheme, found, rest = url.partition("://")
    base, _, suffix = scheme.partition("+")
    if not found or (base, suffix) not in _SCHEMES:
        raise ValueError(
            "a Redis URL starts with redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://"
        )
    if suffix == "sentinel":
        address = _sentinel(base, rest)
    elif suffix == "cluster":
        address = _cluster(base, rest)
    else:
        address = _single(url)
    if address.tls and not verify_tls:
        unverified = {"ssl_cert_reqs": "none", "ssl_check_hostname": False}
        options = {**address.options, **unverified}
        return RedisAddress(
            address.kind, address.nodes, address.service, address.tls, options, address.sentinel_options
        )
    return address


def _single(url: str) -> RedisAddress:
    options = _options(url)
    if "path" in options:
        return RedisAddress("single", (), options=options)
    if url.startswith("unix:"):
        raise ValueError("a unix:// URL needs the path of the socket")
    node = (str(options.pop("host", "localhost")), int(options.pop("port", _DEFAULT_PORTS["single"])))
    return RedisAddress("single", (node,), tls=url.startswith("rediss:"), options=options)


def _sentinel(base: str, rest: str) -> RedisAddress:
    authority, path, query = _split(base, rest)
    nodes = _nodes(authority.rpartition("@")[2], _DEFAULT_PORTS["sentinel"])
    service, _, database = path.strip("/").partition("/")
    if not service:
        raise ValueError("a redis+sentinel:// URL names the service: redis+sentinel://host:port/service")
    options = _options(f"{base}://{_credentials(authority)}localhost/{database}?{query}")
    options.pop("host")
    own = {"sentinel_username": "username", "sentinel_password": "password"}
    sentinel_options = {own[name]: options.pop(name) for name in own if name in options}
    return RedisAddress(
        "sentinel",
        nodes,
        unquote(service),
        base == "rediss",
        options=options,
        sentinel_options=sentinel_options,
    )


def _cluster(base: str, rest: str) -> RedisAddress:
    authority, path, query = _split(base, rest)
    nodes = _nodes(authority.rpartition("@")[2], _DEFAULT_PORTS["cluster"])
    if path.strip("/") not in {"", "0"}:
        raise ValueError("a Redis Cluster has database 0 only")
    options = _options(f"{base}://{_credentials(authority)}localhost?{query}")
    options.pop("host")
    return RedisAddress("cluster", nodes, tls=base == "rediss", options=options)


def _split(base: str, rest: str) -> tuple[str, str, str]:
    parts = urlsplit(f"{base}://{rest}")
    return parts.netloc, parts.path, parts.query


def _credentials(authority: str) -> str:
    before, at, _ = authority.rpartition("@")
    return before + at


def _nodes(hosts: str, default_port: int) -> tuple[Node, ...]:
    nodes = []
    for entry in hosts.split(","):
        parts = urlsplit(f"redis://{entry.strip()}")
        if not parts.hostname:
            raise ValueError("a Redis URL lists its hosts as host:port,host:port")
        nodes.append((parts.hostname, parts.port or default_port))
    return tuple(nodes)


def _options(url: str) -> dict[str, Any]:
    """What redis-py reads in a URL, less what is ours to decide."""
    parsed: dict[str, Any] = dict(parse_url(url))
    parsed.pop("connection_class", None)
    return {
        name: value
        for name, value in parsed.items()
        if name not in _NOT_OURS and not name.startswith("socket_")
    }
