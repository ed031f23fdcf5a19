"""Accounts: registering, logging in, and refresh tokens that work once (RFC 9700, section 4.14.2)."""

from __future__ import annotations

import hashlib
import secrets
from typing import Any
from uuid import UUID, uuid4

from server.domain.passwords import Passwords
from server.domain.tokens import AccessTokens, Caller
from server.domain.values import iso_timestamp
from server.errors import AccountGone, Conflict, InvalidInput, Unauthenticated
from server.stores.database import ConstraintViolated, Database, Transaction


class EmailTaken(Conflict):
    """There is an account with this email address."""

    code = "email_taken"


class WrongCredentials(Unauthenticated):
    """The email address or the password is wrong."""

    code = "wrong_credentials"


class RefreshTokenRefused(Unauthenticated):
    """The refresh token is not valid (any more); log in again."""

    code = "invalid_refresh_token"


class Accounts:
    """Everything about who somebody is."""

    def __init__(
        self, database: Database, passwords: Passwords, tokens: AccessTokens, *, refresh_token_seconds: int
    ) -> None:
        self._database = database
        self._passwords = passwords
        self._tokens = tokens
        self._refresh_token_seconds = refresh_token_seconds

    async def create_user(self, *, email: str, password: str, name: str | None) -> dict[str, Any]:
        """Make an account and sign it in.

        Raises:
            EmailTaken: the address has an account.
            InvalidInput: the address can not be stored.
        """
        password_hash = await self._passwords.hash(password)
        try:
            async with self._database.transaction() as transaction:
                user = await transaction.fetch_one(
                    "create_user", email=normal_email(email), password_hash=password_hash, name=name
                )
                if user is None:
                    raise EmailTaken
                return await self._sign_in(transaction, user, family_id=uuid4())
        except ConstraintViolated as error:
            if error.constraint_name == "users_email_unique":
                raise EmailTaken from error
            if error.constraint_name == "users_email_is_normal":  # the database knows another lower case
                raise InvalidInput(errors={"email": "Not a valid email address."}) from error
            raise

    async def log_in(self, *, email: str, password: str) -> dict[str, Any]:
        """Sign an account in.

        Raises:
            WrongCredentials: there is no such account, or the password is another; both take the same time.
        """
        user = await self._database.fetch_one("find_user_by_email", email=normal_email(email))
        matches = await self._passwords.matches(None if user is None else user["password_hash"], password)
        if user is None or not matches or user["deactivated_at"] is not None:
            raise WrongCredentials
        async with self._database.transaction() as transaction:
            return await self._sign_in(transaction, user, family_id=uuid4())

    async def refresh(self, refresh_token: str) -> dict[str, Any]:
        """Exchange a refresh token for new tokens. One that was exchanged before ends its whole family.

        Raises:
            RefreshTokenRefused: it is unknown, expired, revoked or spent.
        """
        token_hash = _hash_of(refresh_token)
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
            token = await transaction.fetch_one("lock_refresh_token", token_hash=_hash_of(refresh_token))
            if token is not None:
                await transaction.execute("revoke_token_family", family_id=token["family_id"])

    async def find_user(self, user_id: UUID) -> dict[str, Any]:
        """The account of a caller.

        Raises:
            AccountGone: it no longer exists.
        """
        user = await self._database.fetch_one("find_user", user_id=user_id)
        if user is None or user["deactivated_at"] is not None:
            raise AccountGone
        return describe_user(user)

    async def _sign_in(
        self, transaction: Transaction, user: dict[str, Any], *, family_id: UUID
    ) -> dict[str, Any]:
        refresh_token = secrets.token_urlsafe(32)
        await transaction.execute(
            "add_refresh_token",
            user_id=user["id"],
            family_id=family_id,
            token_hash=_hash_of(refresh_token),
            lifetime_seconds=self._refresh_token_seconds,
        )
        return {
            "user": describe_user(user),
            "accessToken": self._tokens.issue(Caller(user["id"], user["role"], user["plan"])),
            "tokenType": "Bearer",
            "expiresIn": self._tokens.lifetime_seconds,
            "refreshToken": refresh_token,
        }


def normal_email(email: str) -> str:
    """The form in which an address is stored and compared."""
    return email.strip().lower()


def describe_user(user: dict[str, Any]) -> dict[str, Any]:
    """An account in the form of the API."""
    return {
        "id": str(user["id"]),
        "email": user["email"],
        "name": user["name"],
        "role": user["role"],
        "createdAt": iso_timestamp(user["created_at"]),
    }


def _hash_of(refresh_token: str) -> bytes:
    return hashlib.sha256(refresh_token.encode()).digest()
