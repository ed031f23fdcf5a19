"""Redis URLs: every kind is understood, every nonsense refused without repeating a password."""

from __future__ import annotations

import pytest

from server.stores.redis.address import RedisAddress, parse_redis_url


def test_single_server() -> None:
    """Host, port, database and credentials, percent-encoded or not, come from the URL."""
    address = parse_redis_url("redis://us%40er:p%2Fss@cache.example:6380/3")
    assert address.kind == "single"
    assert address.nodes == (("cache.example", 6380),)
    assert address.options == {"username": "us@er", "password": "p/ss", "db": 3}
    assert not address.tls


def test_defaults() -> None:
    """A bare URL is localhost on the usual port."""
    assert parse_redis_url("redis://") == RedisAddress("single", (("localhost", 6379),))


def test_tls_is_verified_unless_told_otherwise() -> None:
    """Only the explicit setting switches verification off."""
    assert "ssl_cert_reqs" not in parse_redis_url("rediss://host").options
    options = parse_redis_url("rediss://host", verify_tls=False).options
    assert options == {"ssl_cert_reqs": "none", "ssl_check_hostname": False}


def test_unix_socket() -> None:
    """A socket's path and its database are options, not a host."""
    address = parse_redis_url("unix://:secret@/run/redis.sock?db=2")
    assert address.nodes == ()
    assert address.options == {"password": "secret", "path": "/run/redis.sock", "db": 2}
    assert str(address) == "/run/redis.sock"


def test_sentinel() -> None:
    """Sentinels, the service, the database, and two pairs of credentials."""
    address = parse_redis_url(
        "rediss+sentinel://user:secret@one:26380,two,[::1]:5/my%20master/4?sentinel_password=other"
    )
    assert address.kind == "sentinel"
    assert address.nodes == (("one", 26380), ("two", 26379), ("::1", 5))
    assert address.service == "my master"
    assert address.tls
    assert address.options == {"username": "user", "password": "secret", "db": 4}
    assert address.sentinel_options == {"password": "other"}


def test_cluster() -> None:
    """The first nodes of a Cluster, with or without a port."""
    address = parse_redis_url("redis+cluster://:secret@one:7000,two/0")
    assert address.kind == "cluster"
    assert address.nodes == (("one", 7000), ("two", 6379))
    assert address.options == {"password": "secret"}


def test_options_that_are_ours_are_ignored() -> None:
    """What a pool or a retrying client would take changes nothing here."""
    url = "redis://host?max_connections=20&socket_timeout=30&retry_on_timeout=1&protocol=3&client_name=study"
    assert parse_redis_url(url).options == {"client_name": "study"}


@pytest.mark.parametrize(
    "url",
    [
        "",
        "secret",
        "http://:secret@host",
        "redis+other://:secret@host",
        "unix+sentinel://:secret@host/service",
        "unix://",
        "redis+sentinel://:secret@host:26379",
        "redis+sentinel://:secret@/service",
        "redis+cluster://:secret@host/1",
        "redis+cluster://:secret@host:port",
        "redis://:secret@host:port",
        "redis://:secret@host:99999",
    ],
)
def test_nonsense(url: str) -> None:
    """What is not a Redis URL is a ValueError that keeps the secret."""
    with pytest.raises(ValueError, match=r".") as caught:
        parse_redis_url(url)
    assert "secret" not in str(caught.value)


def test_secrets_are_not_shown() -> None:
    """An address can be logged."""
    address = parse_redis_url("redis+sentinel://user:hush@one:1/service?sentinel_password=hush")
    assert "hush" not in repr(address) + str(address)
    assert str(address) == "one:1/service"
