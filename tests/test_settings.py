"""The environment, read as a whole: what is accepted, what is refused, and what must not be shown."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from server.net import TrustedProxies
from server.settings import ROOT, Settings, SettingsError, ignored_options, variables

GOOD = {
    "DATABASE_URL": "postgresql://mastery:hunter2@db.example.com/mastery",
    "REDIS_URL": "rediss://:hunter2@cache.example.com:6380/0",
    "SECRET_KEY": "hunter2 hunter2 hunter2 hunter2 x",
}
AUTH = {
    "AUTH_JWKS_URL": "https://issuer.example.com/jwks.json", "AUTH_ISSUER": "https://issuer.example.com",
    "AUTH_AUDIENCE": "mastery",
}  # fmt: skip

# By variable: the texts that are accepted with what they become, and those that are not.
Accepted = list[tuple[str, Any]]
NO_NUMBERS = ["x", "-1", "1.0", "1e3", "0x10", "1_000", "٣", "+5", "9" * 30, "5 5"]
VARIABLES: dict[str, tuple[str, Accepted, list[str]]] = {
    "DATABASE_URL": (
        "database_url",
        [
            *((url, url) for url in ("postgres://u:p@h:5432/d", "postgresql://h/d?sslmode=require", "postgresql:///d?host=/run")),
            ("postgresql://h/d?schema=public&sslmode=require&pgbouncer=true", "postgresql://h/d?sslmode=require"),
            ("postgresql://h/d?connection_limit=5", "postgresql://h/d"),
        ],
        ["postgresql://h/d?schema=other", "postgresql://h/d?no_such=1", "postgresql://h/d?sslmode=x",
         "postgresql://h/d?connect_timeout=x",
         "mysql://h/d", "h/d", "postgres://", "postgresql://h:port/d", "postgresql://[::1/d", "postgresql://h:99999/d"],
    ),
    "MIGRATION_DATABASE_URL": (
        "migration_database_url",
        [("postgres://u:p@h:5432/d", "postgres://u:p@h:5432/d")],
        ["mysql://h/d", "postgres://", "postgresql://h:port/d"],
    ),
    "DATABASE_REPLICA_URL": (
        "database_replica_url",
        [("postgres://u:p@replica:5432/d", "postgres://u:p@replica:5432/d")],
        ["mysql://h/d", "postgres://", "postgresql://h/d?no_such=1", GOOD["DATABASE_URL"]],
    ),
    "DATABASE_REPLICA_MAX_LAG_SECONDS": (
        "database_replica_max_lag_seconds",
        [("1", 1), ("3600", 3600)],
        ["0", "3601", *NO_NUMBERS],
    ),
    "REDIS_URL": (
        "redis_url",
        [(url, url) for url in (
            "redis://h", "rediss://:p@h:6379/0", "unix:///run/redis.sock", "redis+cluster://a:1,b:2",
            "redis+sentinel://a:1,b:2/master", "rediss+sentinel://a/m", "rediss+cluster://a", "valkey://h/0", "valkeys://h",
            "valkey+cluster://a:1", "valkeys+sentinel://a/m", "redis://h?family=0", "rediss://h?ssl_cert_reqs=none",
        )],
        ["http://h", "h:6379", "redis://", "redis://h:x", "redis://h/abc", "redis://h?db=x", "redis://h?no_such=1",
         "redis://h?ssl_cert_reqs=none", "rediss://h?ssl_cert_reqs=x", "redis+cluster://h/1", "redis+sentinel://h",
         "redis+sentinel://h/m/x", "valkey+x://h"],
    ),
    "RATE_LIMIT_REDIS_URL": (
        "rate_limit_redis_url",
        [("valkeys://:p@h:6379/1", "valkeys://:p@h:6379/1")],
        ["http://h", "redis://h?no_such=1"],
    ),
    "SECRET_KEY": ("secret_key", [("k" * 32, "k" * 32), ("é" * 16, "é" * 16)], ["k" * 31, "x", "\udcff" * 40]),
    "HOST": ("host", [("0.0.0.0", "0.0.0.0"), ("::", "::")], []),
    "PORT": ("port", [("1", 1), ("65535", 65535), (" 8080 ", 8080)], ["0", "65536", *NO_NUMBERS]),
    "WEB_CONCURRENCY": ("web_concurrency", [("1", 1), ("256", 256)], ["0", "257", *NO_NUMBERS]),
    "LOG_LEVEL": ("log_level", [("DEBUG", "debug"), ("warning", "warning")], ["verbose", "10"]),
    "LOG_FORMAT": ("log_format", [("json", "json"), ("Console", "console"), ("ecs", "ecs"), ("gcp", "gcp")], ["xml"]),
    "LOG_CLIENT_IP": (
        "log_client_ip",
        [("full", "full"), ("Short", "short"), ("hashed", "hashed")],
        ["none", "hash", "full,short"],
    ),
    "MASTERY_ENV": ("environment", [("staging", "staging")], []),
    "TRUSTED_PROXIES": (
        "trusted_proxies",
        [(text, TrustedProxies.parse(text)) for text in (
            "0", "1", "32", "10.0.0.0/8", "10.0.0.0/8, fd00::/8", "192.0.2.1", "10.0.0.0/8, x-forwarded-for",
            "1,forwarded",
        )],
        ["33", "-1", "10.0.0.1/8", "10.0.0.0/33", "x", "1,2", "\u0661", "0.0.0.0/0", "::/0",
         "forwarded,x-forwarded-for"],
    ),
    "RATE_LIMITS_FILE": (
        "rate_limits_file",
        [(str(ROOT / "bench" / "ratelimits.toml"), ROOT / "bench" / "ratelimits.toml")],
        ["/nowhere/at/all.toml", str(ROOT), "~nobody-of-this-name/x", "a\0b"],
    ),
    "METRICS_TOKEN": ("metrics_token", [("scrape", "scrape")], []),
    "CORS_ORIGINS": (
        "cors_origins",
        [
            ("https://app.example.com", frozenset({"https://app.example.com"})),
            ("https://a.com, http://localhost:3000,", frozenset({"https://a.com", "http://localhost:3000"})),
            ("https://A.com:443,http://[::1]:80", frozenset({"https://a.com", "http://[::1]"})),
        ],
        ["*", "https://*.a.com", "a.com", "https://a.com/", "https://a.com/x", "https://a.com?x", "https://a.com#",
         "ftp://a.com", "https://", "https://u@a.com", "https://a.com:x", "null", "https://a.com https://b.com"],
    ),
    "AUTH_AUTHORIZED_PARTIES": (
        "auth_authorized_parties",
        [
            ("https://app.example.com", frozenset({"https://app.example.com"})),
            ("web, mobile-client", frozenset({"web", "mobile-client"})),
        ],
        [",", "web,", "web,,mobile"],
    ),
    "HSTS": ("hsts", [("on", True), ("TRUE", True), ("1", True), ("off", False), ("no", False)], ["maybe", "2"]),
    "DEMO_ACCOUNTS": ("demo_accounts", [("on", True), ("off", False)], ["yes please"]),
    "REDIS_VERIFY_TLS": ("redis_verify_tls", [("off", False), ("yes", True)], ["none"]),
    **{
        variable: (variable.lower(), [("1", 1), ("1000", 1000)], ["0", *NO_NUMBERS])
        for variable in (
            "ACCESS_TOKEN_SECONDS", "REFRESH_TOKEN_SECONDS", "DATABASE_ACQUIRE_TIMEOUT_MS",
            "DATABASE_QUERY_TIMEOUT_MS", "DATABASE_IDLE_SECONDS", "IMPORT_TIMEOUT_MS", "SLOW_QUERY_MS",
            "REDIS_CONNECT_TIMEOUT_MS", "CACHE_DEADLINE_MS", "CACHE_TTL_SECONDS", "RATE_LIMIT_DEADLINE_MS",
            "HEALTH_TIMEOUT_MS", "REQUEST_HEAD_TIMEOUT_MS", "REQUEST_BODY_TIMEOUT_MS",
            "RESPONSE_TIMEOUT_MS",
        )
    },
    "DATABASE_POOL_SIZE": ("database_pool_size", [("1", 1), ("500", 500)], ["0", "501", *NO_NUMBERS]),
    "RESPONSE_BUFFER_MB": ("response_buffer_mb", [("1", 1), ("65536", 65536)], ["0", "65537", *NO_NUMBERS]),
    "MAX_CONNECTIONS": ("max_connections", [("1", 1), ("7", 7)], ["0", "1000001", *NO_NUMBERS]),
    "SHUTDOWN_SECONDS": ("shutdown_seconds", [("1", 1), ("10", 10)], ["0", "61", *NO_NUMBERS]),
    "CACHE_STALE_SECONDS": ("cache_stale_seconds", [("0", 0), ("3600", 3600)], ["-1", "604801", "x"]),
    **{
        variable: (name, [("http://collector:4318", "http://collector:4318")], ["collector:4318", "grpc://h", "http://"])
        for variable, name in (
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "otlp_endpoint"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "otlp_traces_endpoint"),
            ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "otlp_metrics_endpoint"),
        )
    },
    "OTEL_METRICS_EXPORTER": ("metrics_exporter", [("none", "none")], ["prometheus", "console"]),
    "OTEL_METRIC_EXPORT_INTERVAL": ("metric_export_interval_ms", [("5000", 5000)], ["0", *NO_NUMBERS]),
    "OTEL_EXPORTER_OTLP_PROTOCOL": ("otlp_protocol", [("http/protobuf", "http/protobuf")], ["grpc", "http/json"]),
    "RATING_GOOD_MS": ("rating_good_ms", [("1", 1), ("499", 499)], ["0", *NO_NUMBERS]),
    "RATING_POOR_MS": ("rating_poor_ms", [("201", 201), ("600000", 600_000)], ["0", "600001", *NO_NUMBERS]),
}  # fmt: skip


def problems_of(environment: dict[str, str]) -> list[str]:
    """What is wrong with an environment."""
    with pytest.raises(SettingsError) as caught:
        Settings.from_env(environment)
    assert "\n".join(caught.value.problems) == str(caught.value)
    return caught.value.problems


def test_every_setting_is_in_the_table() -> None:
    """A new setting needs a line here, which says what it takes."""
    assert {field.name for field in fields(Settings)} == {name for name, _, _ in VARIABLES.values()} | {
        variable.lower() for variable in AUTH
    }


@pytest.mark.parametrize("variable", VARIABLES)
def test_each_variable_is_accepted_or_refused(variable: str) -> None:
    """What is accepted becomes its value; what is not is refused with the variable's name and what it takes."""
    name, accepted, refused = VARIABLES[variable]
    for text, expected in accepted:
        assert expected == getattr(Settings.from_env({**GOOD, variable: text}), name)
    for text in refused:
        (problem,) = problems_of({**GOOD, variable: text})
        assert problem.startswith(f"{variable}: "), text
        assert "it takes " in problem


