"""The errors of a Redis call: Redis can't serve it now, or the call itself is wrong."""

from __future__ import annotations

import asyncio
import re
from typing import Any, TypeAlias

Reply: TypeAlias = Any
"""What Redis answers in RESP2: bytes (status lines too), int, None, or a list of these, in which an error is
an instance of RedisReplyError or RedisUnavailable."""

Argument: TypeAlias = bytes | str | int | float
"""What a command is made of; text is sent as UTF-8."""

# Error replies that say: not now, not here, and nothing was executed.
_UNAVAILABLE = {
    "BUSY": "busy",
    "CLUSTERDOWN": "clusterdown",
    "LOADING": "loading",
    "MASTERDOWN": "masterdown",
    "MISCONF": "misconf",
    "NOAUTH": "auth",
    "NOREPLICAS": "noreplicas",
    "OOM": "oom",
    "READONLY": "readonly",
    "TRYAGAIN": "tryagain",
    "WRONGPASS": "auth",
}
# Before version 7, an error that stopped a script arrives as "ERR Error running script (call to f_…):
# @user_script:1: @user_script: 1: -OOM command…". Redis denies writes so only before a script's first one.
_INSIDE_SCRIPT = re.compile(r"^ERR Error running script .*?: -(?P<code>[A-Z]+) ")


class RedisUnavailable(Exception):
    """Redis can't serve this call now.

    Args:
        reason: a stable short word: `refused`, `timeout`, `lost`, `stalled`, `backlog`, `closed`, `auth`,
            `tls`, `dns`, `protocol`, `no-master`, `starting`, or an error reply such as `loading`, `oom`.
        outcome_unknown: the command was written and no reply came: it may have been executed, or may yet be.
        node: the server that can't serve, as `RedisLink.node_of` names it.
    """

    def __init__(self, reason: str, *, outcome_unknown: bool = False, node: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.outcome_unknown = outcome_unknown
        self.node = node


class RedisReplyError(Exception):
    """Redis refused a command for what it is; `code` is the first word of `message`, such as `WRONGTYPE`."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.code = message.partition(" ")[0]


def error_from_reply(message: str) -> RedisUnavailable | RedisReplyError:
    """Return the exception for the text of an error reply."""
    code = message.partition(" ")[0]
    if code == "ERR":
        if message.startswith("ERR max number of clients"):
            return RedisUnavailable("refused")
        inside = _INSIDE_SCRIPT.match(message)
        if inside is not None:
            code = inside["code"]
    reason = _UNAVAILABLE.get(code)
    return RedisReplyError(message) if reason is None else RedisUnavailable(reason)


def fail(future: asyncio.Future[Reply], error: Exception) -> None:
    """End a future with an error that may go unread: a caller may have dropped the future."""
    future.set_exception(error)
    future.exception()  # marks it as retrieved
