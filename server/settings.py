"""Everything the environment can say, checked as a whole before anything starts."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from server.net.client_address import ACCEPTED as PROXIES_ACCEPTED
from server.net.client_address import TrustedProxies
from server.net.shown_addresses import AddressForm, ShownAddresses, shown_addresses

ROOT = Path(__file__).resolve().parents[1]
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the service runs with. Each field says which variable sets it; times carry their unit in the name."""

    database_url: str  # DATABASE_URL
    migration_database_url: str | None = None  # MIGRATION_DATABASE_URL
    redis_url: str  # REDIS_URL
    rate_limit_redis_url: str | None = None  # RATE_LIMIT_REDIS_URL; None for REDIS_URL
    secret_key: str  # SECRET_KEY
    host: str = "127.0.0.1"  # HOST
    port: int = 8000  # PORT
    web_concurrency: int = 1  # WEB_CONCURRENCY
    log_level: str = "info"  # LOG_LEVEL
    # LOG_FORMAT; None for the console's on a terminal, JSON elsewhere
    log_format: Literal["json", "console", "ecs", "gcp"] | None = None
    log_client_ip: AddressForm = "full"  # LOG_CLIENT_IP
    environment: str = "production"  # MASTERY_ENV
    trusted_proxies: TrustedProxies = _NOBODY  # TRUSTED_PROXIES
    rate_limits_file: Path = ROOT / "config" / "ratelimits.toml"  # RATE_LIMITS_FILE
    metrics_token: str | None = None  # METRICS_TOKEN
    cors_origins: frozenset[str] = frozenset()  # CORS_ORIGINS
    hsts: bool = False  # HSTS

    auth_jwks_url: str | None = None  # AUTH_JWKS_URL
    auth_issuer: str = ""  # AUTH_ISSUER
    auth_audience: str | None = None  # AUTH_AUDIENCE
    auth_authorized_parties: frozenset[str] = frozenset()  # AUTH_AUTHORIZED_PARTIES
    access_token_seconds: int = 3600  # ACCESS_TOKEN_SECONDS
    refresh_token_seconds: int = 30 * 24 * 3600  # REFRESH_TOKEN_SECONDS

    database_pool_size: int = 10  # DATABASE_POOL_SIZE
    database_acquire_timeout_ms: int = 1000  # DATABASE_ACQUIRE_TIMEOUT_MS
    database_query_timeout_ms: int = 5000  # DATABASE_QUERY_TIMEOUT_MS
    database_idle_seconds: int = 60  # DATABASE_IDLE_SECONDS
    import_timeout_ms: int = 25_000  # IMPORT_TIMEOUT_MS
    slow_query_ms: int = 50  # SLOW_QUERY_MS

    redis_verify_tls: bool = True  # REDIS_VERIFY_TLS
    redis_connect_timeout_ms: int = 500  # REDIS_CONNECT_TIMEOUT_MS
    cache_deadline_ms: int = 50  # CACHE_DEADLINE_MS
    cache_ttl_seconds: int = 300  # CACHE_TTL_SECONDS
    cache_stale_seconds: int = 3600  # CACHE_STALE_SECONDS
    rate_limit_deadline_ms: int = 50  # RATE_LIMIT_DEADLINE_MS

    request_head_timeout_ms: int = 10_000  # REQUEST_HEAD_TIMEOUT_MS
    request_body_timeout_ms: int = 30_000  # REQUEST_BODY_TIMEOUT_MS
    response_timeout_ms: int = 30_000  # RESPONSE_TIMEOUT_MS
    response_buffer_mb: int = 64  # RESPONSE_BUFFER_MB
    max_connections: int | None = None  # MAX_CONNECTIONS; None for what the limit of open files allows

    otlp_endpoint: str | None = None  # OTEL_EXPORTER_OTLP_ENDPOINT
    otlp_traces_endpoint: str | None = None  # OTEL_EXPORTER_OTLP_TRACES_ENDPOINT
    otlp_protocol: Literal["http/protobuf"] = "http/protobuf"  # OTEL_EXPORTER_OTLP_PROTOCOL

    rating_good_ms: int = 200  # RATING_GOOD_MS
    rating_poor_ms: int = 500  # RATING_POOR_MS
    health_timeout_ms: int = 900  # HEALTH_TIMEOUT_MS
    shutdown_seconds: int = 10  # SHUTDOWN_SECONDS

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
    def shown_addresses(self) -> ShownAddresses | None:
        """What shows clients' addresses in logs and traces; None for the whole of them."""
        return shown_addresses(self.log_client_ip, self.secret_key)

    @property
    def connection_limit(self) -> int:
        """How many connections of clients a worker keeps: MAX_CONNECTIONS, or what there are files for, up to 4096."""
        if self.max_connections is not None:
            return self.max_connections
        return max(1, min(_MOST_CONNECTIONS, connection_room(self.database_pool_size)))

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
        for name, (variable, kind) in _VARIABLES.items():
            value = reader.read(variable, kind, required=name in _REQUIRED)
            if value is not None:
                values[name] = value
        complete: dict[str, Any] = {field.name: field.default for field in fields(cls)} | values
        if complete["rating_good_ms"] >= complete["rating_poor_ms"]:
            reader.problems.append("RATING_GOOD_MS must be below RATING_POOR_MS (by default 200 and 500)")
        room = connection_room(complete["database_pool_size"])
        if complete["max_connections"] is not None and complete["max_connections"] > room:
            reader.problems.append(
                f"MAX_CONNECTIONS: the limit of open files of a process has room for {max(room, 1)} at most; "
                "raise that limit (`ulimit -n`) or lower this number"
            )
        if ("auth_jwks_url" in values) != ("auth_issuer" in values):
            reader.problems.append("AUTH_JWKS_URL and AUTH_ISSUER are set together, or neither")
        if {"otlp_endpoint", "otlp_traces_endpoint"} & values.keys() and not _can_export_traces():
            reader.problems.append(_NO_EXPORTER)
        if reader.problems:
            raise SettingsError(reader.problems)
        return cls(**values)


