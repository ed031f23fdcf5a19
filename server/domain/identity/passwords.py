"""Passwords, hashed by Argon2id (RFC 9106) outside of the event loop: two at a time, behind a queue with an end."""

from __future__ import annotations

import asyncio
import hmac
import secrets
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeVar

from argon2 import PasswordHasher, extract_parameters
from argon2 import low_level as argon2_low_level
from argon2.exceptions import VerificationError

from server.errors import ClientDisconnected, ServiceUnavailable

Result = TypeVar("Result")

# A hash takes 64 MiB and about a seventh of a second of one core: more at once would only starve the requests.
AT_ONCE: Final = 2
# What stands behind more than these would wait for longer than a person does.
MOST_WAITING: Final = 64
PATIENCE_SECONDS: Final = 5.0

# In characters.
SHORTEST: Final = 12
LONGEST: Final = 128

Wanted = Callable[[], bool]


class PasswordQueueFull(ServiceUnavailable):
    """Too many passwords are being checked at the moment; try again shortly."""

    code = "too_many_passwords"


@dataclass(slots=True, eq=False)
class _Place:
    """A place in the queue: its turn, and whether its client is still there."""

    turn: asyncio.Future[None]
    wanted: Wanted


def always() -> bool:
    """For work without a client that could hang up."""
    return True


