"""Accounts: addresses are unique, passwords slow to guess, refresh tokens work once."""

from __future__ import annotations

import asyncio
import secrets
import unicodedata
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.domain.identity.accounts import Accounts, EmailTaken, RefreshTokenRefused, WrongCredentials
from server.domain.identity.tokens import AccessTokens, family_of, hash_of, new_refresh_token
from server.email_addresses import normal_email
from server.errors import AccountGone, InvalidInput
from tests.domain.conftest import Domain
from tests.support.passwords import QuickPasswords

PASSWORD = "correct horse battery"
EMAIL = "ada@example.com"


@pytest.fixture
def accounts(domain: Domain) -> Accounts:
    """Accounts whose refresh tokens live for a day."""
    tokens = AccessTokens("a key for tests only, long enough for HS256", lifetime_seconds=3600)
    return Accounts(domain.database, QuickPasswords(), tokens, refresh_token_seconds=86_400)


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
    domain.sql("CREATE SCHEMA other")
    domain.sql(
        "CREATE FUNCTION other.lower(text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT replace($1, 'ß', 'ẞ') $$"
    )
    database = domain.url.rpartition("/")[2]
    domain.sql(f'ALTER DATABASE "{database}" SET search_path = other, pg_catalog, public')
    domain.database.pool.renew()
    with pytest.raises(InvalidInput) as caught:
        await accounts.create_user(email="ẞ@x.de", password=PASSWORD, name=None)
    assert ["email"] == list(caught.value.errors)


class CountingPasswords(QuickPasswords):
    """Passwords that count what they hash."""

    def __init__(self) -> None:
        super().__init__()
        self.costs: list[str] = []

    def _check(self, password_hash: str | None, password: str) -> bool:
        self.costs.append((password_hash or self._nobodys_hash).rpartition("$")[0].rpartition("$")[0])
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
    assert 3 == len(passwords.costs)
    assert 1 == len(set(passwords.costs)), "the same algorithm, memory, passes and lanes"


@pytest.mark.usefixtures("signed_in")
async def test_who_is_deactivated_does_not_get_in(domain: Domain, accounts: Accounts) -> None:
    """The right password of a deactivated account is as wrong as any."""
    domain.sql("UPDATE users SET deactivated_at = now()")
    with pytest.raises(WrongCredentials):
        await accounts.log_in(email=EMAIL, password=PASSWORD)


async def test_share_15_a_refresh_token_works_once_more_within_ten_seconds(
    domain: Domain, accounts: Accounts, signed_in: dict[str, Any]
) -> None:
    """Two tabs stay signed in, each with a token of its own; the third use ends the family. Other logins live on."""
    other = await accounts.log_in(email=EMAIL, password=PASSWORD)
    tabs = [await accounts.refresh(signed_in["refreshToken"])]
    domain.sql("UPDATE refresh_tokens SET used_at = used_at - interval '5 seconds'")
    tabs.append(await accounts.refresh(signed_in["refreshToken"]))
    tabs = [await accounts.refresh(tab["refreshToken"]) for tab in tabs]
    with pytest.raises(RefreshTokenRefused):
        await accounts.refresh(signed_in["refreshToken"])
    for tab in tabs:
        with pytest.raises(RefreshTokenRefused):
            await accounts.refresh(tab["refreshToken"])
    assert "refreshToken" in await accounts.refresh(other["refreshToken"])


async def test_share_15_a_later_reuse_ends_the_family(
    domain: Domain, accounts: Accounts, signed_in: dict[str, Any]
) -> None:
    """Ten seconds after its first use a token is a sign of theft, though it was used only once."""
    second = await accounts.refresh(signed_in["refreshToken"])
    domain.sql("UPDATE refresh_tokens SET used_at = used_at - interval '10 seconds'")
    for token in (signed_in["refreshToken"], second["refreshToken"]):
        with pytest.raises(RefreshTokenRefused):
            await accounts.refresh(token)


async def test_share_15_the_second_use_does_not_begin_the_ten_seconds_anew(
    domain: Domain, accounts: Accounts, signed_in: dict[str, Any]
) -> None:
    """The database keeps the instant of the first use, and the second beside it."""
    await accounts.refresh(signed_in["refreshToken"])
    domain.sql("UPDATE refresh_tokens SET used_at = used_at - interval '5 seconds'")
    await accounts.refresh(signed_in["refreshToken"])
    assert [(True,)] == domain.sql(
        "SELECT used_again_at - used_at >= interval '5 seconds' FROM refresh_tokens WHERE used_at IS NOT NULL"
    )


async def test_share_15_of_many_uses_at_once_two_win_and_the_family_ends(
    accounts: Accounts, signed_in: dict[str, Any]
) -> None:
    """A stolen token raced by its owner: never more than two get an answer, which works no further."""
    racing = await asyncio.gather(
        *(accounts.refresh(signed_in["refreshToken"]) for _ in range(6)), return_exceptions=True
    )
    winners = [outcome for outcome in racing if isinstance(outcome, dict)]
    assert (2, 4) == (len(winners), len([one for one in racing if isinstance(one, RefreshTokenRefused)]))
    for winner in winners:
        with pytest.raises(RefreshTokenRefused):
            await accounts.refresh(winner["refreshToken"])


