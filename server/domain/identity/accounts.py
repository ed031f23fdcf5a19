"""Accounts: registration, login, refresh tokens that work once (RFC 9700, section 4.14.2), passwords, and the profile.

The profile holds a name and the time zone in which days of study are counted.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from uuid import UUID, uuid4

from server.domain.identity.passwords import PasswordQueueFull, Passwords, Wanted, always
from server.domain.identity.tokens import AccessTokens, Caller, TokenRefused, hash_of, new_refresh_token
from server.domain.values import describe_user, find_zone
from server.domain.writing import Unit
from server.email_addresses import normal_email, stored_spelling
from server.errors import AccountGone, ClientDisconnected, Conflict, InvalidInput, Unauthenticated
from server.stores.postgres.database import Database, Transaction


class EmailTaken(Conflict):
    """There is an account with this email address."""

    code = "email_taken"


class WrongCredentials(Unauthenticated):
    """The email address or the password is wrong."""

    code = "wrong_credentials"


class RefreshTokenRefused(Unauthenticated):
    """The refresh token is not valid (any more); log in again."""

    code = "invalid_refresh_token"


class NoPassword(Conflict):
    """This account has no password: it signs in with an external issuer."""

    code = "no_password"


class ResetRefused(InvalidInput):
    """The token for a new password is not valid (any more); an administrator makes another."""

    code = "invalid_reset_token"


class Accounts:
    """Registers, signs in and changes accounts.

    `wanted` says whether the client still waits for the answer: hashing a password for nobody is for nothing.
    """

    def __init__(
        self, database: Database, passwords: Passwords, tokens: AccessTokens, *, refresh_token_seconds: int
    ) -> None:
        self._database = database
        self._passwords = passwords
        self._tokens = tokens
        self._refresh_token_seconds = refresh_token_seconds

    async def create_user(
        self, *, email: str, password: str, name: str | None, wanted: Wanted = always
    ) -> dict[str, Any]:
        """Make an account and sign it in; its address may be in any spelling.

        Raises:
            EmailTaken: the address has an account.
            InvalidInput: the address can not be stored.
            PasswordQueueFull: too many passwords are being hashed.
            ClientDisconnected: the client has hung up.
        """
        password_hash = await self._passwords.hash(password, wanted=wanted)
        async with self._database.transaction() as transaction:
            user = await add_account(transaction, email=email, password_hash=password_hash, name=name)
            return await self._sign_in(transaction, user, family_id=uuid4())

    async def log_in(self, *, email: str, password: str, wanted: Wanted = always) -> dict[str, Any]:
        """Sign an account in by its address, in any spelling, and its password.

        Raises:
            WrongCredentials: there is no such account, or the password is another; both take the same time.
            PasswordQueueFull: too many passwords are being checked.
            ClientDisconnected: the client has hung up.
        """
        user = await self._database.fetch_one(
            "find_user_by_email", email=normal_email(email), spelling=stored_spelling(email)
        )
        known_hash = None if user is None else user["password_hash"]
        matches = await self._passwords.matches(known_hash, password, wanted=wanted)
        if user is None or known_hash is None or not matches or user["deactivated_at"] is not None:
            raise WrongCredentials
        new_hash = None
        if self._passwords.is_outdated(known_hash):
            with suppress(PasswordQueueFull, ClientDisconnected):  # next time
                new_hash = await self._passwords.hash(password, wanted=wanted)
        async with self._database.transaction() as transaction:
            # A change of the password ends every sign-in that it can see; this one waits for it, or is seen.
            user = await transaction.fetch_one("lock_user", user_id=user["id"])
            if user is None or user["password_hash"] != known_hash or user["deactivated_at"] is not None:
                raise WrongCredentials
            if new_hash is not None:
                await transaction.execute(
                    "renew_password_hash", user_id=user["id"], known_hash=known_hash, password_hash=new_hash
                )
            return await self._sign_in(transaction, user, family_id=uuid4())

    async def refresh(self, refresh_token: str) -> dict[str, Any]:
        """Exchange a refresh token for new tokens.

        It works once, and once more within ten seconds: two tabs of a browser share a token and refresh it at the same
        moment. Any later use is a sign that it was stolen, and ends its whole family.

        Raises:
            RefreshTokenRefused: it is unknown, expired, revoked or spent.
        """
        token_hash = hash_of(refresh_token)
        async with self._database.transaction() as transaction:
            token = await transaction.fetch_one("lock_refresh_token", token_hash=token_hash)
            usable = token is not None and not (
                token["is_spent"] or token["is_revoked"] or token["is_expired"]
            )
            if token is not None and usable:
                user = await transaction.fetch_one("find_user", user_id=token["user_id"])
                if user is not None and user["deactivated_at"] is None:
                    await transaction.execute("spend_refresh_token", token_hash=token_hash)
                    return await self._sign_in(transaction, user, family_id=token["family_id"])
            if token is not None and token["is_spent"]:
                await transaction.execute("revoke_token_family", family_id=token["family_id"])
        raise RefreshTokenRefused

    async def log_out(self, refresh_token: str) -> None:
        """End a refresh token's family; an unknown token has nothing to end."""
        async with self._database.transaction() as transaction:
            token = await transaction.fetch_one("lock_refresh_token", token_hash=hash_of(refresh_token))
            if token is not None:
                await transaction.execute("revoke_token_family", family_id=token["family_id"])

    async def change_password(
        self, user_id: UUID, current: str, new: str, *, access_token: str, wanted: Wanted = always
    ) -> None:
        """Give an account another password, and end all of its sign-ins but the caller's own.

        Args:
            user_id: the account.
            current: what is claimed to be its password.
            new: of the right length.
            access_token: that the caller came with; it names the sign-in that goes on.
            wanted: whether the client still waits for the answer.

        Raises:
            AccountGone: the account no longer exists.
            NoPassword: it has none.
            WrongCredentials: it has another one.
            PasswordQueueFull: too many passwords are being checked.
            ClientDisconnected: the client has hung up.
        """
        known_hash = await self.check_password(user_id, current, wanted=wanted)
        if known_hash is None:
            raise NoPassword
        new_hash = await self._passwords.hash(new, wanted=wanted)
        kept_family_id = None
        with suppress(TokenRefused):  # it may have expired a moment ago
            kept_family_id = self._tokens.verify(access_token).family_id

        async def work(transaction: Transaction) -> None:
            user = await transaction.fetch_one("lock_user", user_id=user_id)
            if user is None or user["password_hash"] != known_hash:
                raise WrongCredentials("The current password is wrong.")
            await transaction.execute("set_password", user_id=user_id, password_hash=new_hash)
            await transaction.execute("end_sign_ins", user_id=user_id, kept_family_id=kept_family_id)

        await self._database.run_transaction(work)

    async def reset_password(self, token: str, new: str, *, wanted: Wanted = always) -> UUID:
        """Give an account another password by the token of `users.issue_reset`, and end all of its sign-ins.

        Returns:
            The account.

        Raises:
            ResetRefused: the token is unknown, spent, replaced or expired.
            PasswordQueueFull: too many passwords are being hashed.
            ClientDisconnected: the client has hung up.
        """
        token_hash = hash_of(token)
        row = await self._database.fetch_one("find_password_reset", token_hash=token_hash)
        if row is None:
            raise ResetRefused  # before a hash is made for it
        user_id: UUID = row["user_id"]
        new_hash = await self._passwords.hash(new, wanted=wanted)

        async def work(transaction: Transaction) -> None:
            await transaction.fetch_one("lock_user", user_id=user_id)
            if not await transaction.execute("spend_password_reset", user_id=user_id, token_hash=token_hash):
                raise ResetRefused
            await transaction.execute("set_password", user_id=user_id, password_hash=new_hash)
            await transaction.execute("end_sign_ins", user_id=user_id, kept_family_id=None)

        await self._database.run_transaction(work)
        return user_id

    async def check_password(
        self, user_id: UUID, password: str | None, *, wanted: Wanted = always
    ) -> str | None:
        """See that a password is an account's own.

        Returns:
            The hash that it was checked against; None for an account without a password, where none is asked for.

        Raises:
            AccountGone: the account no longer exists.
            InvalidInput: it has a password, and none was given.
            WrongCredentials: it has another one.
            PasswordQueueFull: too many passwords are being checked.
            ClientDisconnected: the client has hung up.
        """
        user = await self._database.fetch_one("find_user", user_id=user_id)
        if user is None or user["deactivated_at"] is not None:
            raise AccountGone
        known_hash: str | None = user["password_hash"]
        if known_hash is None:
            return None
        if password is None:
            raise InvalidInput(errors={"password": "Missing data for required field."})
        if not await self._passwords.matches(known_hash, password, wanted=wanted):
            raise WrongCredentials("The current password is wrong.")
        return known_hash

    async def find_user(self, user_id: UUID) -> dict[str, Any]:
        """The account of a caller.

        Raises:
            AccountGone: it no longer exists.
        """
        user = await self._database.fetch_one("find_user", user_id=user_id)
        if user is None or user["deactivated_at"] is not None:
            raise AccountGone
        return describe_user(user)

    async def export_user(self, user_id: UUID) -> str:
        """Everything that is kept of an account, as JSON.

        Raises:
            AccountGone: it no longer exists.
        """
        row = await self._database.fetch_one("export_user", user_id=user_id)
        if row is None:
            raise AccountGone
        document: str = row["document"]
        return document

    async def _sign_in(
        self, transaction: Transaction, user: dict[str, Any], *, family_id: UUID
    ) -> dict[str, Any]:
        refresh_token = new_refresh_token(family_id)
        await transaction.execute(
            "add_refresh_token",
            user_id=user["id"],
            family_id=family_id,
            token_hash=hash_of(refresh_token),
            lifetime_seconds=self._refresh_token_seconds,
        )
        return {
            "user": describe_user(user),
            "accessToken": self._tokens.issue(
                Caller(user["id"], user["role"], user["plan"]), family_id=family_id
            ),
            "tokenType": "Bearer",
            "expiresIn": self._tokens.lifetime_seconds,
            "refreshToken": refresh_token,
        }


