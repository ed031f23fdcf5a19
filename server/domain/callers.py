"""Who is calling: the bearer of an access token, ours or an external issuer's, as the database knows them."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from time import monotonic, time
from typing import Any

import jwt
import structlog

from server.domain.external_tokens import ExternalIdentity, ExternalTokens
from server.domain.tokens import AccessTokens, Caller, TokenRefused
from server.email_addresses import normal_email
from server.stores.database import Database, DatabaseUnavailable

log = structlog.get_logger(__name__)

# How long a caller is believed before the account is looked at again: a deactivation, a new role or plan holds
# everywhere after this long.
RECHECK_SECONDS = 30.0
_MOST_KNOWN = 10_000
_GONE = "This account no longer exists."


@dataclass(frozen=True, slots=True)
class _Known:
    caller: Caller | None  # None: the account is gone or deactivated
    expires_at: float  # of the token, seconds since 1970
    believed_until: float  # by the monotonic clock


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
        self._known: OrderedDict[str, _Known] = OrderedDict()

    async def close(self) -> None:
        """End what is under way."""
        if self._external is not None:
            await self._external.close()

    def recall(self, token: str) -> Caller | None:
        """The caller of a token that was verified a moment ago; None if it has to be identified."""
        known = self._known.get(token)
        if known is None or known.believed_until <= monotonic() or known.expires_at <= time():
            return None
        return known.caller

    async def identify(self, token: str) -> Caller:
        """Verify a token and look its account up.

        Raises:
            TokenRefused: the token is not valid, or its account is gone or deactivated.
            ServiceUnavailable: it can't be verified now.
        """
        if self._external is not None and _issuer_of(token) == self._external.issuer:
            identity = await self._external.verify(token)
            caller = await self._find_external(identity)
            expires_at = identity.expires_at.timestamp()
        else:
            verified = self._tokens.verify(token)
            expires_at = verified.expires_at.timestamp()
            try:
                caller = await self._find_own(token, verified.caller)
            except TokenRefused:
                self._remember(token, _Known(None, expires_at, believed_until=0))
                raise
        self._remember(token, _Known(caller, expires_at, monotonic() + self._recheck_seconds))
        return caller

    def _remember(self, token: str, known: _Known) -> None:
        self._known[token] = known
        self._known.move_to_end(token)
        if len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)

    async def _find_own(self, token: str, claimed: Caller) -> Caller:
        try:
            user = await self._database.fetch_one("find_user", user_id=claimed.user_id)
        except DatabaseUnavailable:
            # Without the database the signature has to do: what was known last, else what the token says.
            known = self._known.get(token)
            if known is None:
                return claimed
            if known.caller is None:
                raise TokenRefused(_GONE) from None
            return known.caller
        return _caller(user)

    async def _find_external(self, identity: ExternalIdentity) -> Caller:
        user = await self._database.fetch_one(
            "find_external_user", issuer=identity.issuer, subject=identity.subject
        )
        if user is None:
            user = await self._create_external_user(identity)
        return _caller(user)

    async def _create_external_user(self, identity: ExternalIdentity) -> dict[str, Any] | None:
        """Make an account at first sight. An address that has an account already is not taken over: see below."""
        email = None if identity.email is None else normal_email(identity.email)
        for address in (email, None):
            user = await self._database.fetch_one(
                "create_external_user",
                issuer=identity.issuer,
                subject=identity.subject,
                # Another account may own the address; linking the two is not ours to decide (an issuer that does
                # not verify addresses would open every account). The account gets a name of its own instead.
                email=address or _placeholder(identity),
                name=identity.name,
            )
            if user is not None:
                log.info("account.created", issuer=identity.issuer)
                return user
        return await self._database.fetch_one(
            "find_external_user", issuer=identity.issuer, subject=identity.subject
        )


def _caller(user: dict[str, Any] | None) -> Caller:
    if user is None or user["deactivated_at"] is not None:
        raise TokenRefused(_GONE)
    return Caller(user["id"], user["role"], user["plan"])


def _issuer_of(token: str) -> str | None:
    """The issuer that a token claims, unverified: it only says who is to verify it."""
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except (jwt.InvalidTokenError, ValueError):
        return None
    issuer = claims.get("iss")
    return issuer if isinstance(issuer, str) else None


def _placeholder(identity: ExternalIdentity) -> str:
    """An address that nobody can receive mail at (RFC 2606), unique for an identity."""
    name = f"{identity.issuer}\n{identity.subject}"
    return f"{hashlib.blake2b(name.encode(), digest_size=16).hexdigest()}@external.invalid"
