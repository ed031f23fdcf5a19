"""Access tokens of an external OpenID Connect issuer, such as Clerk or Auth0.

Its public keys (RFC 7517) are fetched when a token needs one, and kept.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection
from dataclasses import dataclass
from time import monotonic
from typing import Any

import aiohttp
import jwt
import orjson
import structlog
from jwt import PyJWK, PyJWTError

from server.domain.identity.tokens import SignatureRefused, TokenRefused, read_claims
from server.errors import ServiceUnavailable
from server.telemetry.context import outgoing_headers

log = structlog.get_logger(__name__)

# The algorithm and the public members by type and curve of a key. Asymmetric only: with a public key, HS256 would let
# anybody sign (RFC 8725, section 2.1). The key decides about the algorithm, never the token.
_KINDS: dict[tuple[Any, Any], tuple[str, tuple[str, ...]]] = {
    ("RSA", None): ("RS256", ("n", "e")),
    ("EC", "P-256"): ("ES256", ("crv", "x", "y")),
}
ALGORITHMS = tuple(algorithm for algorithm, _ in _KINDS.values())
_RSA_BITS = range(2048, 16_384 + 1)  # RFC 7518, section 3.3, and what OpenSSL computes with

# Keys are fetched anew when they are this old. A key that was withdrawn is refused after twice that, unless the
# issuer does not answer: then what is known goes on serving.
_FRESH_SECONDS = 300.0
# Invented key ids must not make us ask the issuer each time. Without any keys the wait is a tenth.
_COOLDOWN_SECONDS = 10.0
_TIMEOUT = aiohttp.ClientTimeout(total=3.0)
_MOST_BYTES = 1 << 20
_MOST_KEYS = 100  # each may be tried for a token that names none
_BOM = b"\xef\xbb\xbf"

# OpenID Connect Core, section 2; the index of the column could not hold a much longer one either.
_LONGEST_SUBJECT = 255
_LONGEST_NAME = 255
_LONGEST_EMAIL = 254
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")
# What PostgreSQL can't hold (U+0000, lone surrogates), and what no name or address has.
_UNUSABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]+")


class KeysUnavailable(Exception):
    """The issuer's keys can't be fetched, and none are known."""


class _Unusable(ValueError):
    """A key, or a whole document, that can't be used; the message says why."""


class KeySet:
    """The keys behind one JWKS URL.

    Args:
        url: it is asked directly; a redirection is not followed.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._keys: list[PyJWK] = []
        self._skipped: frozenset[str] = frozenset()
        self._version = 0
        self._fetched_at = 0.0
        self._tried_at: float | None = None
        self._is_failing = False
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, key_id: str | None) -> list[PyJWK]:
        """The keys that may have signed a token, fetched anew if there are none or they are old.

        Args:
            key_id: the token's `kid`. Keys without one may belong to every token, and to a token without one may
                belong every key.

        Raises:
            KeysUnavailable: there are no keys yet, and the issuer does not answer.
        """
        age_seconds = monotonic() - self._fetched_at
        if not self._matching(key_id) or (age_seconds > 2 * _FRESH_SECONDS and not self._is_failing):
            await self.refresh()
        elif age_seconds > _FRESH_SECONDS:
            self._start_fetching()  # in the background
        if not self._keys:
            raise KeysUnavailable
        return self._matching(key_id)

    async def refresh(self) -> bool:
        """Fetch the keys, unless that was tried a moment ago; whether it brought others than before."""
        version = self._version
        self._start_fetching()
        if self._fetching is not None:
            await asyncio.shield(self._fetching)
        return self._version != version

    async def close(self) -> None:
        """End a fetch that is under way."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)

    def _matching(self, key_id: str | None) -> list[PyJWK]:
        named = [key for key in self._keys if key.key_id == key_id]
        return named or [key for key in self._keys if key_id is None or key.key_id is None]

    def _start_fetching(self) -> None:
        """One fetch at a time, and none within the cool-down of the one before."""
        if self._fetching is not None:
            return
        cooldown_seconds = _COOLDOWN_SECONDS if self._keys else _COOLDOWN_SECONDS / 10
        if self._tried_at is not None and monotonic() - self._tried_at < cooldown_seconds:
            return
        self._fetching = asyncio.get_running_loop().create_task(self._fetch(), name="jwks")
        self._fetching.add_done_callback(self._end_fetching)

    def _end_fetching(self, _task: asyncio.Task[None]) -> None:
        self._tried_at = monotonic()
        self._fetching = None

    async def _fetch(self) -> None:
        try:
            keys, skipped = _read_keys(await self._download())
        except (aiohttp.ClientError, OSError, ValueError) as error:  # TimeoutError is an OSError
            self._is_failing = True
            reason = str(error) if isinstance(error, _Unusable) else type(error).__name__
            log.warning("jwks.fetch_failed", error=reason, keys_known=len(self._keys))
            return
        self._is_failing = False
        self._fetched_at = monotonic()
        for problem in skipped - self._skipped:  # once, not with every fetch
            log.warning("jwks.key_skipped", error=problem)
        self._skipped = skipped
        if [_members(key) for key in keys] != [_members(key) for key in self._keys]:
            self._keys = keys
            self._version += 1
        log.info("jwks.fetched", keys=len(keys), skipped=len(skipped))

    async def _download(self) -> bytes:
        async with (
            aiohttp.ClientSession(timeout=_TIMEOUT) as session,
            session.get(self._url, allow_redirects=False, headers=outgoing_headers()) as response,
        ):
            if response.status != 200:
                raise _Unusable(f"status {response.status}")
            body = bytearray()
            async for (
                piece
            ) in response.content.iter_any():  # read(n) would give what has arrived, not the whole
                body += piece
                if len(body) > _MOST_BYTES:
                    raise _Unusable("more than 1 MiB")
            return bytes(body)


