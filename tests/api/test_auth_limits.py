"""Logins, registrations and refreshes under the limits that the service ships with: guessing ends, classrooms go on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse

from server.api.services import SERVICES
from server.development import EmbeddedServer
from server.net import TrustedProxies
from server.settings import Settings
from tests.api.conftest import Api, StartApi
from tests.support.passwords import QuickPasswords
from tests.support.waiting import wait_until

PASSWORD = "correct horse battery"
ADA = "ada@example.com"


StartStrict = Callable[..., Awaitable[Api]]


@pytest.fixture
def start_strict(settings: Settings, start_api: StartApi, strict_limits: Path) -> StartStrict:
    """Start a service with its own limits, and time for new connections on a busy machine."""

    async def start(**different: Any) -> Api:
        changes: dict[str, Any] = {
            "rate_limits_file": strict_limits,
            "database_acquire_timeout_ms": 30_000,
        }
        return await start_api(replace(settings, **changes | different))

    return start


@pytest.fixture
async def strict(start_strict: StartStrict) -> Api:
    """The service with the limits that it ships with."""
    return await start_strict()


def passwords_of(api: Api) -> QuickPasswords:
    """The queue of a service under test."""
    passwords = api.services.accounts._passwords
    assert isinstance(passwords, QuickPasswords)
    return passwords


async def register(api: Api, email: str, **options: Any) -> ClientResponse:
    """Make an account."""
    return await api.post(
        "/api/auth/register", by=None, json={"email": email, "password": PASSWORD}, **options
    )


async def log_in(api: Api, email: str, password: str = PASSWORD, **options: Any) -> ClientResponse:
    """Try a password."""
    return await api.post("/api/auth/login", by=None, json={"email": email, "password": password}, **options)


async def refresh(api: Api, token: str) -> ClientResponse:
    """Exchange a refresh token."""
    return await api.post("/api/auth/refresh", by=None, json={"refreshToken": token})


async def remaining(api: Api, subject: str, group: str = "login") -> dict[str, int]:
    """What a subject has left in a group, by policy, as the admin's peek says."""
    response = await api.get(f"/api/admin/rate-limits/{subject}", by="admin")
    assert 200 == response.status
    policies = (await response.json())["policies"]
    return {policy["policy"]: policy["remaining"] for policy in policies if policy["group"] == group}


async def test_share_04_a_classroom_behind_one_address_works(strict: Api) -> None:
    """Twelve students register, sign in twice and refresh three times, all from one address."""
    students = [f"student{number}@example.com" for number in range(12)]
    assert [201] * 12 == [(await register(strict, student)).status for student in students]
    tokens = []
    for student in [*students, *students]:
        answer = await log_in(strict, student)
        assert 200 == answer.status
        tokens.append((await answer.json())["refreshToken"])
    for _ in range(3):
        answers = [await refresh(strict, token) for token in tokens]
        assert {200} == {answer.status for answer in answers}
        tokens = [(await answer.json())["refreshToken"] for answer in answers]


async def test_share_04_a_success_is_given_back(strict: Api) -> None:
    """However often somebody signs in, nothing is used up; what failed stays."""
    await register(strict, ADA)
    for _ in range(2):
        assert 401 == (await log_in(strict, ADA, "not the password")).status
    for _ in range(12):
        answer = await log_in(strict, ADA)
        assert 200 == answer.status
        assert "2" == answer.headers["X-RateLimit-Remaining"], "of the decision: three are charged by then"
    assert {"auth": 3} == await remaining(strict, f"email:{ADA}")
    assert {"auth-address": 18} == await remaining(strict, "ip:127.0.0.1")


async def test_share_04_the_sixth_guess_is_refused_in_whatever_spelling(strict: Api) -> None:
    """Blanks, capitals and full-width letters around an address are one budget, and so is the right password then."""
    await register(strict, ADA)
    spellings = [
        ADA,
        " ada@example.com",
        "ADA@Example.com\t",
        "\uff41da@example.com",
        "\u3000Ada@EXAMPLE.com ",
    ]
    assert [401] * 5 == [(await log_in(strict, spelling, "a guess")).status for spelling in spellings]
    for spelling in spellings:
        refused = await log_in(strict, spelling)
        assert (429, ["auth"]) == (refused.status, (await refused.json())["violated-policies"])
    assert 5 == len(passwords_of(strict).checked)


