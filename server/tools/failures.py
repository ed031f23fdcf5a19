"""What goes wrong in a command without being a bug."""

from __future__ import annotations


class CommandFailed(Exception):
    """A command can't do what it was asked; the message says in a sentence what is wrong and what would help."""