async def test_share_15_a_logout_races_the_other_tab(domain: Domain, accounts: Accounts) -> None:
    """Whichever of a logout and two refreshes of the same token comes first, nothing of the family works afterwards."""
    await accounts.create_user(email=EMAIL, password=PASSWORD, name=None)
    for number in range(1, 21):
        family = UUID(int=number)
        token = new_refresh_token(family)
        domain.sql(
            "INSERT INTO refresh_tokens (user_id, family_id, token_hash, expires_at)"
            " SELECT id, %s, %s, now() + interval '1 day' FROM users",
            family,
            hash_of(token),
        )
        racing = await asyncio.gather(
            accounts.refresh(token), accounts.log_out(token), accounts.refresh(token), return_exceptions=True
        )
        assert [] == [one for one in racing if not isinstance(one, dict | RefreshTokenRefused | None)]
        for won in [one["refreshToken"] for one in racing if isinstance(one, dict)]:
            with pytest.raises(RefreshTokenRefused):
                await accounts.refresh(won)


def test_share_15_a_token_contains_its_family() -> None:
    """It can be read from tokens of this release; any other text stands for itself."""
    family = uuid4()
    tokens = {new_refresh_token(family) for _ in range(3)}
    assert 3 == len(tokens)
    assert {family.bytes} == {family_of(token) for token in tokens}
    others = [secrets.token_urlsafe(32), "", "é" * 64, "!" * 64, "A" * 63, "A" * 65]
    assert len(others) == len({family_of(other) for other in others} - {family.bytes})


async def test_share_15_a_token_of_the_release_before_goes_on(
    domain: Domain, accounts: Accounts, signed_in: dict[str, Any]
) -> None:
    """A token that does not contain its family is exchanged for one that does, as the database knows it."""
    old = secrets.token_urlsafe(32)
    domain.sql("UPDATE refresh_tokens SET token_hash = %s", hash_of(old))
    family = domain.sql("SELECT family_id FROM refresh_tokens")[0][0]
    assert family.bytes == family_of(signed_in["refreshToken"])
    assert family.bytes == family_of((await accounts.refresh(old))["refreshToken"])


# An address, and other spellings of it: full width, ligature, capitals, the sign for Kelvin, blanks around it.
SPELLINGS = {
    "ada@example.com": ["\uff41da@example.com", " ADA@example.com\u3000", "ada@\uff25xample.com"],
    "office@example.com": ["o\ufb03ce@example.com", "O\ufb03CE@Example.com"],
    "kim@example.com": ["\u212aim@example.com", "\U0001d5deim@example.com"],
}


@pytest.mark.parametrize("email", SPELLINGS)
async def test_share_15_spellings_that_nfkc_makes_equal_are_one_account(
    domain: Domain, accounts: Accounts, email: str
) -> None:
    """Whichever is registered, the others are taken, and each signs in."""
    spellings = [*SPELLINGS[email], email]
    assert ["EmailTaken"] * (len(spellings) - 1) + ["dict"] == await outcomes(
        *(accounts.create_user(email=spelling, password=PASSWORD, name=None) for spelling in spellings)
    )
    assert [(email,)] == domain.sql("SELECT email FROM users")
    for spelling in spellings:
        assert email == (await accounts.log_in(email=spelling, password=PASSWORD))["user"]["email"]


async def test_share_15_letters_that_only_fold_alike_are_two_accounts(accounts: Accounts) -> None:
    """Two people may own `straße` and `strasse`: neither may keep the other out."""
    for email in ("stra\xdfe@example.com", "strasse@example.com"):
        made = await accounts.create_user(email=email, password=PASSWORD, name=None)
        assert email == made["user"]["email"]


async def test_share_15_accounts_from_before_go_on(domain: Domain, accounts: Accounts) -> None:
    """An address that was stored without NFKC signs in by any spelling, and can't be registered a second time."""
    await accounts.create_user(email=EMAIL, password=PASSWORD, name=None)
    before = SPELLINGS[EMAIL][0]
    domain.sql("UPDATE users SET email = %s", before)
    for spelling in (before, before.upper(), EMAIL):
        assert before == (await accounts.log_in(email=spelling, password=PASSWORD))["user"]["email"]
        with pytest.raises(EmailTaken):
            await accounts.create_user(email=spelling, password=PASSWORD, name=None)


async def test_share_15_of_several_accounts_from_before_each_opens_by_its_own_spelling(
    domain: Domain, accounts: Accounts
) -> None:
    """The release before took two spellings for two people: each still gets their own account."""
    first, second = SPELLINGS[EMAIL][0], EMAIL
    await accounts.create_user(email=EMAIL, password=PASSWORD, name="first")
    domain.sql("UPDATE users SET email = %s", first)
    hashed = await QuickPasswords().hash("another password")
    domain.sql("INSERT INTO users (email, password_hash, name) VALUES (%s, %s, 'second')", second, hashed)
    assert "first" == (await accounts.log_in(email=first, password=PASSWORD))["user"]["name"]
    assert "second" == (await accounts.log_in(email=second, password="another password"))["user"]["name"]
    with pytest.raises(WrongCredentials):
        await accounts.log_in(email=second, password=PASSWORD)


@given(text=st.text(max_size=20))
def test_share_15_a_normal_form_is_its_own(text: str) -> None:
    """Normalising twice is normalising once, and what NFKC makes equal has one normal form."""
    normal = normal_email(text)
    assert normal == normal_email(normal)
    assert normal == normal_email(unicodedata.normalize("NFKC", text))
    assert normal == normal.lower()


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