async def test_share_04_guesses_at_once_never_exceed_the_limit(strict: Api) -> None:
    """Twenty at the same time, also the right one among them: five are judged."""
    await register(strict, ADA)
    guesses = [f"guess {number}" for number in range(19)] + [PASSWORD]
    answers = await asyncio.gather(*(log_in(strict, ADA, guess) for guess in guesses))
    statuses = [answer.status for answer in answers]
    assert 15 == statuses.count(429), [await answer.text() for answer in answers]
    assert 5 == len(passwords_of(strict).checked)


async def test_share_04_an_address_that_guesses_at_many_is_stopped(start_strict: StartStrict) -> None:
    """The twenty-first failure of an address is refused for every account; another address goes on."""
    strict = await start_strict(trusted_proxies=TrustedProxies.parse("1"))
    await register(strict, ADA)
    first, second = ({"X-Forwarded-For": f"192.0.2.{number}"} for number in (1, 2))
    for number in range(20):
        assert 401 == (await log_in(strict, f"nobody{number}@example.com", headers=first)).status
    refused = await log_in(strict, ADA, headers=first)
    assert (429, ["auth-address"]) == (refused.status, (await refused.json())["violated-policies"])
    assert 200 == (await log_in(strict, ADA, headers=second)).status


async def test_share_04_registrations_are_counted_by_address(strict: Api) -> None:
    """All of them, as each may make an account: the twenty-first is refused, and logins have a budget of their own."""
    statuses = [(await register(strict, f"new{number % 15}@example.com")).status for number in range(21)]
    assert [201] * 15 + [409] * 5 + [429] == statuses
    assert 200 == (await log_in(strict, "new0@example.com")).status


async def test_share_04_a_refresh_is_counted_by_its_family(strict: Api) -> None:
    """The eleventh of one login is refused; another login of the same user, from the same address, goes on."""
    one = await (await register(strict, ADA)).json()
    other = await (await log_in(strict, ADA)).json()
    token = one["refreshToken"]
    for _ in range(10):
        answer = await refresh(strict, token)
        assert 200 == answer.status
        token = (await answer.json())["refreshToken"]
    refused = await refresh(strict, token)
    assert (429, ["refresh"]) == (refused.status, (await refused.json())["violated-policies"])
    assert 200 == (await refresh(strict, other["refreshToken"])).status
    assert 289 == (await remaining(strict, "ip:127.0.0.1", "refresh"))["refresh-address"], (
        "12 reached the address"
    )


async def test_share_04_the_address_bounds_invented_tokens(strict: Api) -> None:
    """Each invented token is a family of its own; all of them are charged to the address."""
    for number in range(12):
        assert 401 == (await refresh(strict, f"invented {number}")).status
    assert {"refresh-address": 288} == await remaining(strict, "ip:127.0.0.1", "refresh")


async def test_share_04_a_body_that_is_no_login_locks_nobody_out(strict: Api) -> None:
    """It is a failure of its address: not free, and not one of the five of the account that it names."""
    bodies: list[Any] = [
        {"email": ADA},
        {"email": ADA, "password": ""},
        {"email": ADA, "password": "x", "y": 1},
        [],
    ]
    for body in bodies:
        assert 400 == (await strict.post("/api/auth/login", by=None, json=body)).status
    assert {"auth": 5} == await remaining(strict, f"email:{ADA}")
    assert {"auth-address": 16} == await remaining(strict, "ip:127.0.0.1")


async def test_share_04_what_was_not_judged_is_given_back(strict: Api) -> None:
    """A full queue is a 503, and no failed login: neither of the account nor of the address."""
    await register(strict, ADA)
    passwords = passwords_of(strict)
    passwords._most_waiting = 0
    passwords.go.clear()
    running = [asyncio.create_task(log_in(strict, f"other{number}@example.com")) for number in range(2)]
    await wait_until(lambda: len(passwords.checked) == 2, "two passwords are being checked")
    for _ in range(7):
        busy = await log_in(strict, ADA)
        assert (503, "5") == (busy.status, busy.headers["Retry-After"])
        assert "too_many_passwords" == (await busy.json())["code"]
    assert 200 == (await strict.get("/livez", by=None)).status
    passwords.go.set()
    assert [401, 401] == [answer.status for answer in await asyncio.gather(*running)]
    assert {"auth": 5} == await remaining(strict, f"email:{ADA}")
    assert {"auth-address": 18} == await remaining(strict, "ip:127.0.0.1")


