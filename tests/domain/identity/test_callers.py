"""Callers: who is believed, for how long, and what a deactivated account may still do."""

from __future__ import annotations

import asyncio
from contextlib import closing
from itertools import pairwise
from time import monotonic

import jwt
import psycopg2
import pytest

from server.domain.identity import callers
from server.domain.identity.callers import RECHECK_SECONDS, Callers
from server.domain.identity.tokens import AccessTokens, Caller, TokenRefused
from server.stores.postgres.database import Database, DatabaseUnavailable
from tests.domain.conftest import Domain
from tests.support.waiting import wait_until

KEY = "a key for tests only, long enough for HS256"
TOKENS = AccessTokens(KEY, lifetime_seconds=3600)


async def test_a_deactivated_account_loses_access_within_a_minute_in_every_worker(
    domain: Domain, people: dict[str, Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers that have just seen the caller stop believing it when they look again; a new role comes as late."""
    assert RECHECK_SECONDS < 60
    workers = [Callers(domain.database, TOKENS, None) for _ in range(2)]
    token, others = TOKENS.issue(people["user"]), TOKENS.issue(people["other"])
    for worker in workers:
        assert people["user"] == await worker.identify(token) == worker.recall(token)
        assert people["other"] == await worker.identify(others)
    domain.sql("UPDATE users SET deactivated_at = now() WHERE id = %s", people["user"].user_id)
    domain.sql("UPDATE users SET role = 'admin' WHERE id = %s", people["other"].user_id)
    later = monotonic() + 60
    monkeypatch.setattr("server.domain.identity.callers.monotonic", lambda: later)
    for worker in workers:
        assert worker.recall(token) is None
        with pytest.raises(TokenRefused):
            await worker.identify(token)
        assert worker.recall(others) is None
        assert "admin" == (await worker.identify(others)).role


async def test_who_was_refused_is_not_let_in_while_the_database_is_away(
    domain: Domain, people: dict[str, Caller]
) -> None:
    """Without the database a known caller is still believed, and one that was deactivated is still refused."""
    database = Database(domain.url, pool_size=1, acquire_timeout_ms=500)
    await database.start()
    worker = Callers(database, TOKENS, None, recheck_seconds=0)
    token, others = TOKENS.issue(people["user"]), TOKENS.issue(people["other"])
    for each in (token, others):
        await worker.identify(each)
    domain.sql("UPDATE users SET deactivated_at = now() WHERE id = %s", people["user"].user_id)
    with pytest.raises(TokenRefused):
        await worker.identify(token)
    await database.close()
    assert people["other"] == await worker.identify(others)
    with pytest.raises(TokenRefused):
        await worker.identify(token)
    assert worker.recall(token) is None


class Clock:
    """A monotonic clock that stands still until it is put forward."""

    def __init__(self) -> None:
        self.seconds = monotonic()

    def now(self) -> float:
        """The time in seconds."""
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of server.domain.identity.callers."""
    clock = Clock()
    monkeypatch.setattr(callers, "monotonic", clock.now)
    return clock


def another_token(caller: Caller) -> str:
    """A further token of a caller, as a login on another device gives one."""
    claims = {
        "iss": "mastery",
        "sub": str(caller.user_id),
        "role": caller.role,
        "iat": 1,
        "exp": 4_000_000_000,
    }
    return jwt.encode(claims, KEY, algorithm="HS256")


async def test_share_11_claims_alone_are_neither_believed_nor_remembered(
    domain: Domain, people: dict[str, Caller]
) -> None:
    """Without the database a caller that was never looked up is nobody; afterwards it is what the database says."""
    worker = Callers(domain.database, TOKENS, None)
    token = TOKENS.issue(people["admin"])
    away = Database(domain.url)
    await away.close()
    cut_off = Callers(away, TOKENS, None)
    with pytest.raises(DatabaseUnavailable):
        await cut_off.identify(token)
    assert cut_off.recall(token) is None
    domain.sql("UPDATE users SET role = 'user' WHERE id = %s", people["admin"].user_id)
    assert "user" == (await worker.identify(token)).role


async def test_share_11_a_demoted_admin_stays_demoted_without_the_database(
    domain: Domain, people: dict[str, Caller], clock: Clock
) -> None:
    """Each token of the account has the role that was read last, through whichever token, and says that it is old."""
    database = Database(domain.url, pool_size=1)
    worker = Callers(database, TOKENS, None)
    old, other = TOKENS.issue(people["admin"]), another_token(people["admin"])
    assert "admin" == (await worker.identify(old)).role
    domain.sql("UPDATE users SET role = 'user' WHERE id = %s", people["admin"].user_id)
    clock.seconds += RECHECK_SECONDS
    assert worker.recall(old) is None
    seen = await worker.identify(other)
    assert ("user", True) == (seen.role, seen.is_checked)
    assert "user" == (await worker.identify(old)).role

    clock.seconds += RECHECK_SECONDS
    await database.close()
    for token in (old, other):
        assert worker.recall(token) is None
        unchecked = await worker.identify(token)
        assert ("user", False) == (unchecked.role, unchecked.is_checked)
        assert worker.recall(token) is None


async def test_share_11_an_answer_is_as_old_as_its_question(
    domain: Domain, people: dict[str, Caller], clock: Clock
) -> None:
    """A database that stood still for 20 s has looked at an account 20 s ago."""
    database = Database(domain.url, pool_size=1, acquire_timeout_ms=60_000)
    worker = Callers(database, TOKENS, None)
    token = TOKENS.issue(people["user"])
    async with database.transaction():
        asked = asyncio.create_task(worker.identify(token))
        await wait_until(lambda: database.pool.waiters == 1, "the question is on its way")
        clock.seconds += 20
    assert people["user"] == await asked == worker.recall(token)
    clock.seconds += RECHECK_SECONDS - 20
    assert worker.recall(token) is None
    await database.close()


async def test_share_11_readers_do_not_wait_for_a_database_that_is_down(
    domain: Domain, people: dict[str, Caller], clock: Clock
) -> None:
    """After it was unavailable, one request at a time tries again; other readers get the caller without a pause."""
    database = Database(domain.url, pool_size=1, acquire_timeout_ms=300)
    worker = Callers(database, TOKENS, None)
    token = TOKENS.issue(people["user"])
    await worker.identify(token)
    clock.seconds += RECHECK_SECONDS

    def answers_at_once() -> bool:
        try:
            worker.identify(token, patient=False).send(None)
        except StopIteration as end:
            caller: Caller = end.value
            return not caller.is_checked
        return False

    async with database.transaction():
        assert not (await worker.identify(token, patient=False)).is_checked
        assert answers_at_once()
        clock.seconds += 2
        probe = asyncio.create_task(worker.identify(token, patient=False))
        await wait_until(lambda: database.pool.waiters == 1, "one tries again")
        assert answers_at_once()
    assert (await probe).is_checked
    assert people["user"] == worker.recall(token)
    await database.close()


async def test_a_token_is_not_recalled_past_its_end(
    domain: Domain, people: dict[str, Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the instant of `exp` on a token is verified again, although its account was looked up a moment ago."""
    worker = Callers(domain.database, TOKENS, None)
    token = TOKENS.issue(people["user"])
    await worker.identify(token)
    expires_at = jwt.decode(token, options={"verify_signature": False})["exp"]
    monkeypatch.setattr(callers, "time", lambda: expires_at - 0.001)
    assert people["user"] == worker.recall(token)
    monkeypatch.setattr(callers, "time", lambda: expires_at)
    assert worker.recall(token) is None


async def test_share_11_no_more_is_remembered_than_there_is_room_for(
    domain: Domain, people: dict[str, Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the bound the oldest token, and the oldest account, are forgotten."""
    monkeypatch.setattr(callers, "_MOST_KNOWN", 2)
    worker = Callers(domain.database, TOKENS, None)
    tokens = [TOKENS.issue(people[name]) for name in ("user", "other", "admin")]
    for token in tokens:
        await worker.identify(token)
    assert [None, people["other"], people["admin"]] == [worker.recall(token) for token in tokens]
    assert (2, 2) == (len(worker._known), len(worker._accounts))
    again = another_token(people["other"])
    await worker.identify(again)
    assert [None, None, people["admin"]] == [worker.recall(token) for token in tokens]
    assert people["other"] == worker.recall(again)


async def test_an_account_that_is_let_in_again_comes_in_at_once(
    domain: Domain, people: dict[str, Caller]
) -> None:
    """A refusal is not remembered while the database answers."""
    worker = Callers(domain.database, TOKENS, None)
    token = TOKENS.issue(people["user"])
    domain.sql("UPDATE users SET deactivated_at = now() WHERE id = %s", people["user"].user_id)
    with pytest.raises(TokenRefused):
        await worker.identify(token)
    domain.sql("UPDATE users SET deactivated_at = NULL WHERE id = %s", people["user"].user_id)
    assert people["user"] == await worker.identify(token)


async def test_deploy_16_callers_of_one_moment_are_rechecked_over_time(
    domain: Domain, people: dict[str, Caller], clock: Clock
) -> None:
    """Who came all at once do not come back all at once: after any second, only a part of them has to be looked up."""
    worker = Callers(domain.database, TOKENS, None)
    claims = {"iss": "mastery", "role": "user", "iat": 1, "exp": 4_000_000_000}
    domain.sql(
        "INSERT INTO users (email) SELECT 'student' || n || '@example.com' FROM generate_series(1, 300) AS n"
    )
    ids = [str(user_id) for (user_id,) in domain.sql("SELECT id FROM users WHERE email LIKE 'student%%'")]
    tokens = [jwt.encode({**claims, "sub": user_id}, KEY, algorithm="HS256") for user_id in ids]
    for token in tokens:
        await worker.identify(token)
    del people
    believed = []
    for _ in range(int(RECHECK_SECONDS) + 1):
        believed.append(sum(worker.recall(token) is not None for token in tokens))
        clock.seconds += 1
    assert (300, 0) == (believed[0], believed[-1]), "all at first, and nobody beyond the limit"
    assert max(before - after for before, after in pairwise(believed)) < 100


async def test_deploy_16_one_recheck_of_a_caller_at_a_time(
    domain: Domain, people: dict[str, Caller], clock: Clock
) -> None:
    """Fifty requests of a caller that has to be looked up again take one connection, and all get its answer."""
    database = Database(domain.url, pool_size=4, acquire_timeout_ms=60_000)
    worker = Callers(database, TOKENS, None)
    tokens = [TOKENS.issue(people["user"]), another_token(people["user"])]
    for token in tokens:
        await worker.identify(token)
    clock.seconds += RECHECK_SECONDS
    with closing(psycopg2.connect(domain.url)) as holder:
        with holder.cursor() as cursor:
            cursor.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
        asked = [asyncio.create_task(worker.identify(token)) for token in tokens * 25]
        await wait_until(lambda: database.pool.in_use == 1, "one has asked")
        asked.pop(0).cancel()  # the one that began it leaves
        for _ in range(5):
            await asyncio.sleep(0)
        assert (1, 0) == (database.pool.in_use, database.pool.waiters)
        holder.rollback()
    assert {people["user"]} == set(await asyncio.gather(*asked))
    assert not worker._checks
    await database.close()
