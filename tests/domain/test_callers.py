"""Callers: who is believed, for how long, and what a deactivated account may still do."""

from __future__ import annotations

from time import monotonic

import pytest

from server.domain.callers import RECHECK_SECONDS, Callers
from server.domain.tokens import AccessTokens, Caller, TokenRefused
from server.stores.database import Database
from tests.domain.conftest import Domain

TOKENS = AccessTokens("a key for tests only, long enough for HS256", lifetime_seconds=3600)


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
    monkeypatch.setattr("server.domain.callers.monotonic", lambda: later)
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
