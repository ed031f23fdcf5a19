"""Redis URLs: the servers that one names, their kind, and how to log in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from redis.asyncio.connection import parse_url

Kind = Literal["single", "sentinel", "cluster"]
Node = tuple[str, int]

_DEFAULT_PORTS: Mapping[Kind, int] = {"single": 6379, "sentinel": 26379, "cluster": 6379}
# Valkey speaks the same protocol, and platforms name its URLs after it.
_BASES = {"redis": "redis", "rediss": "rediss", "valkey": "redis", "valkeys": "rediss", "unix": "unix"}
_OPTIONS = frozenset({"db", "username", "password", "client_name", "sentinel_username", "sentinel_password"})
_TLS_OPTIONS = frozenset(
    {
        "ssl_keyfile", "ssl_certfile", "ssl_cert_reqs", "ssl_ca_certs", "ssl_ca_path", "ssl_ca_data", "ssl_password",
        "ssl_check_hostname", "ssl_min_version", "ssl_ciphers",
    }
)  # fmt: skip
_CERT_REQS = ("none", "optional", "required")
# Options of redis-py's pools and of its clients, not of a connection: a link has neither. And what other tools write.
_NOT_OURS = frozenset(
    {
        "max_connections", "timeout", "retry_on_timeout", "health_check_interval", "protocol", "legacy_responses",
        "decode_responses", "encoding", "encoding_errors", "family",
    }
)  # fmt: skip


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
        ignored: options of the URL that mean nothing here.
    """

    kind: Kind
    nodes: tuple[Node, ...]
    service: str = ""
    tls: bool = False
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    sentinel_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    ignored: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = ",".join(f"{host}:{port}" for host, port in self.nodes) or str(self.options.get("path", ""))
        return f"{where}/{self.service}" if self.service else where


def parse_redis_url(url: str, *, verify_tls: bool = True) -> RedisAddress:
    """Return the address in a URL.

    Args:
        url: `redis://` or `rediss://` `[user:password@]host[:port][/db]`, `unix://[:password@]/path[?db=]`,
            `redis+sentinel://[user:password@]host[:port],…/service[/db][?sentinel_password=]` (and
            `sentinel_username`), or `redis+cluster://[user:password@]host[:port],…`; the last two with
            `rediss+` for TLS. `valkey` and `valkeys` mean `redis` and `rediss`. Options of redis-py's connections may
            follow, such as `?ssl_ca_certs=`.
        verify_tls: check the server's certificate and its name.

    Raises:
        ValueError: it is none of these, or has an unknown option or an unknown value of one. The message does not
            repeat the URL, which may hold a password.
    """
    scheme, found, rest = url.partition("://")
    name, plus, suffix = scheme.partition("+")
    if (
        not found
        or name not in _BASES
        or (plus and (name == "unix" or suffix not in {"sentinel", "cluster"}))
    ):
        raise ValueError(
            "a Redis URL starts with redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://; "
            "valkey stands for redis, too"
        )
    base = _BASES[name]
    rest, ignored = _without_foreign_options(base, rest)
    if suffix == "sentinel":
        address = _sentinel(base, rest)
    elif suffix == "cluster":
        address = _cluster(base, rest)
    else:
        address = _single(f"{base}://{rest}")
    options = dict(address.options)
    if address.tls and not verify_tls:
        options |= {"ssl_cert_reqs": "none", "ssl_check_hostname": False}
    return replace(address, options=options, ignored=ignored)


def _without_foreign_options(base: str, rest: str) -> tuple[str, tuple[str, ...]]:
    """Return what follows the scheme of a URL without the options that mean nothing here, and their names."""
    before, mark, query = rest.partition("?")
    kept, ignored = [], []
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in _NOT_OURS or name.startswith("socket_"):
            ignored.append(name)
            continue
        if name in _TLS_OPTIONS and base != "rediss":
            raise ValueError(f"the option {name} needs TLS: rediss:// or valkeys://")
        if name not in _OPTIONS | _TLS_OPTIONS:
            raise ValueError(
                f"there is no option {name}: it takes {', '.join(sorted(_OPTIONS | _TLS_OPTIONS))}"
            )
        if name == "ssl_cert_reqs" and value not in _CERT_REQS:
            raise ValueError(f"the option ssl_cert_reqs takes one of {', '.join(_CERT_REQS)}")
        kept.append((name, value))
    return before + mark + urlencode(kept), tuple(ignored)


def _check_database(path: str) -> None:
    """Refuse a path that is not a number: redis-py reads it as database 0."""
    if path.strip("/") and not path.strip("/").isdecimal():
        raise ValueError("the path of a Redis URL is the number of a database, such as /0")


def _single(url: str) -> RedisAddress:
    if not url.startswith("unix:"):
        _check_database(urlsplit(url).path)
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
    _check_database(database)
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
    """Return the options that redis-py reads in a URL."""
    parsed: dict[str, Any] = dict(parse_url(url))
    parsed.pop("connection_class", None)
    return parsed
