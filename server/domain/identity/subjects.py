"""The rate limiter's subjects that stand for accounts and logins, and every subject as an operator writes it.

The limiter counts subjects as opaque text. What makes two spellings one account is decided here, in one place.
"""

from __future__ import annotations

import hashlib
import re
from ipaddress import IPv6Network, ip_address, ip_network
from typing import Final
from uuid import UUID

from server.email_addresses import normal_email
from server.net import without_mapping, without_nat64
from server.ratelimit.subjects import (
    CLIENT_PREFIX_BITS,
    SITE_PREFIX_BITS,
    subject_of_address,
    subject_of_user,
)

_DIGEST: Final = re.compile(r"[0-9a-f]{32}")
_FORMS: Final = (
    "user:<uuid>, ip:<address>, ip:<IPv6 prefix of /64 or /48>, email:<address> or family:<uuid of a login>"
)


def subject_of_email(email: str) -> str:
    """Return the subject of attempts on an e-mail address: `email:` and 32 hex digits.

    All spellings of an account's address are one subject (`normal_email`). The digest keeps the address out of logs
    and keys.
    """
    return f"email:{_digest(normal_email(email).encode(errors='replace'))}"


def subject_of_family(family: bytes) -> str:
    """Return the subject of a login's refresh tokens: `family:` and 32 hex digits, which can't be traced back.

    Args:
        family: what all of them have in common (`server.domain.identity.tokens.family_of`).
    """
    return f"family:{_digest(family)}"


def _digest(value: bytes) -> str:
    return hashlib.blake2b(value, digest_size=16).hexdigest()


def parse_subject(text: str) -> str:
    """Return a subject, as an operator writes it, in the form in which it is counted.

    Args:
        text: `user:<uuid>`, `ip:<address or prefix>` (an IPv6 address means its /64), `email:<address>` or
            `family:<uuid>` (of a login's refresh tokens); the last two also by the digest that the log shows.

    Raises:
        ValueError: it is none of these; the message says what is accepted.
    """
    text = text.strip()
    kind, _, value = text.partition(":")
    match kind:
        case "user":
            try:
                return subject_of_user(UUID(value))
            except ValueError:
                raise ValueError(f"{value!r} is not a UUID; a user reads user:<uuid>") from None
        case "ip":
            return _parse_ip_subject(value)
        case "email" if "@" in value:
            return subject_of_email(value)
        case "family" if "-" in value:
            try:
                return subject_of_family(UUID(value).bytes)
            except ValueError:
                raise ValueError(f"{value!r} is not a UUID; a login's tokens read family:<uuid>") from None
        case "email" | "family" if _DIGEST.fullmatch(value):
            return text
        case _:
            raise ValueError(f"{text!r} is not a subject; one reads {_FORMS}")


def _parse_ip_subject(value: str) -> str:
    try:
        if "/" not in value:
            return subject_of_address(without_nat64(without_mapping(ip_address(value.partition("%")[0]))))
        network = ip_network(value)
    except ValueError as error:
        raise ValueError(
            f"{error}; an address reads ip:192.0.2.1, ip:2001:db8::1 or ip:2001:db8::/64"
        ) from None
    if network.prefixlen == network.max_prefixlen:
        return _parse_ip_subject(str(network.network_address))
    if isinstance(network, IPv6Network) and network.prefixlen in {CLIENT_PREFIX_BITS, SITE_PREFIX_BITS}:
        return f"ip:{network}"
    raise ValueError(
        f"{value} is not counted as one: IPv4 is counted by single addresses, IPv6 by /64 and by /48"
    )
