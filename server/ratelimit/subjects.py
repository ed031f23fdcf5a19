"""Subjects, which are what a policy counts: users, networks of clients, and what a request's body names."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, Literal, TypeAlias, get_args
from uuid import UUID

Address: TypeAlias = IPv4Address | IPv6Address

SubjectKind = Literal["client", "user", "address", "address-wide", "email", "token-family"]
SUBJECT_KINDS: Final[tuple[SubjectKind, ...]] = get_args(SubjectKind)
# The kinds that are read from a request's body, as its route declares.
NAMED_KINDS: Final[frozenset[SubjectKind]] = frozenset({"email", "token-family"})

CLIENT_PREFIX_BITS: Final = 64  # What a provider gives to one customer at the least (RFC 6177 section 2).
SITE_PREFIX_BITS: Final = 48  # What one customer may well have at the most.

_CACHED_SUBJECTS: Final = 8192


@lru_cache(maxsize=_CACHED_SUBJECTS)
def subject_of_address(address: Address) -> str:
    """Return the subject of an address: `ip:192.0.2.1`, or one client's IPv6 network, `ip:2001:db8:1:2::/64`."""
    return f"ip:{address}" if address.version == 4 else _subject_of_prefix(address, CLIENT_PREFIX_BITS)


@lru_cache(maxsize=_CACHED_SUBJECTS)
def wider_subject_of_address(address: Address) -> str | None:
    """Return one site's IPv6 network, `ip:2001:db8:1::/48`, for a second tier; None for IPv4, which has none."""
    return None if address.version == 4 else _subject_of_prefix(address, SITE_PREFIX_BITS)


def subject_of_peer(host: str | None) -> str | None:
    """Return the subject of a connection's other end: of its address or, where it has none, of its name.

    Args:
        host: as a server names it; an IPv4 address in IPv6 form is taken for what it is.

    Returns:
        None if there is no name either, as with a Unix socket.
    """
    if not host:
        return None
    try:
        address = ip_address(host)
    except ValueError:
        return f"host:{host}"
    return subject_of_address(address if address.version == 4 else address.ipv4_mapped or address)


def _subject_of_prefix(address: Address, prefix_bits: int) -> str:
    host_bits = 128 - prefix_bits
    return f"ip:{IPv6Address(int(address) >> host_bits << host_bits)}/{prefix_bits}"


def subject_of_user(user_id: UUID | str) -> str:
    """Return the subject of a signed-in client: `user:<uuid>`."""
    return f"user:{user_id}"


def kind_of(subject: str) -> SubjectKind:
    """Return the kind of a subject in its normal form."""
    match subject.partition(":")[0]:
        case "user":
            return "user"
        case "email":
            return "email"
        case "family":
            return "token-family"
        case _:
            return "address-wide" if subject.endswith(f"/{SITE_PREFIX_BITS}") else "address"


def subject_of_request(
    kind: SubjectKind, *, user_id: UUID | str | None, address: Address, named: str | None
) -> str | None:
    """Return the subject of a kind that a request has.

    Args:
        kind: what the policy counts.
        user_id: the signed-in user; None for an anonymous request.
        address: the client's address.
        named: the subject that the request's body names, if it names one.

    Returns:
        None if the request has no such subject.
    """
    match kind:
        case "address":
            return subject_of_address(address)
        case "address-wide":
            return wider_subject_of_address(address)
        case "email" | "token-family":
            return named if named is not None and kind_of(named) == kind else None
        case "user" | "client":
            return None if user_id is None else subject_of_user(user_id)
