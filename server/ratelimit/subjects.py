"""Subjects, which are what a policy counts: users, networks of clients, and what a request's body names.

Beside them the networks that are never limited or always refused, as the rate limits file lists them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
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
Network: TypeAlias = IPv4Network | IPv6Network
Listing = Literal["allow", "block"]
MAX_NETWORKS: Final = 10_000


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


@dataclass(frozen=True)
class Networks:
    """Two lists of networks; of those that an address is in, the narrowest decides.

    Args:
        allow: requests from these are not limited.
        block: requests from these are refused.

    Raises:
        ValueError: a network is in both lists.
    """

    allow: frozenset[Network] = frozenset()
    block: frozenset[Network] = frozenset()
    _by_length: dict[tuple[int, int], dict[int, tuple[Listing, Network]]] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        if both := self.allow & self.block:
            raise ValueError(f"{min(map(str, both))} is in both lists")
        lists: tuple[tuple[Listing, frozenset[Network]], ...] = (("allow", self.allow), ("block", self.block))
        listed = [(network, name) for name, networks in lists for network in networks]
        # The narrowest first: a look-up goes through the lengths there are, whatever the number of networks.
        for network, name in sorted(listed, key=lambda found: -found[0].prefixlen):
            shift = network.max_prefixlen - network.prefixlen
            place = self._by_length.setdefault((network.version, shift), {})
            place[int(network.network_address) >> shift] = (name, network)

    def __bool__(self) -> bool:
        return bool(self._by_length)

    def find(self, address: Address) -> tuple[Listing, Network] | None:
        """Return which list has the narrowest network around an address, and that network; None if neither has."""
        bits = int(address)
        for (version, shift), networks in self._by_length.items():
            if version == address.version and (found := networks.get(bits >> shift)) is not None:
                return found
        return None

    def find_subject(self, subject: str) -> tuple[Listing, Network] | None:
        """Return the same for a subject that is an address or a network; None for others."""
        kind, _, text = subject.partition(":")
        return self.find(ip_address(text.partition("/")[0])) if kind == "ip" else None


def parse_networks(texts: Iterable[str]) -> frozenset[Network]:
    """Return networks, as in `192.0.2.0/24`, `2001:db8::/32` or a single address.

    Raises:
        ValueError: one of them is none; the message names it.
    """
    return frozenset(map(ip_network, texts))
