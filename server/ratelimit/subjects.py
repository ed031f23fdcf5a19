"""The subjects that a policy counts, made from addresses, users, e-mail addresses and families of refresh tokens."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final
from uuid import UUID

from server.email_addresses import normal_email
from server.net.addresses import Address, without_mapping, without_nat64

CLIENT_PREFIX_BITS: Final = 64  # What a provider gives to one customer at the least (RFC 6177 section 2).
SITE_PREFIX_BITS: Final = 48  # What one customer may well have at the most.

_CACHED_SUBJECTS: Final = 8192

_DIGEST: Final = re.compile(r"[0-9a-f]{32}")
_FORMS: Final = (
    "user:<uuid>, ip:<address>, ip:<IPv6 prefix of /64 or /48>, email:<address> or family:<uuid of a login>"
)


@lru_cache(maxsize=_CACHED_SUBJECTS)
def subject_of_address(address: Address) -> str:
    """Who pays for an address: `ip:192.0.2.1`, or one client's IPv6 network, `ip:2001:db8:1:2::/64`."""
    return f"ip:{address}" if address.version == 4 else _subject_of_prefix(address, CLIENT_PREFIX_BITS)


@lru_cache(maxsize=_CACHED_SUBJECTS)
def wider_subject_of_address(address: Address) -> str | None:
    """One site's IPv6 network, `ip:2001:db8:1::/48`, for a second tier; None for IPv4, which has none."""
    return None if address.version == 4 else _subject_of_prefix(address, SITE_PREFIX_BITS)


def _subject_of_prefix(address: Address, prefix_bits: int) -> str:
    host_bits = 128 - prefix_bits
    return f"ip:{IPv6Address(int(address) >> host_bits << host_bits)}/{prefix_bits}"


def subject_of_user(user_id: UUID | str) -> str:
    """Who pays for a signed-in client: `user:<uuid>`."""
    return f"user:{user_id}"


def subject_of_email(email: str) -> str:
    """Who pays for attempts on an e-mail address: `email:` and 32 hex digits, so that no log or key shows it.

    All spellings of an account's address are one subject (`normal_email`).
    """
    return f"email:{_digest(normal_email(email).encode(errors='replace'))}"


def subject_of_family(family: bytes) -> str:
    """The subject of a login's refresh tokens: `family:` and 32 hex digits, which no log or key leads back from.

    Args:
        family: what all of them have in common (`server.domain.identity.tokens.family_of`).
    """
    return f"family:{_digest(family)}"


def _digest(value: bytes) -> str:
    return hashlib.blake2b(value, digest_size=16).hexdigest()


def parse_subject(text: str) -> str:
    """A subject as an operator writes it, in the form in which it is counted.

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