class Passwords:
    """Hashes and checks passwords, a few at a time and in the order in which they come.

    Args:
        most_waiting: how many may wait for their turn.
        patience_seconds: how long each waits at the most.
    """

    def __init__(
        self, *, most_waiting: int = MOST_WAITING, patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        # One thread a hash: with four lanes, two logins would take eight cores.
        self._hasher = PasswordHasher(parallelism=1)
        self._most_waiting = most_waiting
        self._patience_seconds = patience_seconds
        self._running = 0
        self._queue: deque[_Place] = deque()
        # Checked when there is no account, so that an unknown address takes as long as a wrong password.
        self._nobodys_hash = _hash_of_nothing(self._hasher)

    async def hash(self, password: str, *, wanted: Wanted = always) -> str:
        """The PHC string to store for a password.

        Args:
            password: any text.
            wanted: whether the client still waits; asked when the turn has come.

        Raises:
            PasswordQueueFull: too many are waiting, or the turn did not come in time.
            ClientDisconnected: the client has hung up.
        """
        return await self._in_turn(lambda: self._hasher.hash(password), wanted)

    async def matches(self, password_hash: str | None, password: str, *, wanted: Wanted = always) -> bool:
        """Whether a password is the one of a hash; takes the same time when there is no hash, and says no.

        The arguments and errors are those of `hash`.
        """
        return await self._in_turn(lambda: self._check(password_hash, password), wanted)

    def is_outdated(self, password_hash: str) -> bool:
        """Whether a hash that matches should be replaced by a new one of the same password."""
        return self._hasher.check_needs_rehash(password_hash)

    def _check(self, password_hash: str | None, password: str) -> bool:
        if password_hash is not None:
            with suppress(ValueError):  # what is no hash takes as long as none
                return self._is_hash_of(password, password_hash)
        self._is_hash_of(password, self._nobodys_hash)
        return False

    def _is_hash_of(self, password: str, password_hash: str) -> bool:
        try:
            if extract_parameters(password_hash).parallelism > 1:
                return _matches_in_one_thread(password_hash, password)
            return self._hasher.verify(password_hash, password)
        except VerificationError:
            return False

    async def _in_turn(self, work: Callable[[], Result], wanted: Wanted) -> Result:
        await self._take_turn(wanted)
        if not wanted():
            self._pass_turn()
            raise ClientDisconnected
        computed = asyncio.ensure_future(asyncio.to_thread(work))
        # The turn ends with the thread: a cancelled request does not stop it.
        computed.add_done_callback(lambda _: self._pass_turn())
        return await asyncio.shield(computed)

    async def _take_turn(self, wanted: Wanted) -> None:
        if self._running < AT_ONCE:
            self._running += 1
            return None
        if len(self._queue) >= self._most_waiting:
            self._send_away_the_gone()
        if len(self._queue) >= self._most_waiting:
            raise PasswordQueueFull(retry_after_seconds=int(PATIENCE_SECONDS))
        place = _Place(asyncio.get_running_loop().create_future(), wanted)
        self._queue.append(place)
        try:
            async with asyncio.timeout(self._patience_seconds):
                await place.turn
        except TimeoutError:
            if not place.turn.cancelled():  # it came at the same moment
                return place.turn.result()
            self._forget(place)
            raise PasswordQueueFull(retry_after_seconds=int(PATIENCE_SECONDS)) from None
        except asyncio.CancelledError:
            self._forget(place)
            if not place.turn.cancelled() and place.turn.exception() is None:
                self._pass_turn()
            raise

    def _forget(self, place: _Place) -> None:
        if place in self._queue:
            self._queue.remove(place)

    def _pass_turn(self) -> None:
        """A turn is over: the next in the queue has it, but for those whose client has gone."""
        while self._queue:
            place = self._queue.popleft()
            if place.turn.done():  # its time is up
                continue
            if place.wanted():
                place.turn.set_result(None)
                return
            place.turn.set_exception(ClientDisconnected())
        self._running -= 1

    def _send_away_the_gone(self) -> None:
        waiting = [*self._queue]
        self._queue.clear()
        for place in waiting:
            if place.turn.done() or place.wanted():
                self._queue.append(place)
            else:
                place.turn.set_exception(ClientDisconnected())


def _hash_of_nothing(hasher: PasswordHasher) -> str:
    """A hash with a hasher's parameters that no password matches: it is random itself."""
    salt, digest = (
        b64encode(secrets.token_bytes(size)).decode().rstrip("=")
        for size in (hasher.salt_len, hasher.hash_len)
    )
    parameters = f"m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
    return f"$argon2id$v={argon2_low_level.ARGON2_VERSION}${parameters}${salt}${digest}"


def _matches_in_one_thread(password_hash: str, password: str) -> bool:
    """Check a hash of several lanes, as they were made before, in one thread: its lanes need not run at once.

    The library's own check takes a thread a lane. A wrong password would be answered sooner than an unknown address,
    whose hash has one lane, and two logins would keep eight cores busy.

    Raises:
        VerificationError: it can't be computed.
        ValueError: it is no hash.
    """
    parameters = extract_parameters(password_hash)
    salt, expected = (_decode(part) for part in password_hash.split("$")[-2:])
    ffi = argon2_low_level.ffi
    secret = password.encode()
    output = ffi.new("uint8_t[]", len(expected))
    salt_bytes, secret_bytes = ffi.new("uint8_t[]", salt), ffi.new("uint8_t[]", secret)
    context = ffi.new(
        "argon2_context *",
        {
            "out": output,
            "outlen": len(expected),
            "pwd": secret_bytes,
            "pwdlen": len(secret),
            "salt": salt_bytes,
            "saltlen": len(salt),
            "secret": ffi.NULL,
            "secretlen": 0,
            "ad": ffi.NULL,
            "adlen": 0,
            "t_cost": parameters.time_cost,
            "m_cost": parameters.memory_cost,
            "lanes": parameters.parallelism,
            "threads": 1,
            "version": parameters.version,
            "allocate_cbk": ffi.NULL,
            "free_cbk": ffi.NULL,
            "flags": 0,
        },
    )
    code = argon2_low_level.core(context, parameters.type.value)
    if code != 0:
        raise VerificationError(argon2_low_level.error_to_str(code))
    return hmac.compare_digest(bytes(ffi.buffer(output)), expected)


def _decode(text: str) -> bytes:
    return b64decode(text + "=" * (-len(text) % 4))
