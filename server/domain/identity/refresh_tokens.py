"""Refresh tokens: opaque to clients; each begins with its family, so that it can be counted before it is looked up."""

from __future__ import annotations

import hashlib
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from contextlib import suppress
from typing import Final
from uuid import UUID

_FAMILY_BYTES: Final = 16
_SECRET_BYTES: Final = 32
# 48 bytes are 64 characters of base64, without padding. Tokens of earlier releases are 43: the secret alone.
_LENGTH: Final = (_FAMILY_BYTES + _SECRET_BYTES) * 4 // 3


def new_refresh_token(family_id: UUID) -> str:
    """A token of a family that nobody can guess: 256 random bits behind the family's id."""
    return urlsafe_b64encode(family_id.bytes + secrets.token_bytes(_SECRET_BYTES)).decode()


def new_secret() -> str:
    """A token of no family that nobody can guess: 256 random bits."""
    return secrets.token_urlsafe(_SECRET_BYTES)


def hash_of(token: str) -> bytes:
    """What the database knows a token by (SHA-256): a stolen table opens nothing."""
    return hashlib.sha256(token.encode()).digest()


def family_of(refresh_token: str) -> bytes:
    """What all tokens of a family have in common, read from the token alone.

    It says nothing about the token's validity: anyone can put a family in front of a secret that is none. A token of an
    earlier release does not contain its family; it stands for itself.
    """
    if len(refresh_token) == _LENGTH:
        with suppress(ValueError):  # not base64, or not even ASCII
            decoded = urlsafe_b64decode(refresh_token)
            if len(decoded) == _FAMILY_BYTES + _SECRET_BYTES:
                return decoded[:_FAMILY_BYTES]
    return hash_of(refresh_token)