def test_an_empty_variable_is_not_set() -> None:
    """Platforms set variables to nothing; that means the default, or missing."""
    settings = Settings.from_env(GOOD)
    assert settings == Settings.from_env({**GOOD, "PORT": "", "METRICS_TOKEN": "  ", "CORS_ORIGINS": ""})
    assert (8000, None, frozenset()) == (settings.port, settings.metrics_token, settings.cors_origins)
    (problem,) = problems_of({**GOOD, "DATABASE_URL": " "})
    assert problem.startswith("DATABASE_URL is not set: it takes ")


def test_the_production_command_refuses_to_guess() -> None:
    """Without its servers and its key the service does not start, and says so for all three."""
    assert ["DATABASE_URL", "REDIS_URL", "SECRET_KEY"] == [problem.split()[0] for problem in problems_of({})]


def test_all_problems_are_told_at_once() -> None:
    """However many variables are wrong, one look at the message tells them all, thresholds that contradict too."""
    wrong = {variable: refused[0] for variable, (_, _, refused) in VARIABLES.items() if refused}
    del wrong["RATING_POOR_MS"]
    wrong |= {"RATING_GOOD_MS": "500", "AUTH_ISSUER": "https://issuer.example.com"}
    named = {re.split(r"[: ,]", problem)[0] for problem in problems_of(wrong)}
    assert {*wrong.keys() - {"AUTH_ISSUER"}, "AUTH_JWKS_URL"} == named


