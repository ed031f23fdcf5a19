"""Callers: the bearers of access tokens, ours or an external issuer's, with the rights that the database has.

A token only names its account. What the account may do was read from the database at most `RECHECK_SECONDS` ago, or
the caller says of itself that it was not (`Caller.is_checked`): while the database is unavailable, that is enough to
read, as the role that was read last. What no database has ever confirmed is neither believed nor remembered.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import random
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, replace
from functools import partial
from time import monotonic, time
from typing import Any

import jwt
import structlog

from server.bounded_dict import BoundedDict
from server.domain.identity.external import ExternalIdentity, ExternalTokens
from server.domain.identity.tokens import AccessTokens, Caller, TokenRefused
from server.email_addresses import normal_email
from server.stores.postgres.database import Database, DatabaseUnavailable

log = structlog.get_logger(__name__)

# How long a caller is believed at most before the account is looked at again: a deactivation, a new role or plan holds
# everywhere after this long.
RECHECK_SECONDS = 30.0
# Each is believed for a part of that, at least this one: callers that came all at once do not come back all at once.
_SHORTEST_PART = 0.7
_MOST_KNOWN = 10_000
# After the database was unavailable, readers wait for it again after this long, and then one of them for all.
_RETRY_SECONDS = 1.0
_GONE = "This account no longer exists."

User = dict[str, Any]


@dataclass(slots=True)
class _Account:
    """What the database said of an account when it was last asked; all of its tokens share it.

    Args:
        caller: None if the account was gone or deactivated.
        believed_until: until when that need not be asked again.
    """

    caller: Caller | None
    believed_until: float


@dataclass(frozen=True, slots=True)
class _Known:
    """A token that was verified; `expires_at` is in seconds since 1970."""

    account: _Account
    expires_at: float


class Callers:
    """Tells callers from their tokens, and remembers those it has just verified."""

    def __init__(
        self,
        database: Database,
        tokens: AccessTokens,
        external: ExternalTokens | None,
        *,
        recheck_seconds: float = RECHECK_SECONDS,
    ) -> None:
        self._database = database
        self._tokens = tokens
        self._external = external
        self._recheck_seconds = recheck_seconds
        self._known: BoundedDict[str, _Known] = BoundedDict(_MOST_KNOWN)
        self._accounts: BoundedDict[Hashable, _Account] = BoundedDict(_MOST_KNOWN)
        self._checks: dict[Hashable, asyncio.Task[tuple[_Account, bool]]] = {}  # those under way
        self._retry_at = 0.0  # 0 while the database answers

    async def close(self) -> None:
        """End what is under way."""
        checks = list(self._checks.values())
        for check in checks:
            check.cancel()
        await asyncio.gather(*checks, return_exceptions=True)
        if self._external is not None:
            await self._external.close()

    def recall(self, token: str) -> Caller | None:
        """The caller of a token that was verified a moment ago; None if it has to be identified."""
        known = self._known.get(token)
        if known is None or known.account.believed_until <= monotonic() or known.expires_at <= time():
            return None
        return known.account.caller

    async def identify(self, token: str, *, patient: bool = True) -> Caller:
        """Verify a token and look its account up. While the database is unavailable: as it was looked up last.

        Args:
            token: as it came.
            patient: False to do without the database if it was unavailable a moment ago, and has been asked before.

        Returns:
            The caller, `is_checked` unless the database did not answer.

        Raises:
            TokenRefused: the token is not valid, or its account is gone or deactivated.
            ServiceUnavailable: the token can't be verified now, or its account was never looked up.
        """
        key: Hashable
        find: Callable[[], Awaitable[User | None]]
        if self._external is not None and _issuer_of(token) == self._external.issuer:
            identity = await self._external.verify(token)
            key, expires_at = identity.subject, identity.expires_at
            find = partial(self._find_external, identity)
        else:
            verified = self._tokens.verify(token)
            key, expires_at = verified.user_id, verified.expires_at
            find = partial(self._database.fetch_one, "find_user", user_id=verified.user_id)
        account = self._accounts.get(key)
        is_checked = account is not None and account.believed_until > monotonic()
        if account is None or (not is_checked and (patient or monotonic() >= self._retry_at)):
            account, is_checked = await self._share_check(key, find)
        if account.caller is None:
            raise TokenRefused(_GONE)
        if not is_checked:
            return replace(account.caller, is_checked=False)
        self._known[token] = _Known(account, expires_at)
        return account.caller

    async def _share_check(
        self, key: Hashable, find: Callable[[], Awaitable[User | None]]
    ) -> tuple[_Account, bool]:
        """Check an account, or share the check that is under way: one connection serves all of its requests."""
        check = self._checks.get(key)
        if check is None:
            check = asyncio.create_task(self._check(key, find), name="caller-check")
            self._checks[key] = check
            check.add_done_callback(partial(self._end_check, key))
        return await asyncio.shield(check)  # one that leaves must not take the answer from the others

    def _end_check(self, key: Hashable, check: asyncio.Task[tuple[_Account, bool]]) -> None:
        del self._checks[key]
        if not check.cancelled():
            check.exception()  # retrieved, also where no request waits for it any more

    async def _check(
        self, key: Hashable, find: Callable[[], Awaitable[User | None]]
    ) -> tuple[_Account, bool]:
        """Ask the database for an account; what it said last, and False, if it is unavailable.

        Raises:
            DatabaseUnavailable: and it has never said anything of this account.
        """
        # The answer is as old as the question: a database that stood still in between does not make it newer.
        asked_at = monotonic()
        try:
            user = await self._ask(find)
        except DatabaseUnavailable:
            account = self._accounts.get(key)
            if account is None:
                raise
            return account, False
        is_usable = user is not None and user["deactivated_at"] is None
        caller = Caller(user["id"], user["role"], user["plan"]) if user is not None and is_usable else None
        account = self._accounts.get(key)
        if account is None:
            account = _Account(None, 0.0)
        account.caller = caller
        # An account that is gone is asked for each time: it may be let in again.
        part = random.uniform(_SHORTEST_PART, 1)  # noqa: S311 - spread, not secrecy
        account.believed_until = 0.0 if caller is None else asked_at + part * self._recheck_seconds
        self._accounts[key] = account
        return account, True

    async def _ask(self, find: Callable[[], Awaitable[User | None]]) -> User | None:
        retry_at = 0.0
        if self._retry_at > 0:
            self._retry_at = math.inf  # this check stands for every request that can do without its result
        try:
            return await find()
        except DatabaseUnavailable:
            retry_at = monotonic() + _RETRY_SECONDS
            raise
        finally:
            self._retry_at = retry_at

    async def _find_external(self, identity: ExternalIdentity) -> User | None:
        user = await self._database.fetch_one(
            "find_external_user", issuer=identity.issuer, subject=identity.subject
        )
        return user if user is not None else await self._create_external_user(identity)

    async def _create_external_user(self, identity: ExternalIdentity) -> User | None:
        """Make an account at first sight. An address that has an account already is not taken over: see below."""
        # Another account may own the address; linking the two is not ours to decide (an issuer that does not verify
        # addresses would open every account). Then the account gets an address of its own instead.
        addresses = [_placeholder(identity)]
        if identity.email is not None:
            addresses.insert(0, normal_email(identity.email))
        for address in addresses:
            user = await self._database.fetch_one(
                "create_external_user",
                issuer=identity.issuer,
                subject=identity.subject,
                email=address,
                name=identity.name,
            )
            if user is not None:
                log.info("account.created", issuer=identity.issuer)
                return user
        return await self._database.fetch_one(
            "find_external_user", issuer=identity.issuer, subject=identity.subject
        )


def _issuer_of(token: str) -> str | None:
    """The issuer that a token claims, unverified: it only selects the verifier."""
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError):
        return None
    issuer = claims.get("iss")
    return issuer if isinstance(issuer, str) else None


def _placeholder(identity: ExternalIdentity) -> str:
    """An address that can't receive mail (RFC 2606), unique for an identity."""
    name = f"{identity.issuer}\n{identity.subject}"
    return f"{hashlib.blake2b(name.encode(), digest_size=16).hexdigest()}@external.invalid"
