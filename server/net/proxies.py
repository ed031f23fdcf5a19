"""Whom to believe about the client's address: trusted proxies, by network or by number."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final, Literal

from server.net.addresses import without_mapping

Header = Literal["forwarded", "x-forwarded-for"]

MOST_HOPS: Final = 32

_HEADERS: Final[dict[str, Header]] = {"forwarded": "forwarded", "x-forwarded-for": "x-forwarded-for"}

ACCEPTED: Final = (
    "networks separated by commas (10.0.0.0/8, 2001:db8::/32, 192.0.2.7) or one number of hops "
    f"(0 to {MOST_HOPS}), and beside them forwarded or x-forwarded-for: the one header your proxies write"
)


@dataclass(frozen=True, slots=True)
class TrustedProxies:
    """The proxies whose word about the client counts; falsy when there are none.

    Args:
        networks: proxies by address: the first address from the right outside of them is the client.
        hops: proxies by number, nearest first, whatever their addresses. Right only where nobody reaches the
            service but through that many proxies: who gets around one of them could name any address.
        header: the one header the proxies write. None reads whichever is there and, where both are, believes
            only what both say; name yours where the proxies let the other one pass as the caller sent it.
    """

    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    hops: int = 0
    header: Header | None = None

    def __bool__(self) -> bool:
        return self.hops > 0 or bool(self.networks)

    def trusts(self, address: IPv4Address | IPv6Address, *, hop: int) -> bool:
        """Whether a proxy is believed about its caller; hop is 0 for the peer, 1 for the one before it."""
        return hop < self.hops or any(address in network for network in self.networks)

    @classmethod
    def parse(cls, text: str) -> TrustedProxies:
        """Read the setting: `10.0.0.0/8, 2001:db8::/32`, `1`, or empty for nobody.

        Raises:
            ValueError: the message says what is wrong and what is accepted.
        """
        networks: list[IPv4Network | IPv6Network] = []
        numbers: list[int] = []
        headers: list[Header] = []
        for entry in filter(None, (part.strip().lower() for part in text.split(","))):
            if entry in _HEADERS:
                headers.append(_HEADERS[entry])
            elif entry.isascii() and entry.isdigit():
                numbers.append(int(entry))
            else:
                networks.append(_network(entry))
        if len(headers) > 1:
            raise ValueError(f"{text!r} names two headers")
        if len(numbers) > 1 or (numbers and networks):
            raise ValueError(f"{text!r} mixes a number of hops with other entries")
        if numbers and numbers[0] > MOST_HOPS:
            raise ValueError(f"{numbers[0]} hops are too many")
        return cls(tuple(networks), sum(numbers), headers[0] if headers else None)


def _network(entry: str) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(entry)
    except ValueError as error:
        raise ValueError(f"{error}") from None
    if network.prefixlen == 0:
        raise ValueError(f"{entry} would let everybody choose their own address")
    if isinstance(network.network_address, IPv6Address) and network.prefixlen >= 96:
        # Peers are unwrapped before they are compared, so the networks have to be, too.
        inner = without_mapping(network.network_address)
        if isinstance(inner, IPv4Address):
            return _network(f"{inner}/{network.prefixlen - 96}")
    return network