def _read_keys(document: bytes) -> tuple[list[PyJWK], frozenset[str]]:
    """The keys of a JWKS document that can verify a token, and what is wrong with the others.

    Raises:
        _Unusable: it is no such document, or none of its keys can be used.
    """
    content = orjson.loads(document.removeprefix(_BOM))
    entries = content.get("keys") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise _Unusable("no list of keys")
    keys: list[PyJWK] = []
    skipped = {f"more than {_MOST_KEYS} keys"} if len(entries) > _MOST_KEYS else set()
    for entry in entries[:_MOST_KEYS]:
        try:
            keys.append(_read_key(entry))
        except _Unusable as error:
            key_id = entry.get("kid") if isinstance(entry, dict) else None
            skipped.add(f"{str(key_id)[:100]}: {error}")
    if not keys:
        raise _Unusable("no usable key")
    return keys, frozenset(skipped)


def _read_key(entry: Any) -> PyJWK:
    if not isinstance(entry, dict):
        raise _Unusable("not an object")
    names = [entry.get(name) for name in ("kty", "crv", "alg", "use", "kid")]
    if not all(name is None or isinstance(name, str) for name in names):
        raise _Unusable("malformed")
    type_, curve, stated_algorithm, use, key_id = names
    if (type_, curve) not in _KINDS:
        raise _Unusable("neither RSA nor P-256")
    algorithm, members = _KINDS[type_, curve]
    if stated_algorithm not in {None, algorithm}:
        raise _Unusable(f"not for {algorithm}")
    operations = entry.get("key_ops", ["verify"])
    if use not in {None, "sig"} or not isinstance(operations, list) or "verify" not in operations:
        raise _Unusable("not for signatures")
    try:
        key = PyJWK({"kty": type_, "kid": key_id, **{name: entry.get(name) for name in members}}, algorithm)
    except PyJWTError as error:
        raise _Unusable("malformed") from error
    if algorithm == "RS256" and key.key.key_size not in _RSA_BITS:
        raise _Unusable(f"{key.key.key_size} bits")
    return key


def _members(key: PyJWK) -> tuple[str | None, Any]:
    return key.key_id, key.key.public_numbers()


@dataclass(frozen=True, slots=True)
class ExternalIdentity:
    """The identity that an external token names.

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
            TokenRefused: it is malformed, expired, for another audience, or not signed by the issuer.
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
