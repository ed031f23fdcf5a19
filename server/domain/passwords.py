"""Passwords, hashed by Argon2id (RFC 9106) outside of the event loop."""

from __future__ import annotations

import asyncio

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

# A hash takes 64 MiB and about a tenth of a second of one core: more at once would only starve the requests.
_AT_ONCE = 2


class Passwords:
    """Hashes and checks passwords, a few at a time."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher()
        self._turn = asyncio.Semaphore(_AT_ONCE)
        # Checked when there is no account, so that an unknown address takes as long as a wrong password.
        self._nobodys_hash = self._hasher.hash("nobody has this password")

    async def hash(self, password: str) -> str:
        """The PHC string to store for a password."""
        async with self._turn:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def matches(self, password_hash: str | None, password: str) -> bool:
        """Whether a password is the one of a hash; takes the same time when there is no hash, and says no."""
        async with self._turn:
            return await asyncio.to_thread(self._check, password_hash, password)

    def _check(self, password_hash: str | None, password: str) -> bool:
        try:
            self._hasher.verify(password_hash or self._nobodys_hash, password)
        except (VerificationError, InvalidHashError):
            return False
        return password_hash is not None
