"""Finds secrets in log events: by the name of a field at any depth, and inside texts."""

from __future__ import annotations

import re
from functools import lru_cache

REDACTED = "[redacted]"

# A key is secret when its last word is one of these: `refreshToken` and `set-cookie` are, `token_count` is
# not; or when it is a kind of key that opens something: `X-Api-Key` is, `cacheKey` is not. A carrier at the
# end does not change that: `password_hash` is secret.
_SECRET_WORDS = frozenset({
    "password", "passwords", "passwd", "passphrase", "passcode", "pwd", "pass", "pin", "otp", "secret",
    "secrets", "token", "tokens", "jwt", "jwts", "bearer", "auth", "authorization", "cookie", "cookies",
    "credential", "credentials", "apikey", "apikeys", "accesskey", "secretkey", "privatekey",
})  # fmt: skip
_OPENING_KEYS = frozenset({"api", "private", "secret", "access", "signing", "encryption", "master", "auth"})
_CARRIERS = frozenset(
    {"hash", "digest", "value", "header", "text", "raw", "string", "plain", "encoded", "base64"}
)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")

# One look decides whether a text needs the patterns below; nearly none does.
_SUSPECT = re.compile(
    r"://|eyJ|bearer|basic|passw|passphrase|pwd|secret|token|api.?key|authorization|cookie", re.IGNORECASE
)
_PATTERNS = (
    # Header lines: everything to the end of the line or of the quoted string.
    (
        re.compile(
            r"((?:authorization|cookie)(?:['\"]?\s{0,3}[:=]|['\"],)\s{0,3})(b?['\"]|)[^\r\n'\"]+",
            re.IGNORECASE,
        ),
        rf"\1\2{REDACTED}",
    ),
    # `Bearer x`, but not the prose "a Bearer token is required".
    (
        re.compile(
            r"\b(bearer\s{1,3})"
            r"(?!(?:tokens?|auth\w*|scheme|realm|headers?|credentials?|is|or|and|required)\b)[\w.~+/=\-]+",
            re.IGNORECASE,
        ),
        rf"\1{REDACTED}",
    ),
    (re.compile(r"\b(basic\s{1,3})(?=[a-z+/]*[0-9=])[a-z0-9+/]{6,}={0,2}", re.IGNORECASE), rf"\1{REDACTED}"),
    # A JSON Web Token, also one whose end is cut off.
    (re.compile(r"eyJ[\w\-]{8,}(?:\.[\w\-]*){0,4}"), REDACTED),
    # The password of scheme://user:password@host; after a port comes a path, not a password.
    (
        re.compile(r"(?<=://)([^\s/?#\"'<>:@]*):(?!\d{1,5}(?:[/?#,\s]|$))[^\s\"'<>]*@"),
        rf"\1:{REDACTED}@",
    ),
    # password=x, refreshToken=x, "secret": "x"
    (
        re.compile(
            r"((?:password|passwd|passphrase|pwd|secret|token|api[_-]?key)"
            r"(?:['\"]?\s{0,3}=|['\"]\s{0,3}:)\s{0,3})(?:(['\"])[^'\"\r\n]+|[^\s'\"&,;)}\]]+)",
            re.IGNORECASE,
        ),
        rf"\1\2{REDACTED}",
    ),
)


@lru_cache(maxsize=4096)
def is_secret_key(key: str) -> bool:
    """Whether the value under this key must never be shown, whatever it is."""
    words = [word.lower() for word in _WORD.findall(key)]
    while len(words) > 1 and words[-1] in _CARRIERS:
        words.pop()
    if not words:
        return False
    if words[-1] in {"key", "keys"}:
        return len(words) > 1 and words[-2] in _OPENING_KEYS
    return words[-1] in _SECRET_WORDS


def redact(text: str) -> str:
    """The text without credentials: Bearer, Basic, JSON Web Tokens, cookies, passwords of URLs and DSNs."""
    # Every pattern needs one of these and a mere id has none. Written out, for this runs for each text of each line.
    if not (" " in text or ":" in text or "=" in text or "eyJ" in text or "\n" in text or "\t" in text):
        return text
    if _SUSPECT.search(text) is None:
        return text
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text
