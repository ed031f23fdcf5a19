"""Networks that are never limited, and networks that are always refused, as the rate limits file lists them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final, Literal, TypeAlias

from .subjects import Address

Network: TypeAlias = IPv4Network | IPv6Network
Listing = Literal["allow", "block"]

MAX_NETWORKS: Final = 10_000


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
