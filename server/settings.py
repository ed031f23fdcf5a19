"""Everything the environment can say, checked as a whole before anything starts."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from server.files import ROOT as ROOT  # noqa: PLC0414 - it was always found here
from server.net import ACCEPTED as PROXIES_ACCEPTED
from server.net import AddressForm, ShownAddresses, TrustedProxies, shown_addresses
from server.telemetry.logs.shapes import LogFormat

MINIMUM_SECRET_BYTES = 32  # RFC 7518, section 3.2: an HS256 key is at least as long as its hash
POSTGRES_SCHEMES = ("postgres", "postgresql")
REDIS_SCHEMES = (
    *(
        f"{name}{kind}"
        for name in ("redis", "rediss", "valkey", "valkeys")
        for kind in ("", "+sentinel", "+cluster")
    ),
    "unix",
)

# What else a worker has open: Redis, logs, metrics, listening sockets, and the spare connections of health probes.
_OTHER_FILES = 64
_ARRIVING_AT_ONCE = 128
_MOST_CONNECTIONS = 4096
_NOBODY = TrustedProxies()


class SettingsError(Exception):
    """The environment is not usable; `problems` holds a sentence for each variable, `str()` all of them."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


@dataclass(frozen=True, slots=True)
class _Kind:
    """How a variable's text becomes a value, and what it accepts, in words.

    `parse` raises ValueError, OSError or RuntimeError for a text that it does not accept.
    """

    parse: Callable[[str], Any]
    accepts: str


class UnusableOption(Exception):
    """A part of a value is not accepted; the message says which, and what it takes instead."""


class _Reader:
    """Reads variables one by one and keeps what is wrong with them."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.problems: list[str] = []

    def read(self, variable: Variable) -> Any:
        name, kind = variable.name, variable.kind
        text = self._environment.get(name, "").strip()
        if not text:
            if variable.is_required:
                self.problems.append(f"{name} is not set: it takes {kind.accepts}")
            return None
        try:
            return kind.parse(text)
        except UnusableOption as error:
            self.problems.append(f"{name}: {error}; it takes {kind.accepts}")
            return None
        except (ValueError, OSError, RuntimeError):  # the last: ~ of nobody
            shown = "its value" if variable.is_secret else repr(text)
            self.problems.append(f"{name}: {shown} is not accepted: it takes {kind.accepts}")
            return None


def _whole(low: int, high: int, unit: str) -> _Kind:
    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text[:12]) <= high:
            raise ValueError
        return int(text)

    return _Kind(parse, f"a whole number ({unit}) from {low} to {high}")


def _choice(*accepted: str) -> _Kind:
    def parse(text: str) -> str:
        if text.lower() not in accepted:
            raise ValueError
        return text.lower()

    return _Kind(parse, "one of " + ", ".join(accepted))


def _url(schemes: tuple[str, ...], example: str) -> _Kind:
    def parse(text: str) -> str:
        parts = urlsplit(text)
        if parts.scheme not in schemes or not (parts.netloc or parts.path):
            raise ValueError
        if "," not in parts.netloc:
            _ = parts.port  # raises ValueError for a port that is no number
        return text

    return _Kind(parse, f"a URL such as {example} (schemes: {', '.join(schemes)})")


def _checked(kind: _Kind, check: Callable[[str], Any]) -> _Kind:
    """The kind, with what a parser of the whole URL has to say about its options."""

    def parse(text: str) -> Any:
        kind.parse(text)
        try:
            return check(text)
        except ValueError as error:
            raise UnusableOption(error) from None

    return _Kind(parse, kind.accepts)


def _check_redis(text: str) -> str:
    from server.stores.redis.address import parse_redis_url  # noqa: PLC0415 - redis-py: only where it is needed

    parse_redis_url(text)
    return text


def _check_database(text: str) -> str:
    from server.stores.postgres.address import parse_database_url  # noqa: PLC0415 - psycopg2, likewise

    return parse_database_url(text).url


def ignored_options(environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """Options of the URLs that mean nothing here, each with its variable; of settings that were accepted."""
    from server.stores.postgres.address import parse_database_url  # noqa: PLC0415 - see above
    from server.stores.redis.address import parse_redis_url  # noqa: PLC0415

    found: list[tuple[str, str]] = []
    for variable, parse in (
        ("DATABASE_URL", parse_database_url),
        ("MIGRATION_DATABASE_URL", parse_database_url),
        ("DATABASE_REPLICA_URL", parse_database_url),
        ("REDIS_URL", parse_redis_url),
        ("RATE_LIMIT_REDIS_URL", parse_redis_url),
    ):
        if text := environment.get(variable, "").strip():
            found += [(variable, option) for option in parse(text).ignored]
    return found


def _parse_secret(text: str) -> str:
    if len(text.encode()) < MINIMUM_SECRET_BYTES:
        raise ValueError
    return text


def _parse_switch(text: str) -> bool:
    if text.lower() in {"on", "true", "1", "yes"}:
        return True
    if text.lower() in {"off", "false", "0", "no"}:
        return False
    raise ValueError


def _parse_names(text: str) -> frozenset[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise ValueError
    return frozenset(names)


def _parse_origins(text: str) -> frozenset[str]:
    return frozenset(_parse_origin(origin.strip()) for origin in text.split(",") if origin.strip())


def _parse_origin(text: str) -> str:
    """An origin as browsers write it (RFC 6454, section 6.2): lower case, without the scheme's own port."""
    parts = urlsplit(text)
    host = (parts.hostname or "").lower()
    if parts.scheme not in _WEB_PORTS or not host or "*" in host or "@" in parts.netloc:
        raise ValueError
    if parts.path or "?" in text or "#" in text:
        raise ValueError
    port = "" if parts.port in {None, _WEB_PORTS[parts.scheme]} else f":{parts.port}"
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}"


