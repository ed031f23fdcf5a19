"""Accounts: addresses are unique, passwords slow to guess, refresh tokens work once."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest

from server.domain.accounts import Accounts, EmailTaken, RefreshTokenRefused, WrongCredentials
from server.domain.passwords import Passwords
from server.domain.tokens import AccessTokens
from server.errors import AccountGone, InvalidInput
from tests.domain.conftest import Domain

PASSWORD = "correct horse battery"
EMAIL = "ada@example.com"


@pytest.fixture
def accounts(domain: Domain) -> Accounts:
    """Accounts whose refresh tokens live for a day."""
    tokens = AccessTokens("a key for tests only, long enough for HS256", lifetime_seconds=3600)
    return Accounts(domain.database, Passwords(), tokens, refresh_token_seconds=86_400)


@pytest.fixture
async def signed_in(accounts: Accounts) -> dict[str, Any]:
    """The answer to a registration."""
    return await accounts.create_user(email=EMAIL, password=PASSWORD, name="Ada")


async def outcomes(*attempts: Any) -> list[str]:
    """The kinds of what came out of attempts at the same time, sorted."""
    return sorted(
        type(outcome).__name__ for outcome in await asyncio.gather(*attempts, return_exceptions=True)
    )


async def test_an_address_is_taken_once(domain: Domain, accounts: Accounts) -> None:
    """Of registrations at the same time, in whatever case, one wins and the others are told."""
    spellings = ["ada@example.com", "ADA@example.com", "Ada@Example.com", "ada@EXAMPLE.COM"]
    assert ["EmailTaken"] * 3 + ["dict"] == await outcomes(
        *(accounts.create_user(email=email, password=PASSWORD, name=None) for email in spellings)
    )
    assert [(EMAIL,)] == domain.sql("SELECT email FROM users")
    with pytest.raises(EmailTaken):
        await accounts.create_user(email=EMAIL, password=PASSWORD, name=None)


async def test_an_address_that_the_database_lowers_otherwise(domain: Domain, accounts: Accounts) -> None:
    """Where Python and the database disagree about a lower case, it is the address that is refused."""
    domain.sql("ALTER TABLE users DROP CONSTRAINT users_email_is_normal")
    domain.sql(
        "ALTER TABLE users ADD CONSTRAINT users_email_is_normal CHECK (email NOT LIKE 'ẞ%%' AND email <> 'ß@x.de')"
    )
    with pytest.raises(InvalidInput) as caught:
        await accounts.create_user(email="ẞ@x.de", password=PASSWORD, name=None)
    assert ["email"] == list(caught.value.errors)


class CountingPasswords(Passwords):
    """Passwords that count what they hash."""

    def __init__(self) -> None:
        super().__init__()
        self.checked: list[str] = []

    def _check(self, password_hash: str | None, password: str) -> bool:
        self.checked.append((password_hash or self._nobodys_hash).rpartition("$")[0].rpartition("$")[0])
        return super()._check(password_hash, password)


@pytest.mark.usefixtures("signed_in")
async def test_an_unknown_address_is_as_much_work_as_a_wrong_password(domain: Domain) -> None:
    """Both compute one hash with the same parameters and get the same error, as do accounts without a password."""
    passwords = CountingPasswords()
    tokens = AccessTokens("a key for tests only, long enough for HS256", lifetime_seconds=3600)
    accounts = Accounts(domain.database, passwords, tokens, refresh_token_seconds=60)
    domain.sql("INSERT INTO users (email) VALUES ('external@example.com')")
    domain.sql("UPDATE users SET deactivated_at = now() WHERE email <> %s", EMAIL)
    errors = []
    for email in (EMAIL, "nobody@example.com", "external@example.com"):
        with pytest.raises(WrongCredentials) as caught:
            await accounts.log_in(email=email, password="not the password")
        errors.append((type(caught.value), caught.value.detail))
    assert 1 == len(set(errors))
    assert 3 == len(passwords.checked)
    assert 1 == len(set(passwords.checked)), "the same algorithm, memory, passes and lanes"


@pytest.mark.usefixtures("signed_in")
async def test_who_is_deactivated_does_not_get_in(domain: Domain, accounts: Accounts) -> None:
    """The right password of a deactivated account is as wrong as any."""
    domain.sql("UPDATE users SET deactivated_at = now()")
    with pytest.raises(WrongCredentials):
        await accounts.log_in(email=EMAIL, password=PASSWORD)


async def test_a_refresh_token_works_once(accounts: Accounts, signed_in: dict[str, Any]) -> None:
    """The second use ends the family: the successor no longer works either. Other logins live on."""
    other = await accounts.log_in(email=EMAIL, password=PASSWORD)
    second = await accounts.refresh(signed_in["refreshToken"])
    third = await accounts.refresh(second["refreshToken"])
    with pytest.raises(RefreshTokenRefused):
        await accounts.refresh(signed_in["refreshToken"])
    with pytest.raises(RefreshTokenRefused):
        await accounts.refresh(third["refreshToken"])
    assert "refreshToken" in await accounts.refresh(other["refreshToken"])


async def test_of_two_uses_at_once_one_wins_and_the_family_ends(
    accounts: Accounts, signed_in: dict[str, Any]
) -> None:
    """A stolen token raced by its owner: one gets an answer, which works no further."""
    racing = await asyncio.gather(
        *(accounts.refresh(signed_in["refreshToken"]) for _ in range(6)), return_exceptions=True
    )
    winners = [outcome for outcome in racing if isinstance(outcome, dict)]
    assert (1, 5) == (len(winners), len([one for one in racing if isinstance(one, RefreshTokenRefused)]))
    with pytest.raises(RefreshTokenRefused):
        await accounts.refresh(winners[0]["refreshToken"])


async def test_no_successor_escapes_the_end_of_its_family(
    domain: Domain, accounts: Accounts, signed_in: dict[str, Any]
) -> None:
    """A token that was made while the reuse of another one ended the family is refused, though nobody revoked it."""
    last = await accounts.refresh(signed_in["refreshToken"])
    domain.sql("UPDATE refresh_tokens SET revoked_at = now() WHERE used_at IS NOT NULL")
    with pytest.raises(RefreshTokenRefused):
        await accounts.refresh(last["refreshToken"])


async def test_logging_out_ends_the_family(accounts: Accounts, signed_in: dict[str, Any]) -> None:
    """After a logout neither the token nor its successors work; an unknown token has nothing to end."""
    second = await accounts.refresh(signed_in["refreshToken"])
    await accounts.log_out(signed_in["refreshToken"])
    await accounts.log_out("unknown")
    for answer in (signed_in, second):
        with pytest.raises(RefreshTokenRefused):
            await accounts.refresh(answer["refreshToken"])


async def test_a_refresh_token_expires(domain: Domain, accounts: Accounts, signed_in: dict[str, Any]) -> None:
    """After its time a refresh token is refused, and so is one of a deactivated or unknown account."""
    domain.sql("UPDATE refresh_tokens SET expires_at = now()")
    with pytest.raises(RefreshTokenRefused):
        await accounts.refresh(signed_in["refreshToken"])
    domain.sql("UPDATE refresh_tokens SET expires_at = now() + interval '1 day'")
    domain.sql("UPDATE users SET deactivated_at = now()")
    with pytest.raises(RefreshTokenRefused):
        await accounts.refresh(signed_in["refreshToken"])
    for token in ("", "unknown", "\0", "é"):
        with pytest.raises(RefreshTokenRefused):
            await accounts.refresh(token)


async def test_expired_tokens_are_deleted_by_those_that_come(
    domain: Domain, accounts: Accounts, signed_in: dict[str, Any]
) -> None:
    """Each login and each refresh deletes two expired tokens of anybody, the oldest first, and no living one."""
    domain.sql(
        "INSERT INTO refresh_tokens (user_id, family_id, token_hash, expires_at) SELECT id, gen_random_uuid(),"
        " sha256(n::text::bytea), now() - n * interval '1 day' FROM users, generate_series(1, 5) AS n"
    )
    expired = "SELECT count(*) FROM refresh_tokens WHERE expires_at <= now()"
    await accounts.log_in(email=EMAIL, password=PASSWORD)
    assert [(3,)] == domain.sql(expired)
    assert [(0,)] == domain.sql(
        "SELECT count(*) FROM refresh_tokens WHERE expires_at < now() - interval '3 days 1 hour'"
    )
    second = await accounts.refresh(signed_in["refreshToken"])
    await asyncio.gather(*(accounts.log_in(email=EMAIL, password=PASSWORD) for _ in range(3)))
    assert [(0,)] == domain.sql(expired)
    assert "refreshToken" in await accounts.refresh(second["refreshToken"])


async def test_the_database_holds_no_secret(domain: Domain, signed_in: dict[str, Any]) -> None:
    """Neither the password nor the refresh token can be read from the tables."""
    rows = repr(domain.sql("SELECT password_hash FROM users")) + repr(
        [bytes(value) for (value,) in domain.sql("SELECT token_hash FROM refresh_tokens")]
    )
    assert PASSWORD not in rows
    assert signed_in["refreshToken"] not in rows
    assert "$argon2id$" in rows


async def test_an_account_that_is_gone(domain: Domain, accounts: Accounts, signed_in: dict[str, Any]) -> None:
    """The bearer of a token whose account was deleted is told so."""
    user_id = UUID(signed_in["user"]["id"])
    assert signed_in["user"] == await accounts.find_user(user_id)
    domain.sql("DELETE FROM users")
    with pytest.raises(AccountGone):
        await accounts.find_user(user_id)