def connection_room(database_pool_size: int) -> int:
    """How many clients' connections a process has room for, by its limit of open files.

    The database, Redis, files and the health probes have theirs; and some is kept for connections that arrive at the
    same moment, before any other can be closed for them.
    """
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return files - database_pool_size - _OTHER_FILES - min(_ARRIVING_AT_ONCE, files // 4)


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

    def read(self, variable: str, kind: _Kind, *, required: bool) -> Any:
        text = self._environment.get(variable, "").strip()
        if not text:
            if required:
                self.problems.append(f"{variable} is not set: it takes {kind.accepts}")
            return None
        try:
            return kind.parse(text)
        except UnusableOption as error:
            self.problems.append(f"{variable}: {error}; it takes {kind.accepts}")
            return None
        except (ValueError, OSError, RuntimeError):  # the last: ~ of nobody
            shown = "its value" if variable in _SECRET else repr(text)
            self.problems.append(f"{variable}: {shown} is not accepted: it takes {kind.accepts}")
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
_SECRET = frozenset(
    {
        "SECRET_KEY", "METRICS_TOKEN", "DATABASE_URL", "MIGRATION_DATABASE_URL", "REDIS_URL", "RATE_LIMIT_REDIS_URL",
    }
)  # fmt: skip
_REQUIRED = frozenset({"database_url", "redis_url", "secret_key"})
_milliseconds = _whole(1, 600_000, "milliseconds")
_seconds = _whole(1, 10**9, "seconds")
_database = _checked(_url(POSTGRES_SCHEMES, "postgresql://user:password@host:5432/name"), _check_database)
_redis = _checked(_url(REDIS_SCHEMES, "redis://host:6379/0"), _check_redis)
_collector = _url(("http", "https"), "http://localhost:4318")
_VARIABLES: dict[str, tuple[str, _Kind]] = {
    "database_url": ("DATABASE_URL", _database),
    "migration_database_url": ("MIGRATION_DATABASE_URL", _database),
    "redis_url": ("REDIS_URL", _redis),
    "rate_limit_redis_url": ("RATE_LIMIT_REDIS_URL", _redis),
    "secret_key": (
        "SECRET_KEY",
        _Kind(
            _parse_secret, "at least 32 bytes of random text, such as the output of `openssl rand -hex 32`"
        ),
    ),
    "host": ("HOST", _Kind(str, "any text")),
    "port": ("PORT", _whole(1, 65535, "TCP port")),
    "web_concurrency": ("WEB_CONCURRENCY", _whole(1, 256, "worker processes")),
    "log_level": ("LOG_LEVEL", _choice("debug", "info", "warning", "error", "critical")),
    "log_format": ("LOG_FORMAT", _choice("json", "console", "ecs", "gcp")),
    "log_client_ip": ("LOG_CLIENT_IP", _choice(*get_args(AddressForm))),
    "environment": ("MASTERY_ENV", _Kind(str, "any text")),
    "trusted_proxies": (
        "TRUSTED_PROXIES",
        _checked(_Kind(str, PROXIES_ACCEPTED), TrustedProxies.parse),
    ),
    "rate_limits_file": ("RATE_LIMITS_FILE", _Kind(_parse_file, "the path of a readable file")),
    "metrics_token": ("METRICS_TOKEN", _Kind(str, "any text")),
    "cors_origins": (
        "CORS_ORIGINS",
        _Kind(_parse_origins, "origins such as https://app.example.com, separated by commas"),
    ),
    "hsts": ("HSTS", _Kind(_parse_switch, "on or off")),
    "auth_jwks_url": (
        "AUTH_JWKS_URL",
        _url(("https", "http"), "https://issuer.example.com/.well-known/jwks.json"),
    ),
    "auth_issuer": (
        "AUTH_ISSUER",
        _Kind(str, "the `iss` of the issuer's tokens, such as https://issuer.example.com"),
    ),
    "auth_audience": ("AUTH_AUDIENCE", _Kind(str, "the `aud` that the issuer gives to this service")),
    "auth_authorized_parties": (
        "AUTH_AUTHORIZED_PARTIES",
        _Kind(
            _parse_names,
            "what the `azp` of the issuer's tokens may be, such as https://app.example.com, separated by commas",
        ),
    ),
    "access_token_seconds": ("ACCESS_TOKEN_SECONDS", _seconds),
    "refresh_token_seconds": ("REFRESH_TOKEN_SECONDS", _seconds),
    "database_pool_size": ("DATABASE_POOL_SIZE", _whole(1, 500, "connections a worker")),
    "database_acquire_timeout_ms": ("DATABASE_ACQUIRE_TIMEOUT_MS", _milliseconds),
    "database_query_timeout_ms": ("DATABASE_QUERY_TIMEOUT_MS", _milliseconds),
    "database_idle_seconds": ("DATABASE_IDLE_SECONDS", _seconds),
    "import_timeout_ms": ("IMPORT_TIMEOUT_MS", _milliseconds),
    "slow_query_ms": ("SLOW_QUERY_MS", _milliseconds),
    "redis_verify_tls": ("REDIS_VERIFY_TLS", _Kind(_parse_switch, "on or off")),
    "redis_connect_timeout_ms": ("REDIS_CONNECT_TIMEOUT_MS", _milliseconds),
    "cache_deadline_ms": ("CACHE_DEADLINE_MS", _milliseconds),
    "cache_ttl_seconds": ("CACHE_TTL_SECONDS", _seconds),
    "cache_stale_seconds": ("CACHE_STALE_SECONDS", _whole(0, 7 * 24 * 3600, "seconds")),
    "rate_limit_deadline_ms": ("RATE_LIMIT_DEADLINE_MS", _milliseconds),
    "request_head_timeout_ms": ("REQUEST_HEAD_TIMEOUT_MS", _milliseconds),
    "request_body_timeout_ms": ("REQUEST_BODY_TIMEOUT_MS", _milliseconds),
    "response_timeout_ms": ("RESPONSE_TIMEOUT_MS", _milliseconds),
    "response_buffer_mb": ("RESPONSE_BUFFER_MB", _whole(1, 65_536, "megabytes a worker")),
    "max_connections": ("MAX_CONNECTIONS", _whole(1, 1_000_000, "connections a worker")),
    "otlp_endpoint": ("OTEL_EXPORTER_OTLP_ENDPOINT", _collector),
    "otlp_traces_endpoint": ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", _collector),
    "otlp_protocol": ("OTEL_EXPORTER_OTLP_PROTOCOL", _choice("http/protobuf")),
    "rating_good_ms": ("RATING_GOOD_MS", _milliseconds),
    "rating_poor_ms": ("RATING_POOR_MS", _milliseconds),
    "health_timeout_ms": ("HEALTH_TIMEOUT_MS", _whole(1, 1000, "milliseconds")),
    "shutdown_seconds": ("SHUTDOWN_SECONDS", _whole(1, 10, "seconds")),
}


def variables() -> Iterator[tuple[str, str, Any, bool]]:
    """Every variable: its name, its field, what holds where it is not set, and whether its value is a secret."""
    defaults = {field.name: None if field.default is MISSING else field.default for field in fields(Settings)}
    for name, (variable, _) in _VARIABLES.items():
        yield variable, name, defaults[name], variable in _SECRET