def _parse_file(text: str) -> Path:
    path = Path(text).expanduser()
    with path.open("rb"):
        return path.resolve()


def _can_export_traces() -> bool:
    try:
        return find_spec("opentelemetry.exporter.otlp.proto.http.trace_exporter") is not None
    except ModuleNotFoundError:
        return False


_NO_EXPORTER = (
    "OTEL_EXPORTER_OTLP_ENDPOINT asks for traces, which need the extra `otel`: "
    "`pip install -r requirements-otel.txt` has it in the place of requirements.txt"
)
_WEB_PORTS = {"http": 80, "https": 443}
_milliseconds = _whole(1, 600_000, "milliseconds")
_seconds = _whole(1, 10**9, "seconds")
_database = _checked(_url(POSTGRES_SCHEMES, "postgresql://user:password@host:5432/name"), _check_database)
_redis = _checked(_url(REDIS_SCHEMES, "redis://host:6379/0"), _check_redis)
_collector = _url(("http", "https"), "http://localhost:4318")


@dataclass(frozen=True, slots=True)
class Variable:
    """What sets a field of the settings.

    Attributes:
        name: of the environment variable.
        kind: the values that it takes.
        is_secret: whether its value is never shown.
        is_required: whether there is no default.
    """

    name: str
    kind: _Kind
    is_secret: bool
    is_required: bool