async def test_share_04_an_error_of_ours_is_given_back(strict: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A login that ends as a 500 has judged nothing."""

    async def fail(**_: object) -> dict[str, Any]:
        raise RuntimeError

    monkeypatch.setattr(strict.client.app[SERVICES].accounts, "log_in", fail)
    assert [500] * 7 == [(await log_in(strict, ADA, documented=False)).status for _ in range(7)]
    assert {"auth": 5} == await remaining(strict, f"email:{ADA}")


HEAD = b"POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


async def test_share_09_a_client_that_hangs_up_is_not_computed_and_not_charged(strict: Api) -> None:
    """Its place is given up, its hash is not computed, and it has made no guess."""
    passwords, server = passwords_of(strict), strict.client.server
    # As in production: a client that hangs up does not cancel what is done for it.
    assert server.runner is not None
    assert server.runner.server is not None
    server.runner.server.handler_cancellation = False
    passwords.go.clear()
    running = [asyncio.create_task(log_in(strict, f"other{number}@example.com")) for number in range(2)]
    await wait_until(lambda: len(passwords.checked) == 2, "two passwords are being checked")
    body = f'{{"email": "{ADA}", "password": "not the password"}}'.encode()
    writers = []
    for _ in range(5):
        _, writer = await asyncio.open_connection(server.host, server.port)
        writer.write(HEAD % len(body) + body)
        writers.append(writer)
    await wait_until(lambda: len(passwords._queue) == 5, "all of them wait")
    for writer in writers:
        writer.transport.abort()
    await wait_until(lambda: not any(place.wanted() for place in passwords._queue), "all of them have gone")
    passwords.go.set()
    assert [401, 401] == [answer.status for answer in await asyncio.gather(*running)]
    for _ in range(5):
        assert 401 == (await log_in(strict, ADA, "not the password")).status
    assert 429 == (await log_in(strict, ADA)).status
    assert 2 + 5 == len(passwords.checked)


async def test_share_04_redis_may_fail_before_the_giving_back(
    own_redis: EmbeddedServer, start_strict: StartStrict
) -> None:
    """The login succeeds all the same."""
    strict = await start_strict(redis_url=own_redis.url)
    await register(strict, ADA)
    passwords = passwords_of(strict)
    passwords.go.clear()
    login = asyncio.create_task(log_in(strict, ADA))
    await wait_until(lambda: bool(passwords.checked), "the login is charged")
    own_redis.process.kill()
    own_redis.process.wait()
    passwords.go.set()
    assert 200 == (await login).status


async def test_share_04_charging_is_part_of_the_configuration(
    start_strict: StartStrict, tmp_path: Path, strict_limits: Path
) -> None:
    """A reload changes which requests stay charged, and peek shows it."""
    path = tmp_path / "limits.toml"
    path.write_text(strict_limits.read_text())  # noqa: ASYNC240 - a small file
    strict = await start_strict(rate_limits_file=path)
    await register(strict, ADA)

    async def shown() -> set[str]:
        answer = await strict.get(f"/api/admin/rate-limits/email:{ADA}", by="admin")
        return {policy["charge"] for policy in (await answer.json())["policies"]}

    assert {"failures"} == await shown()
    path.write_text(path.read_text().replace('charge = "failures"', 'charge = "successes"'))
    assert strict.services.rate_limits.reload()
    assert {"successes"} == await shown()
    assert [401] * 6 == [(await log_in(strict, ADA, "not the password")).status for _ in range(6)]
    assert [200] * 5 + [429] == [(await log_in(strict, ADA)).status for _ in range(6)]


async def test_a_limit_that_names_nobody_waits_for_no_body(
    start_strict: StartStrict, strict_limits: Path, tmp_path: Path
) -> None:
    """Logins that are counted by their address alone are refused before the body with the e-mail has come."""
    path = tmp_path / "ratelimits.toml"
    limits = strict_limits.read_text()  # noqa: ASYNC240 - a small file
    by_address = limits.replace('policies = ["auth", ', "policies = [")
    path.write_text(by_address.replace("limit = 20\n", "limit = 1\n"))
    strict = await start_strict(rate_limits_file=path)
    assert 401 == (await log_in(strict, ADA)).status
    reader, writer = await asyncio.open_connection("127.0.0.1", strict.client.port)
    writer.write(
        b"POST /api/auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n"
    )
    assert b"HTTP/1.1 429 " == (await asyncio.wait_for(reader.readline(), 60))[:13]
    writer.close()
