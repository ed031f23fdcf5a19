"""E-mail addresses: the one form in which they are stored, compared and counted."""

from __future__ import annotations

import unicodedata


def normal_email(email: str) -> str:
    """The form of an address that all of its spellings share.

    Compatibility forms (NFKC), capitals and blanks around an address make no other address. Letters that merely fold
    alike (`ß` and `ss`) do: they may be two people's mailboxes.

    Args:
        email: an address as somebody wrote it.

    Returns:
        the normal form; the normal form of a normal form is itself.
    """
    # Lowering can take a text out of NFKC, and NFKC can turn a character into a blank.
    lowered = unicodedata.normalize("NFKC", email).lower()
    return unicodedata.normalize("NFKC", lowered).strip()


def stored_spelling(email: str) -> str:
    """The form in which the first releases have stored an address (before migration 0011): without NFKC."""
    return email.strip().lower()
