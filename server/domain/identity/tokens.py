"""Access tokens and refresh tokens.

An access token is a JSON Web Token (RFC 7519) that the service signs with its own key. A refresh token is opaque to
clients. It begins with the id of its family, all tokens of one login, so that it can be rate limited before it is
looked up.
"""

from __future__ import annotations

import hashlib
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID

import jwt

from server.errors import Unauthenticated

Role = Literal["user", "admin"]
ROLES: tuple[Role, ...] = ("user", "admin")

OWN_ISSUER = "mastery"
# How far the clock of an issuer may differ from ours. Another process of this service is an issuer too.
CLOCK_SKEW_SECONDS = 30

_ALGORITHM = "HS256"
_LATEST_EXPIRY = 253_402_300_799  # the last second of the year 9999; a time in milliseconds lies beyond it

_FAMILY_BYTES: Final = 16
_SECRET_BYTES: Final = 32
# 48 bytes are 64 characters of base64, without padding. Tokens of earlier releases are 43: the secret alone.
_LENGTH: Final = (_FAMILY_BYTES + _SECRET_BYTES) * 4 // 3


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller, with the rights that the database has on record.

    Args:
        user_id: the account.
        role: its role.
        plan: what selects its rate limits; None for the default ones.
        is_checked: whether the rights were read a moment ago; False while the database is unavailable.
    """

    user_id: UUID
    role: Role
    plan: str | None = None
    is_checked: bool = field(default=True, compare=False)
    # The id as text, made once: it is in every log line and every key.
    user_key: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "user_key", str(self.user_id))


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """What a valid token of ours names: an account, but no rights, which may have changed since it was issued.

    Args:
        user_id: the account.
        expires_at: in seconds since 1970.
        family_id: of the refresh tokens of the same login; None for tokens of earlier releases.
    """

    user_id: UUID
    expires_at: float
    family_id: UUID | None = None


class TokenRefused(Unauthenticated):
    """The access token is not valid."""

    code = "invalid_token"


class SignatureRefused(TokenRefused):
    """The access token is not signed with a key of its issuer."""


class AccessTokens:
    """Issues and verifies access tokens with one secret key."""

    def __init__(self, secret_key: str, *, lifetime_seconds: int) -> None:
        self._secret_key = secret_key
        self.lifetime_seconds = lifetime_seconds

    def issue(self, caller: Caller, *, family_id: UUID | None = None) -> str:
        """A token that names the caller, and the login it comes from, for the next `lifetime_seconds`."""
        now = datetime.now(UTC)
        claims = {
            "iss": OWN_ISSUER,
            "sub": str(caller.user_id),
            "role": caller.role,
            "iat": now,
            "exp": now + timedelta(seconds=self.lifetime_seconds),
        }
        if caller.plan is not None:
            claims["plan"] = caller.plan
        if family_id is not None:
            claims["sid"] = str(family_id)
        return jwt.encode(claims, self._secret_key, algorithm=_ALGORITHM)

    def verify(self, token: str) -> VerifiedToken:
        """The account that a token names, and until when.

        Raises:
            TokenRefused: it is malformed, expired, or not signed by this service.
        """
        claims = read_claims(
            token,
            [self._secret_key],
            algorithms=(_ALGORITHM,),
            issuer=OWN_ISSUER,
            required=("sub", "role", "iat"),
        )
        role, plan = claims["role"], claims.get("plan")
        if role not in ROLES or not (plan is None or isinstance(plan, str)):
            raise TokenRefused
        try:
            family_id = claims.get("sid")
            return VerifiedToken(
                UUID(claims["sub"]), claims["exp"], None if family_id is None else UUID(family_id)
            )
        except (ValueError, TypeError, AttributeError) as error:
            raise TokenRefused from error


def read_claims(
    token: str,
    keys: Iterable[str | jwt.PyJWK],
    *,
    algorithms: tuple[str, ...],
    issuer: str,
    required: tuple[str, ...],
    audience: str | None = None,
    any_audience: bool = False,
) -> dict[str, Any]:
    """The claims of a token that one of the keys has signed; `exp` is a number of seconds since 1970.

    Args:
        token: as it came.
        keys: to be tried in turn.
        algorithms: those that are accepted.
        issuer: what `iss` has to be.
        required: claims that must be there, beside `exp`.
        audience: what `aud` has to be or hold; None for a token that names none.
        any_audience: accept every `aud`.

    Raises:
        SignatureRefused: none of the keys has signed it.
        TokenRefused: it is malformed, expired, not valid yet, or for another audience.
    """
    for key in keys:
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=algorithms,
                issuer=issuer,
                audience=audience,
                leeway=CLOCK_SKEW_SECONDS,
                options={
                    "require": ["exp", *required],
                    "verify_aud": not any_audience,
                    "verify_jti": False,  # nothing depends on it
                },
            )
        except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError):
            continue  # another key may fit
        except jwt.ExpiredSignatureError as error:
            raise TokenRefused("The access token has expired.") from error
        except (jwt.PyJWTError, ValueError) as error:  # ValueError: characters that have no UTF-8
            raise TokenRefused from error
        expires_at = claims["exp"]
        # The library also takes text, and times that no clock can show.
        if type(expires_at) not in (int, float) or not expires_at <= _LATEST_EXPIRY:
            raise TokenRefused("The access token has no usable expiry time.")
        return claims
    raise SignatureRefused


def new_refresh_token(family_id: UUID) -> str:
    """An unguessable token of a family: 256 random bits behind the family's id."""
    return urlsafe_b64encode(family_id.bytes + secrets.token_bytes(_SECRET_BYTES)).decode()


def new_secret() -> str:
    """An unguessable token without a family: 256 random bits."""
    return secrets.token_urlsafe(_SECRET_BYTES)


def hash_of(token: str) -> bytes:
    """What the database knows a token by (SHA-256): a stolen table opens nothing."""
    return hashlib.sha256(token.encode()).digest()


def family_of(refresh_token: str) -> bytes:
    """What all tokens of a family have in common, read from the token alone.

    It says nothing about the token's validity: anyone can put a family in front of a secret that is none. A token of an
    earlier release does not contain its family; it stands for itself.
    """
    if len(refresh_token) == _LENGTH:
        with suppress(ValueError):  # not base64, or not even ASCII
            decoded = urlsafe_b64decode(refresh_token)
            if len(decoded) == _FAMILY_BYTES + _SECRET_BYTES:
                return decoded[:_FAMILY_BYTES]
    return hash_of(refresh_token)
