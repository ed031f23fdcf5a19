"""Access tokens of an external OpenID Connect issuer, such as Clerk or Auth0."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import jwt

from server.domain.tokens import TokenRefused
from server.errors import ServiceUnavailable
from server.stores.key_sets import KeySet, KeysUnavailable

# Asymmetric only: with a public key, HS256 would let anybody sign (RFC 8725, section 2.1).
_ALGORITHMS = ("RS256", "ES256")
_LEEWAY_SECONDS = 30


@dataclass(frozen=True, slots=True)
class ExternalIdentity:
    """Whom an external token names."""

    issuer: str
    subject: str
    email: str | None
    name: str | None
    expires_at: datetime


class ExternalTokens:
    """Verifies the tokens of one issuer, for one audience or, where the issuer names none, for any."""

    def __init__(self, keys: KeySet, *, issuer: str, audience: str | None) -> None:
        self.issuer = issuer
        self._keys = keys
        self._audience = audience

    async def close(self) -> None:
        """End what is under way."""
        await self._keys.close()

    async def verify(self, token: str) -> ExternalIdentity:
        """The identity in a token.

        Raises:
            TokenRefused: it is malformed, expired, for another audience, or not signed by the issuer.
            ServiceUnavailable: the issuer's keys are not known and can't be fetched now.
        """
        try:
            key_id = jwt.get_unverified_header(token).get("kid")
            key = await self._keys.find(key_id)
        except jwt.InvalidTokenError as error:
            raise TokenRefused from error
        except KeysUnavailable as error:
            raise ServiceUnavailable("The identity provider does not answer.") from error
        if key is None:
            raise TokenRefused("The access token is signed with a key that its issuer does not know.")
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=_ALGORITHMS,
                issuer=self.issuer,
                audience=self._audience,
                leeway=_LEEWAY_SECONDS,
                options={"require": ["sub", "exp", "iat"], "verify_aud": self._audience is not None},
            )
        except jwt.ExpiredSignatureError as error:
            raise TokenRefused("The access token has expired.") from error
        except (jwt.InvalidTokenError, ValueError) as error:
            raise TokenRefused from error
        return ExternalIdentity(
            self.issuer,
            claims["sub"],
            _text(claims, "email") if claims.get("email_verified", True) is True else None,
            _text(claims, "name"),
            datetime.fromtimestamp(claims["exp"], UTC),
        )


def _text(claims: dict[str, Any], name: str) -> str | None:
    value = claims.get(name)
    return value if isinstance(value, str) and value else None