def _setting(kind: _Kind, *, default: Any = MISSING, variable: str = "", is_secret: bool = False) -> Any:
    """A field of the settings. Args: variable: where it is not the field's name in capitals."""
    return field(default=default, metadata={"kind": kind, "variable": variable, "is_secret": is_secret})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the service runs with: each field is set by the variable of its name in capitals, where it names no other.

    Times carry their unit in the name.
    """

    database_url: str = _setting(_database, is_secret=True)
    migration_database_url: str | None = _setting(_database, default=None, is_secret=True)
    # None for reading everything from the primary
    database_replica_url: str | None = _setting(_database, default=None, is_secret=True)
    redis_url: str = _setting(_redis, is_secret=True)
    # None for REDIS_URL
    rate_limit_redis_url: str | None = _setting(_redis, default=None, is_secret=True)
    secret_key: str = _setting(
        _Kind(
            _parse_secret, "at least 32 bytes of random text, such as the output of `openssl rand -hex 32`"
        ),
        is_secret=True,
    )
    host: str = _setting(_Kind(str, "any text"), default="127.0.0.1")
    port: int = _setting(_whole(1, 65535, "TCP port"), default=8000)
    web_concurrency: int = _setting(_whole(1, 256, "worker processes"), default=1)
    log_level: str = _setting(_choice("debug", "info", "warning", "error", "critical"), default="info")
    # None for the console's on a terminal, JSON elsewhere
    log_format: LogFormat | None = _setting(_choice(*get_args(LogFormat)), default=None)
    log_client_ip: AddressForm = _setting(_choice(*get_args(AddressForm)), default="full")
    environment: str = _setting(_Kind(str, "any text"), default="production", variable="MASTERY_ENV")
    trusted_proxies: TrustedProxies = _setting(
        _checked(_Kind(str, PROXIES_ACCEPTED), TrustedProxies.parse), default=_NOBODY
    )
    rate_limits_file: Path = _setting(
        _Kind(_parse_file, "the path of a readable file"), default=ROOT / "config" / "ratelimits.toml"
    )
    metrics_token: str | None = _setting(_Kind(str, "any text"), default=None, is_secret=True)
    cors_origins: frozenset[str] = _setting(
        _Kind(_parse_origins, "origins such as https://app.example.com, separated by commas"),
        default=frozenset(),
    )
    hsts: bool = _setting(_Kind(_parse_switch, "on or off"), default=False)
    # Only for a page: whether the accounts are there is up to `make run`, which sets it.
    demo_accounts: bool = _setting(_Kind(_parse_switch, "on or off"), default=False)

    auth_jwks_url: str | None = _setting(
        _url(("https", "http"), "https://issuer.example.com/.well-known/jwks.json"), default=None
    )
    auth_issuer: str = _setting(
        _Kind(str, "the `iss` of the issuer's tokens, such as https://issuer.example.com"), default=""
    )
    auth_audience: str | None = _setting(
        _Kind(str, "the `aud` that the issuer gives to this service"), default=None
    )
    auth_authorized_parties: frozenset[str] = _setting(
        _Kind(
            _parse_names,
            "what the `azp` of the issuer's tokens may be, such as https://app.example.com, separated by commas",
        ),
        default=frozenset(),
    )
    access_token_seconds: int = _setting(_seconds, default=3600)
    refresh_token_seconds: int = _setting(_seconds, default=30 * 24 * 3600)

    database_pool_size: int = _setting(_whole(1, 500, "connections a worker"), default=10)
    database_acquire_timeout_ms: int = _setting(_milliseconds, default=1000)
    database_query_timeout_ms: int = _setting(_milliseconds, default=5000)
    database_idle_seconds: int = _setting(_seconds, default=60)
    database_replica_max_lag_seconds: int = _setting(_whole(1, 3600, "seconds"), default=10)
    import_timeout_ms: int = _setting(_milliseconds, default=25_000)
    slow_query_ms: int = _setting(_milliseconds, default=50)

    redis_verify_tls: bool = _setting(_Kind(_parse_switch, "on or off"), default=True)
    redis_connect_timeout_ms: int = _setting(_milliseconds, default=500)
    cache_deadline_ms: int = _setting(_milliseconds, default=50)
    cache_ttl_seconds: int = _setting(_seconds, default=300)
    cache_stale_seconds: int = _setting(_whole(0, 7 * 24 * 3600, "seconds"), default=3600)
    rate_limit_deadline_ms: int = _setting(_milliseconds, default=50)

    request_head_timeout_ms: int = _setting(_milliseconds, default=10_000)
    request_body_timeout_ms: int = _setting(_milliseconds, default=30_000)
    response_timeout_ms: int = _setting(_milliseconds, default=30_000)
    response_buffer_mb: int = _setting(_whole(1, 65_536, "megabytes a worker"), default=64)
    # None for what the limit of open files allows
    max_connections: int | None = _setting(_whole(1, 1_000_000, "connections a worker"), default=None)

    otlp_endpoint: str | None = _setting(_collector, default=None, variable="OTEL_EXPORTER_OTLP_ENDPOINT")
    otlp_traces_endpoint: str | None = _setting(
        _collector, default=None, variable="OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
    )
    otlp_metrics_endpoint: str | None = _setting(
        _collector, default=None, variable="OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"
    )
    metrics_exporter: Literal["otlp", "none"] = _setting(
        _choice("otlp", "none"), default="none", variable="OTEL_METRICS_EXPORTER"
    )
    metric_export_interval_ms: int = _setting(
        _milliseconds, default=60_000, variable="OTEL_METRIC_EXPORT_INTERVAL"
    )
    otlp_protocol: Literal["http/protobuf"] = _setting(
        _choice("http/protobuf"), default="http/protobuf", variable="OTEL_EXPORTER_OTLP_PROTOCOL"
    )

    rating_good_ms: int = _setting(_milliseconds, default=200)
    rating_poor_ms: int = _setting(_milliseconds, default=500)
    health_timeout_ms: int = _setting(_whole(1, 1000, "milliseconds"), default=900)
    shutdown_seconds: int = _setting(_whole(1, 10, "seconds"), default=10)

    def __repr__(self) -> str:
        """Without the values: three of them are secrets."""
        return f"{type(self).__name__}({', '.join(field.name for field in fields(self))})"

    @property
    def traces_url(self) -> str | None:
        """Where traces are sent, by OpenTelemetry's rules for its variables; None for nowhere."""
        if self.otlp_traces_endpoint is not None or self.otlp_endpoint is None:
            return self.otlp_traces_endpoint
        return f"{self.otlp_endpoint.rstrip('/')}/v1/traces"

    @property
    def metrics_url(self) -> str | None:
        """Where metrics are sent, by OpenTelemetry's rules but for the default, which is nowhere (None)."""
        if self.metrics_exporter == "none":
            return None
        if self.otlp_metrics_endpoint is not None or self.otlp_endpoint is None:
            return self.otlp_metrics_endpoint
        return f"{self.otlp_endpoint.rstrip('/')}/v1/metrics"

    @property
    def shown_addresses(self) -> ShownAddresses | None:
        """What shows clients' addresses in logs and traces; None for the whole of them."""
        return shown_addresses(self.log_client_ip, self.secret_key)

    @property
    def logging(self) -> dict[str, Any]:
        """What `configure_logging` takes of the settings."""
        return {
            "level": self.log_level,
            "format": self.log_format,
            "env": self.environment,
            "addresses": self.shown_addresses,
        }

    @property
    def connection_limit(self) -> int:
        """How many connections of clients a worker keeps: MAX_CONNECTIONS, or what there are files for, up to 4096."""
        if self.max_connections is not None:
            return self.max_connections
        pools = 1 if self.database_replica_url is None else 2
        return max(1, min(_MOST_CONNECTIONS, connection_room(pools * self.database_pool_size)))

    @property
    def limiter_redis_url(self) -> str:
        """The Redis that counts: a limiter must not be evicted, a cache may."""
        return self.rate_limit_redis_url or self.redis_url

    @classmethod
    def from_env(cls, environment: Mapping[str, str]) -> Settings:
        """The settings that environment variables describe; an empty variable counts as not set.

        Raises:
            SettingsError: with every problem at once, each naming the variable and what it accepts.
        """
        reader = _Reader(environment)
        values: dict[str, Any] = {}
        for name, variable in _variables().items():
            value = reader.read(variable)
            if value is not None:
                values[name] = value
        complete: dict[str, Any] = {field.name: field.default for field in fields(cls)} | values
        if complete["rating_good_ms"] >= complete["rating_poor_ms"]:
            reader.problems.append("RATING_GOOD_MS must be below RATING_POOR_MS (by default 200 and 500)")
        pools = 2 if "database_replica_url" in values else 1
        room = connection_room(pools * complete["database_pool_size"])
        if complete["max_connections"] is not None and complete["max_connections"] > room:
            reader.problems.append(
                f"MAX_CONNECTIONS: the limit of open files of a process has room for {max(room, 1)} at most; "
                "raise that limit (`ulimit -n`) or lower this number"
            )
        if values.get("database_replica_url", "") == values.get("database_url"):
            reader.problems.append(
                "DATABASE_REPLICA_URL: it is DATABASE_URL; it takes the address of a replica, or nothing"
            )
        if ("auth_jwks_url" in values) != ("auth_issuer" in values):
            reader.problems.append("AUTH_JWKS_URL and AUTH_ISSUER are set together, or neither")
        collectors = {"otlp_endpoint", "otlp_traces_endpoint", "otlp_metrics_endpoint"} & values.keys()
        if collectors and not _can_export_traces():
            reader.problems.append(_NO_EXPORTER)
        if values.get("metrics_exporter") == "otlp" and not collectors - {"otlp_traces_endpoint"}:
            reader.problems.append(
                "OTEL_METRICS_EXPORTER=otlp needs OTEL_EXPORTER_OTLP_ENDPOINT, or OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"
            )
        if reader.problems:
            raise SettingsError(reader.problems)
        return cls(**values)


def connection_room(database_connections: int) -> int:
    """How many clients' connections a process has room for, by its limit of open files.

    The database, Redis, files and the health probes have theirs; and some is kept for connections that arrive at the
    same moment, before any other can be closed for them.
    """
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return files - database_connections - _OTHER_FILES - min(_ARRIVING_AT_ONCE, files // 4)


def _variables() -> dict[str, Variable]:
    """What sets each field, by the field's name."""
    return {
        found.name: Variable(
            found.metadata["variable"] or found.name.upper(),
            found.metadata["kind"],
            found.metadata["is_secret"],
            found.default is MISSING,
        )
        for found in fields(Settings)
    }


def variables() -> Iterator[tuple[str, str, Any, bool]]:
    """Every variable: its name, its field, what holds where it is not set, and whether its value is a secret."""
    defaults = {found.name: None if found.default is MISSING else found.default for found in fields(Settings)}
    for name, variable in _variables().items():
        yield variable.name, name, defaults[name], variable.is_secret
