"""The public keys of an OpenID Connect issuer (RFC 7517), fetched when they are needed and kept while they serve."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

import aiohttp
import structlog
from jwt import PyJWK, PyJWKSet
from jwt.exceptions import PyJWKError, PyJWKSetError

from server.telemetry.request_context import outgoing_headers

log = structlog.get_logger(__name__)

# A key that was rotated out is forgotten after this long; a fetch that fails keeps what there is.
_FRESH_SECONDS = 600.0
# A stranger who invents key ids must not make us ask the issuer each time.
_COOLDOWN_SECONDS = 10.0
_TIMEOUT = aiohttp.ClientTimeout(total=3.0)
_MOST_BYTES = 1 << 20


class KeysUnavailable(Exception):
    """The issuer's keys can't be fetched, and none are known."""


class KeySet:
    """The keys behind one JWKS URL."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._keys: dict[str | None, PyJWK] = {}
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, key_id: str | None) -> PyJWK | None:
        """The key with an id, fetched anew if it is not known or the keys are old; None if the issuer has none.

        Raises:
            KeysUnavailable: there are no keys yet, and the issuer does not answer.
        """
        if key_id not in self._keys or self._is_old():
            await self._refresh()
        if self._fetched_at is None:
            raise KeysUnavailable
        return self._keys.get(key_id)

    async def close(self) -> None:
        """End a fetch that is under way."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)

    def _is_old(self) -> bool:
        return self._fetched_at is None or monotonic() - self._fetched_at > _FRESH_SECONDS

    async def _refresh(self) -> None:
        """One fetch at a time, and none within the cool-down of the one before."""
        if self._fetching is None:
            if self._tried_at is not None and monotonic() - self._tried_at < _COOLDOWN_SECONDS:
                return
            self._tried_at = monotonic()
            self._fetching = asyncio.get_running_loop().create_task(self._fetch(), name="jwks")
        try:
            await asyncio.shield(self._fetching)
        finally:
            if self._fetching is not None and self._fetching.done():
                self._fetching = None

    async def _fetch(self) -> None:
        try:
            async with (
                aiohttp.ClientSession(timeout=_TIMEOUT) as session,
                session.get(self._url, allow_redirects=False, headers=outgoing_headers()) as response,
            ):
                response.raise_for_status()
                body = await response.content.read(_MOST_BYTES)
            keys = PyJWKSet.from_json(body.decode()).keys
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, PyJWKError, PyJWKSetError) as error:
            log.warning("jwks.fetch_failed", error=type(error).__name__, keys_known=len(self._keys))
            return
        self._keys = {_id_of(key): key for key in keys}
        self._fetched_at = monotonic()
        log.info("jwks.fetched", keys=len(self._keys))


def _id_of(key: PyJWK) -> str | None:
    key_id: Any = key.key_id
    return key_id if isinstance(key_id, str) else None
