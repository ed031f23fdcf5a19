"""Passwords for tests that are not about their cost."""

from __future__ import annotations

import threading

from argon2 import PasswordHasher

from server.domain.identity.passwords import Passwords


class QuickPasswords(Passwords):
    """Passwords whose hashes are real and cheap, for tests that are not about their cost. `hold` keeps the threads."""

    def __init__(self) -> None:
        super().__init__()
        self._hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
        self._nobodys_hash = self._hasher.hash("nobody has this password")
        self.go = threading.Event()
        self.go.set()
        self.checked: list[str] = []

    def _check(self, password_hash: str | None, password: str) -> bool:
        self.checked.append(password)
        assert self.go.wait(60)
        return super()._check(password_hash, password)
