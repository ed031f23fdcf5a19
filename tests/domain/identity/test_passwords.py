"""Passwords: two at a time, behind a queue with an end, and hashes of every release."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from functools import partial

import pytest
from argon2 import PasswordHasher, extract_parameters

from server.domain.identity.accounts import Accounts, WrongCredentials
from server.domain.identity.passwords import AT_ONCE, MOST_WAITING, PasswordQueueFull, Passwords
from server.domain.identity.tokens import AccessTokens
from server.errors import ClientDisconnected
from tests.domain.conftest import Domain
from tests.support.waiting import wait_until

PASSWORD = "correct horse battery"


class HeldPasswords(Passwords):
    """Passwords whose threads wait for a word before each hash that they compute, which is a real one."""

    def __init__(self, *, patience_seconds: float = 60.0) -> None:
        super().__init__(patience_seconds=patience_seconds)
        self.go = threading.Event()
        self.begun: list[str] = []

    def _check(self, password_hash: str | None, password: str) -> bool:
        self.begun.append(password)
        assert self.go.wait(60)
        return super()._check(password_hash, password)


@pytest.fixture
def held() -> Iterator[HeldPasswords]:
    """A queue that stands still until `go` is set."""
    passwords = HeldPasswords()
    yield passwords
    passwords.go.set()


async def start(passwords: Passwords, *names: str, wanted: dict[str, bool]) -> dict[str, asyncio.Task[bool]]:
    """Attempts that have come to the queue, in this order; `wanted` says whose client is still there."""
    attempts = {
        name: asyncio.create_task(passwords.matches(None, name, wanted=lambda name=name: wanted[name]))  # type: ignore[misc]
        for name in names
    }
    await asyncio.sleep(0)  # each has run up to its place
    return attempts


async def test_share_09_no_more_than_sixty_four_wait(held: HeldPasswords) -> None:
    """What comes then is a 503 at once, with the time after which to come back; nothing of it is computed."""
    names = [str(number) for number in range(AT_ONCE + MOST_WAITING)]
    wanted = dict.fromkeys([*names, "one more"], True)
    attempts = await start(held, *names, wanted=wanted)
    with pytest.raises(PasswordQueueFull) as caught:
        await held.matches(None, "one more", wanted=lambda: True)
    assert (503, 5) == (caught.value.status, caught.value.retry_after_seconds)
    wanted.update(dict.fromkeys(names[AT_ONCE:], False))
    held.go.set()
    outcomes = await asyncio.gather(*attempts.values(), return_exceptions=True)
    assert [False] * AT_ONCE == outcomes[:AT_ONCE]
    assert {ClientDisconnected} == {type(outcome) for outcome in outcomes[AT_ONCE:]}
    assert sorted(names[:AT_ONCE]) == sorted(held.begun)


async def test_share_09_those_who_have_gone_hold_no_place(held: HeldPasswords) -> None:
    """A queue full of clients that hung up takes the next one in, and sends them away."""
    names = [str(number) for number in range(AT_ONCE + MOST_WAITING)]
    wanted = dict.fromkeys([*names, "honest"], True)
    attempts = await start(held, *names, wanted=wanted)
    wanted.update(dict.fromkeys(names[AT_ONCE:], False))
    honest = (await start(held, "honest", wanted=wanted))["honest"]
    held.go.set()
    assert await honest is False
    outcomes = await asyncio.gather(*attempts.values(), return_exceptions=True)
    assert MOST_WAITING == sum(isinstance(outcome, ClientDisconnected) for outcome in outcomes)
    assert AT_ONCE + 1 == len(held.begun)


async def test_share_09_nobody_waits_for_ever() -> None:
    """A turn that does not come in time is a 503, and the place is free again."""
    held = HeldPasswords(patience_seconds=0)
    attempts = await start(held, "0", "1", wanted=dict.fromkeys(["0", "1"], True))
    for _ in range(MOST_WAITING + 1):
        with pytest.raises(PasswordQueueFull):
            await held.matches(None, "late")
    held.go.set()
    assert [False, False] == await asyncio.gather(*attempts.values())
    assert await held.matches(None, "later") is False
    assert "late" not in held.begun


async def test_share_09_a_cancelled_attempt_keeps_its_thread_and_frees_its_place(held: HeldPasswords) -> None:
    """Never more than two threads at once, and no turn is lost, wherever an attempt is cancelled."""
    names = ["running 0", "running 1", "waiting", "next"]
    attempts = await start(held, *names, wanted=dict.fromkeys(names, True))
    await wait_until(lambda: len(held.begun) == AT_ONCE, "two hashes have begun")
    attempts["running 0"].cancel()
    attempts["waiting"].cancel()
    await asyncio.wait([attempts["running 0"], attempts["waiting"]])
    assert AT_ONCE == len(held.begun), "a thread goes on without its attempt"
    held.go.set()
    assert await attempts["next"] is False
    assert await attempts["running 1"] is False
    assert [False, False, False] == await asyncio.gather(*(held.matches(None, "later") for _ in range(3)))
    assert "waiting" not in held.begun


async def test_share_09_hashes_come_in_turn(held: HeldPasswords) -> None:
    """First come, first served; a client that has gone is passed over."""
    names = [str(number) for number in range(6)]
    asked: list[str] = []

    def is_there(name: str) -> bool:
        asked.append(name)
        return name != "3"

    attempts = [held.matches(None, name, wanted=partial(is_there, name)) for name in names]
    held.go.set()
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    assert names == list(dict.fromkeys(asked))
    assert ["3"] == [name for name, outcome in zip(names, outcomes, strict=True) if outcome is not False]
    assert "3" not in held.begun


async def test_share_09_a_hash_takes_one_thread() -> None:
    """New hashes have one lane; nobody's hash has the same parameters, so that it takes the same time."""
    passwords = Passwords()
    made = await passwords.hash(PASSWORD)
    parameters = extract_parameters(made)
    assert (1, 65_536, 3) == (parameters.parallelism, parameters.memory_cost, parameters.time_cost)
    assert parameters == extract_parameters(passwords._nobodys_hash)
    assert not passwords.is_outdated(made)
    assert await passwords.matches(made, PASSWORD)
    assert not await passwords.matches(made, "another password")


