"""No secret is in a log line, by the name of its field or by its looks; and no more than that is hidden."""

from __future__ import annotations

from time import perf_counter

import pytest

from server.telemetry.logs.safety import is_secret_key, redact

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjMifQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"


@pytest.mark.parametrize(
    "key",
    [
        "password", "PASSWORD", "new_password", "passwordHash", "password_hash", "db-pass", "secret",
        "SECRET_KEY", "clientSecret", "token", "refreshToken", "access_token", "X-CSRF-Token", "METRICS_TOKEN",
        "authorization", "Authorization", "Proxy-Authorization", "cookie", "set-cookie", "Set-Cookie", "cookies",
        "api_key", "apiKey", "X-API-Key", "APIKey", "apikey", "private_key", "signingKey", "jwt", "credentials",
        "token_value", "authHeader", "basic_auth",
    ],
)  # fmt: skip
def test_secret_keys(key: str) -> None:
    """Names of secrets are recognised in every way of writing them."""
    assert is_secret_key(key)


@pytest.mark.parametrize(
    "key",
    [
        "token_count", "tokenType", "tokens_left", "expiresIn", "cache_key", "cacheKey", "key",
        "idempotency_key", "secretary", "author", "authenticated", "passed", "bypass", "compass", "cookie_count",
        "session_id", "user_id", "http.route", "request_id", "keyspace", "monkey", "text", "", "🔑",
    ],
)  # fmt: skip
def test_other_keys(key: str) -> None:
    """A name that merely contains the word, or counts or describes the thing, is no secret."""
    assert not is_secret_key(key)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"refused {JWT} as expired", "refused [redacted] as expired"),
        (JWT[:60], "[redacted]"),
        ("Bearer abc123", "Bearer [redacted]"),
        ("bearer  s3cret/+=._-~x, then", "bearer  [redacted], then"),
        ("Authorization: Basic dXNlcjpwYXNz\r\nHost: x", "Authorization: [redacted]\r\nHost: x"),
        ("got Basic dXNlcjpwYXNzMQ==", "got Basic [redacted]"),
        ("{'Authorization': 'Bearer abc', 'Host': 'x'}", "{'Authorization': '[redacted]', 'Host': 'x'}"),
        ("[(b'cookie', b'sid=1; b=2')]", "[(b'cookie', b'[redacted]')]"),
        ("Set-Cookie: sid=1; HttpOnly", "Set-Cookie: [redacted]"),
        ("connect postgres://bob:pa:ss@w0rd@db.example/x", "connect postgres://bob:[redacted]@db.example/x"),
        ("rediss://:p/ss@h:6379/0 refused", "rediss://:[redacted]@h:6379/0 refused"),
        ("two redis://a:b@c postgres://d:e@f", "two redis://a:[redacted]@c postgres://d:[redacted]@f"),
        ("host=db password=hunter2 port=1", "host=db password=[redacted] port=1"),
        ("GET /x?access_token=abc&a=1", "GET /x?access_token=[redacted]&a=1"),
        ('{"password": "hunter2", "a": 1}', '{"password": "[redacted]", "a": 1}'),
        ("User(name='bob', secret='x y')", "User(name='bob', secret='[redacted]')"),
    ],
)
def test_secrets_in_texts(text: str, expected: str) -> None:
    """What looks like a credential is replaced, and what is around it stays."""
    assert expected == redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "A Bearer token is required.", "basic understanding", "http://host:8080/path?mail=a@b.example",
        "token_count=5", "https://example.com/a:b@c", "the password is wrong", "12:30:45",
        "postgres://db.example/x", "eyJ", "", "a" * 50,
    ],
)  # fmt: skip
def test_harmless_texts(text: str) -> None:
    """Prose about credentials and URLs without any are left alone."""
    assert text == redact(text)


@pytest.mark.parametrize(
    "piece",
    [
        "a",
        "://",
        "a://b:",
        "eyJ",
        "bearer ",
        "Authorization:",
        "password=",
        "'cookie',",
        "basic aaaaaa",
        "\\",
    ],
)
def test_time_grows_with_the_length_only(piece: str) -> None:
    """No text makes a pattern backtrack: ten thousand characters take well below a second."""
    text = f" {piece * (10_000 // len(piece))}"
    began = perf_counter()
    redact(text)
    assert perf_counter() - began < 1.0
