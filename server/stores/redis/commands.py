"""Commands that are sent again and again: put into Redis's protocol (RESP) once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import hiredis

from server.stores.redis.errors import Argument
from server.stores.redis.scripts import Script

Command = tuple[Argument, ...]


class PreparedCommand(tuple[Argument, ...]):  # noqa: SLOT001 - a tuple can't have slots
    """A command, its name first, with the bytes that it is sent as.

    Raises:
        TypeError: an argument is neither bytes, text nor a number.
    """

    packed: bytes

    def __new__(cls, *arguments: Argument) -> Self:
        """Pack the command."""
        command = super().__new__(cls, arguments)
        command.packed = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub means any length
        return command


class ScriptCall:
    """A script with its operands, to be run any number of times.

    Args:
        script: what to run.
        keys: its KEYS; with a Cluster all in one slot.
        args: its ARGV.
    """

    __slots__ = ("command", "operands", "script")

    def __init__(self, script: Script, keys: Sequence[bytes | str], args: Sequence[Argument]) -> None:
        self.script = script
        self.operands: Command = (len(keys), *keys, *args)
        self.command = PreparedCommand("EVALSHA", script.sha1, *self.operands)


def pack(command: Command) -> bytes:
    """The bytes of a command.

    Raises:
        TypeError: an argument is neither bytes, text nor a number.
    """
    if type(command) is PreparedCommand:
        return command.packed
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub means any length
    return packed