async def add_account(
    transaction: Transaction, *, email: str, password_hash: str, name: str | None
) -> dict[str, Any]:
    """Make an account; email: in any spelling. Returns its row.

    Raises:
        EmailTaken: the address has an account.
        InvalidInput: the address can not be stored.
    """
    user = await transaction.fetch_one(
        "create_user", email=normal_email(email), password_hash=password_hash, name=name
    )
    if user is None or user["id"] is None:
        if user is not None and not user["is_storable"]:
            raise InvalidInput(errors={"email": "Not a valid email address."})
        raise EmailTaken
    return user


class UnknownTimeZone(InvalidInput):
    """There is no such time zone."""

    status = 422
    code = "unknown_time_zone"
    title = "Unprocessable Content"


def check_time_zone(name: str) -> None:
    """See that a profile may name a time zone.

    Raises:
        UnknownTimeZone: there is none of this name.
    """
    if find_zone(name) is None:
        raise UnknownTimeZone(errors={"timeZone": "This is not an IANA time zone such as Europe/Berlin."})


async def update_profile(
    unit: Unit, user_id: UUID, *, time_zone: str | None = None, **changes: str | None
) -> dict[str, Any]:
    """Change a profile.

    Args:
        unit: the unit of work.
        user_id: whose profile it is.
        time_zone: one that `check_time_zone` takes; None for the one that the profile has.
        changes: `name`, where it is to change; None for no name.

    Raises:
        AccountGone: the account no longer exists.
    """
    row = await unit.transaction.fetch_one(
        "update_profile",
        user_id=user_id,
        sets_name="name" in changes,
        name=changes.get("name"),
        time_zone=time_zone,
    )
    return _profile(row)


async def get_profile(database: Database, user_id: UUID) -> dict[str, Any]:
    """A user's profile.

    Raises:
        AccountGone: the account no longer exists.
    """
    return _profile(await database.fetch_one("get_profile", user_id=user_id))


def _profile(row: dict[str, Any] | None) -> dict[str, Any]:
    if row is None:
        raise AccountGone
    return {"name": row["name"], "timeZone": row["time_zone"]}