@pytest.mark.parametrize("missing", ["AUTH_JWKS_URL", "AUTH_ISSUER"])
def test_an_external_issuer_is_described_as_a_whole(missing: str) -> None:
    """Keys and issuer belong together: one alone would verify less than it seems to. Not all issuers name audiences."""
    settings = Settings.from_env({**GOOD, **AUTH})
    assert tuple(AUTH.values()) == (settings.auth_jwks_url, settings.auth_issuer, settings.auth_audience)
    (problem,) = problems_of({**GOOD, **{name: text for name, text in AUTH.items() if name != missing}})
    assert "set together" in problem
    without = {name: text for name, text in AUTH.items() if name != "AUTH_AUDIENCE"}
    assert Settings.from_env({**GOOD, **without}).auth_audience is None


def test_secrets_are_never_shown() -> None:
    """Neither the settings' own text nor a problem with a secret holds it."""
    settings = Settings.from_env({**GOOD, "METRICS_TOKEN": "hunter2"})
    assert "hunter2" not in f"{settings!r} {settings!s} {settings}"
    for variable, text in {
        "DATABASE_URL": "mysql://u:hunter2@h/d", "REDIS_URL": "http://:hunter2@h", "SECRET_KEY": "hunter2",
    }.items():  # fmt: skip
        assert "hunter2" not in "\n".join(problems_of({**GOOD, variable: text}))


