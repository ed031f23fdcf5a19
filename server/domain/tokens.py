"""Access tokens: JSON Web Tokens (RFC 7519) that the service signs with its own key."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal, cast
from uuid import UUID

import jwt

from server.errors import Unauthenticated

Role = Literal["user", "admin"]
ROLES: tuple[Role, ...] = ("user", "admin")

_ALGORITHM = "HS256"
_ISSUER = "mastery"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a valid token says is calling."""

    user_id: UUID
    role: Role
    plan: str | None = None
    # The id as text, made once: it is in every log line and every key.
    user_key: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "user_key", str(self.user_id))


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """What a valid token of ours says."""

    caller: Caller
    expires_at: datetime


class TokenRefused(Unauthenticated):
    """The access token is not valid."""

    code = "invalid_token"


class AccessTokens:
    """Issues and verifies access tokens with one secret key."""

    def __init__(self, secret_key: str, *, lifetime_seconds: int) -> None:
        self._secret_key = secret_key
        self.lifetime_seconds = lifetime_seconds

    def issue(self, caller: Caller) -> str:
        """A token that names the caller for the next `lifetime_seconds`."""
        now = datetime.now(UTC)
        claims = {
            "iss": _ISSUER,
            "sub": str(caller.user_id),
            "role": caller.role,
            "iat": now,
            "exp": now + timedelta(seconds=self.lifetime_seconds),
        }
        if caller.plan is not None:
            claims["plan"] = caller.plan
        return jwt.encode(claims, self._secret_key, algorithm=_ALGORITHM)

    def verify(self, token: str) -> VerifiedToken:
        """The caller that a token names, and until when.

        Raises:
            TokenRefused: it is malformed, expired, or not signed by this service.
        """
        try:
            claims = jwt.decode(
                token,
                self._secret_key,
                algorithms=[_ALGORITHM],
                issuer=_ISSUER,
                options={"require": ["sub", "role", "exp", "iat"]},
            )
            user_id = UUID(claims["sub"])
        except jwt.ExpiredSignatureError as error:
            raise TokenRefused("The access token has expired.") from error
        except (jwt.InvalidTokenError, ValueError) as error:
            raise TokenRefused from error
        role, plan = claims["role"], claims.get("plan")
        if role not in ROLES or not (plan is None or isinstance(plan, str)):
            raise TokenRefused
        expires_at = datetime.fromtimestamp(claims["exp"], UTC)
        return VerifiedToken(Caller(user_id, cast("Role", role), plan), expires_at)