async def test_share_09_hashes_of_four_lanes_are_checked_in_one_thread() -> None:
    """As earlier releases made them: right and wrong passwords are told apart, and what is no hash is no match."""
    passwords = Passwords()
    for password in (PASSWORD, "pässwörd ß", ""):
        old = PasswordHasher(parallelism=4).hash(password)
        assert passwords.is_outdated(old)
        assert await passwords.matches(old, password)
        assert not await passwords.matches(old, password + "x")
    assert not await passwords.matches("no hash", PASSWORD)


async def test_share_09_a_login_renews_an_old_hash(domain: Domain) -> None:
    """The stored hash gets the parameters of today and the password stays; a wrong password changes nothing."""
    tokens = AccessTokens("a key for tests only, long enough for HS256", lifetime_seconds=3600)
    accounts = Accounts(domain.database, Passwords(), tokens, refresh_token_seconds=60)
    old = PasswordHasher(parallelism=4).hash(PASSWORD)
    domain.sql("INSERT INTO users (email, password_hash) VALUES ('ada@example.com', %s)", old)
    with pytest.raises(WrongCredentials):
        await accounts.log_in(email="ada@example.com", password="another password")
    assert [(old,)] == domain.sql("SELECT password_hash FROM users")
    for _ in range(2):
        await accounts.log_in(email="ada@example.com", password=PASSWORD)
    ((renewed,),) = domain.sql("SELECT password_hash FROM users")
    assert 1 == extract_parameters(renewed).parallelism


async def test_share_09_a_login_succeeds_though_its_hash_can_not_be_renewed(domain: Domain) -> None:
    """What would have been renewed is renewed the next time."""

    class Busy(Passwords):
        async def hash(self, password: str, *, wanted: object = None) -> str:
            del password, wanted
            raise PasswordQueueFull

    tokens = AccessTokens("a key for tests only, long enough for HS256", lifetime_seconds=3600)
    accounts = Accounts(domain.database, Busy(), tokens, refresh_token_seconds=60)
    old = PasswordHasher(parallelism=4).hash(PASSWORD)
    domain.sql("INSERT INTO users (email, password_hash) VALUES ('ada@example.com', %s)", old)
    assert "accessToken" in await accounts.log_in(email="ada@example.com", password=PASSWORD)
    assert [(old,)] == domain.sql("SELECT password_hash FROM users")
