"""What a text may hold, wherever it comes from: a form, a deck file, a folder's name."""

from __future__ import annotations

import re

# Every control character but tab and line feed; and surrogates, which no UTF-8 can hold.
_FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def clean_text(text: str) -> str:
    """A text without the white space around it, its Windows line breaks as line feeds."""
    return text.replace("\r\n", "\n").strip()


def find_forbidden(text: str) -> str | None:
    """The first character that a text may not hold, such as U+001B; None in most texts."""
    found = _FORBIDDEN.search(text)
    return None if found is None else f"U+{ord(found[0]):04X}"