def test_settings_do_not_change() -> None:
    """What the service was started with stays as it was."""
    settings = Settings.from_env(GOOD)
    with pytest.raises(AttributeError):
        settings.port = 1  # type: ignore[misc]
    assert Path(settings.rate_limits_file).is_file()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, "http://c:4318/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "https://c/otlp/"}, "https://c/otlp/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/x"}, "http://c:4318/x"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t/x"},
            "http://t/x",
        ),
    ],
)
def test_traces_go_where_opentelemetry_says(variables: dict[str, str], expected: str | None) -> None:
    """The general endpoint gets the signal's path; the one for traces is taken as it is."""
    assert expected == Settings.from_env({**GOOD, **variables}).traces_url


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, None),
        (
            {"OTEL_METRICS_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c/"},
            "http://c/v1/metrics",
        ),
        (
            {"OTEL_METRICS_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://m/x"},
            "http://m/x",
        ),
    ],
)
def test_metrics_go_where_opentelemetry_says_if_they_are_asked_for(
    variables: dict[str, str], expected: str | None
) -> None:
    """A collector of traces is not sent metrics unasked; one of both gets each signal at its path."""
    assert expected == Settings.from_env({**GOOD, **variables}).metrics_url


def test_metrics_need_a_collector() -> None:
    """Metrics that are to be exported to nowhere are a mistake, found at start."""
    for more in ({}, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t/x"}):
        (problem,) = problems_of({**GOOD, "OTEL_METRICS_EXPORTER": "otlp", **more})
        assert problem.startswith("OTEL_METRICS_EXPORTER=otlp needs OTEL_EXPORTER_OTLP_ENDPOINT")


def test_deploy_04_options_of_urls_are_judged_by_name() -> None:
    """An option that nobody knows is named, without the password beside it; what other tools write is ignored."""
    bad = {
        "DATABASE_URL": "postgresql://u:hunter2@h/d?no_such=1",
        "REDIS_URL": "redis://:hunter2@h/abc",
        "RATE_LIMIT_REDIS_URL": "redis://:hunter2@h?another=1",
        "TRUSTED_PROXIES": "0.0.0.0/0",
    }
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({**GOOD, **bad})
    problems = dict(problem.split(": ", 1) for problem in caught.value.problems)
    assert bad.keys() == problems.keys()
    assert "no_such" in problems["DATABASE_URL"]
    assert "the number of a database" in problems["REDIS_URL"]
    assert "another" in problems["RATE_LIMIT_REDIS_URL"]
    assert "choose its own address" in problems["TRUSTED_PROXIES"]
    assert "hunter2" not in str(caught.value)
    environment = {"DATABASE_URL": "postgresql://h/d?schema=public", "REDIS_URL": "redis://h?family=0"}
    assert [("DATABASE_URL", "schema"), ("REDIS_URL", "family")] == ignored_options(environment)


def test_deploy_04_the_readme_lists_every_variable() -> None:
    """A setting that is not in the README's table is not there for anybody, and the other way round."""
    readme = (ROOT / "README.md").read_text()
    section = readme[readme.index("## Settings") : readme.index("## Commands")]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([A-Z_]+)`", row)}
    # OpenTelemetry's own variables stand in docs/tracing.md.
    assert {name for name, *_ in variables() if not name.startswith("OTEL_")} == {
        name for name in named if not name.startswith("OTEL_")
    }
