"""What goes wrong in a command without being a bug."""

from __future__ import annotations


class CommandError(Exception):
    """A command can't do what it was asked; the message is a sentence: what is wrong, what would help."""
