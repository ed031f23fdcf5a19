"""Access tokens of an external OpenID Connect issuer, such as Clerk or Auth0."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import jwt

from server.domain.identity.key_sets import ALGORITHMS, KeySet, KeysUnavailable
from server.domain.identity.tokens import SignatureRefused, TokenRefused, read_claims
from server.errors import ServiceUnavailable

# OpenID Connect Core, section 2; the index of the column could not hold a much longer one either.
_LONGEST_SUBJECT = 255
_LONGEST_NAME = 255
_LONGEST_EMAIL = 254
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")
# What PostgreSQL can't hold (U+0000, lone surrogates), and what no name or address has.
_UNUSABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]+")


@dataclass(frozen=True, slots=True)
class ExternalIdentity:
    """Whom an external token names.

    Args:
        issuer: `iss`.
        subject: `sub`, as it came: with the issuer it is the person.
        email: a verified address that can be stored, or None.
        name: what can be shown of the name, or None.
        expires_at: in seconds since 1970.
    """

    issuer: str
    subject: str
    email: str | None
    name: str | None
    expires_at: float


class ExternalTokens:
    """Verifies the tokens of one issuer."""

    def __init__(
        self, keys: KeySet, *, issuer: str, audience: str | None, authorized_parties: Collection[str] = ()
    ) -> None:
        """Args: keys: the issuer's; issuer: its name, as in `iss`; audience: what `aud` must hold, None for anything.

        authorized_parties: what `azp` may be; empty for anything.
        """
        self.issuer = issuer
        self._keys = keys
        self._audience = audience
        self._authorized_parties = frozenset(authorized_parties)

    async def close(self) -> None:
        """End what is under way."""
        await self._keys.close()

    async def verify(self, token: str) -> ExternalIdentity:
        """The identity in a token.

        A claim that decides (`exp`, `sub`, `aud`, `azp` …) has to be usable. One that only decorates (`email`, `name`)
        is cleaned or left out: it never keeps its owner from coming in.

        Raises:
            TokenRefused: it is malformed, expired, for somebody else, or not signed by the issuer.
            ServiceUnavailable: the issuer's keys are not known and can't be fetched now.
        """
        try:
            key_id = jwt.get_unverified_header(token).get("kid")
        except (jwt.PyJWTError, ValueError) as error:  # ValueError: characters that have no UTF-8
            raise TokenRefused from error
        try:
            claims = await self._read_claims(token, key_id)
        except KeysUnavailable as error:
            raise ServiceUnavailable("The identity provider does not answer.") from error
        subject = claims["sub"]
        if not subject or len(subject) > _LONGEST_SUBJECT or _UNUSABLE.search(subject):
            raise TokenRefused("The access token names no usable subject.")
        party = claims.get("azp")
        if self._authorized_parties and not (isinstance(party, str) and party in self._authorized_parties):
            raise TokenRefused("The access token was issued to another client.")
        return ExternalIdentity(self.issuer, subject, _email(claims), _name(claims), claims["exp"])

    async def _read_claims(self, token: str, key_id: str | None) -> dict[str, Any]:
        keys = await self._keys.find(key_id)
        try:
            return self._read_claims_with(token, keys)
        except SignatureRefused:
            # An issuer may change a key without a new id, or give its keys none.
            if not await self._keys.refresh():
                raise
        return self._read_claims_with(token, await self._keys.find(key_id))

    def _read_claims_with(self, token: str, keys: list[jwt.PyJWK]) -> dict[str, Any]:
        return read_claims(
            token,
            keys,
            algorithms=ALGORITHMS,
            issuer=self.issuer,
            required=("sub", "iat"),
            audience=self._audience,
            any_audience=self._audience is None,
        )


def _email(claims: dict[str, Any]) -> str | None:
    """The address, unless the issuer says that it is not verified; some write that `true` as text."""
    email, verified = claims.get("email"), claims.get("email_verified", True)
    if not isinstance(email, str) or not (verified is True or verified == "true"):
        return None
    email = email.strip()
    usable = len(email) <= _LONGEST_EMAIL and _EMAIL.fullmatch(email) and not _UNUSABLE.search(email)
    return email if usable else None


def _name(claims: dict[str, Any]) -> str | None:
    name = claims.get("name")
    if not isinstance(name, str):
        return None
    return _UNUSABLE.sub(" ", name).strip()[:_LONGEST_NAME].strip() or None
