"""The Redis keys of the limiter: short, of one length, and all of one subject in one Cluster slot."""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from functools import lru_cache

from server.ratelimit.policies import Charge

GENERATION_KEY = b"r:generation"

# The number of the format of what is counted (lua/sliding_window.lua, lua/token_bucket.lua). It is part of the keys'
# names: two versions of the service beside each other, as during a deploy, must not read each other's formats.
STATE_FORMAT = 2

_SUBJECT_BYTES = 12  # 96 bits: nobody finds two subjects that share a budget.
_SCOPE_BYTES = 6  # The operator's own names; a process sees a few dozen.
_REQUEST_BYTES = 12


def state_key(charge: Charge) -> bytes:
    """Where a charge is counted: `r:{subject}:scope`, of policy name, route group and the format of the state.

    The algorithm is no part of it: a state says by itself which it is of, so that a reload can carry it over.
    """
    return subject_prefix(charge.subject) + _scope(charge.policy.name, charge.group)


def pages_key(charge: Charge) -> bytes:
    """Where the middle of a long log is."""
    return state_key(charge) + b"p"


def block_key(subject: str) -> bytes:
    """What exists while a subject is blocked."""
    return subject_prefix(subject) + b"b"


def probe_key(subject: str) -> bytes:
    """What a probe writes, to find out whether the server that has the keys of a subject takes writes again."""
    return subject_prefix(subject) + b"?"


def record_key(charges: Iterable[Charge], request_id: str) -> bytes:
    """Where the verdict on a request id is kept; the same id for other charges is another request."""
    charges = tuple(charges)
    parts = [request_id, *(f"{state_key(charge).hex()} {charge.cost}" for charge in charges)]
    return subject_prefix(charges[0].subject) + b"i" + _digest("\0".join(parts), _REQUEST_BYTES)


@lru_cache(maxsize=16_384)
def subject_prefix(subject: str) -> bytes:
    """The beginning of all keys of a subject, with their hash tag."""
    return b"r:{" + _digest(subject, _SUBJECT_BYTES) + b"}:"


@lru_cache(maxsize=1024)
def _scope(policy_name: str, group: str) -> bytes:
    return _digest(f"{STATE_FORMAT}\0{policy_name}\0{group}", _SCOPE_BYTES)


def _digest(text: str, size_bytes: int) -> bytes:
    # A request id may be any text, and so may the subject that an operator names.
    data = text.encode(errors="surrogatepass")
    return urlsafe_b64encode(hashlib.blake2b(data, digest_size=size_bytes).digest())
