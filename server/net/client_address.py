"""The client's address, behind proxies that are trusted by network or by number.

Only what a trusted proxy wrote is believed. Proxies append, so the list of addresses is read from its right end. What
stands further left may come from anyone: it can't be chosen as the address, and can't change how the right end reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, Literal

from server.net.addresses import Address, without_mapping, without_nat64

Header = Literal["forwarded", "x-forwarded-for"]

MOST_HOPS: Final = 32

_HEADERS: Final[dict[str, Header]] = {"forwarded": "forwarded", "x-forwarded-for": "x-forwarded-for"}

ACCEPTED: Final = (
    "networks separated by commas (10.0.0.0/8, 2001:db8::/32, 192.0.2.7) or one number of hops "
    f"(0 to {MOST_HOPS}), and beside them forwarded or x-forwarded-for: the one header your proxies write"
)


@dataclass(frozen=True, slots=True)
class TrustedProxies:
    """The proxies whose headers about the client are believed; falsy when there are none.

    Args:
        networks: proxies by address: the first address from the right outside of them is the client.
        hops: proxies by number, nearest first, whatever their addresses. Right only where every request
            passes that many proxies: a client that gets around one of them could name any address.
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
        """Read the setting: `10.0.0.0/8, 2001:db8::/32`, `1`, or empty for none.

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
        raise ValueError(f"{entry} would let every client choose its own address")
    if isinstance(network.network_address, IPv6Address) and network.prefixlen >= 96:
        # Peers are unwrapped before they are compared, so the networks have to be, too.
        inner = without_mapping(network.network_address)
        if isinstance(inner, IPv4Address):
            return _network(f"{inner}/{network.prefixlen - 96}")
    return network


# A caller on a unix socket has no address; it runs on this machine.
UNIX_SOCKET_ADDRESS: Final = IPv4Address("127.0.0.1")

_LONGEST_NODE: Final = 64  # "[", 45 characters, "]:" and a port; what is longer is garbage.
_CACHED_NODES: Final = 8192

_PORT: Final = re.compile(r":(?:[0-9]{1,5}|_[A-Za-z0-9._-]+)")
_ESCAPED: Final = re.compile(r"\\(.)")


def client_address(
    peer: str | None, forwarded: Sequence[str], x_forwarded_for: Sequence[str], trusted: TrustedProxies
) -> Address:
    """The address of the client: the nearest one that no trusted hop stands for.

    Args:
        peer: the connection's other end; a unix socket (None, empty or a path) counts as 127.0.0.1.
        forwarded: the values of the `Forwarded` header lines (RFC 7239), in the order received.
        x_forwarded_for: the values of the `X-Forwarded-For` header lines, in the order received.
        trusted: the proxies, and the header that they write.

    Returns:
        An address without an IPv4-mapped (RFC 4291) or NAT64 (RFC 6052) wrapping. Where a hop is obfuscated,
        `unknown` or garbage, it is the address of the trusted hop that said so.

    When both headers are there and the settings do not say which one the proxies write, one of them may be
    the caller's own invention, and nothing in the request shows which. Then only what both say is believed:
    a client that invents the other header can hide behind the proxy's address, but never pose as another client.
    """
    address = (_address_of_node(peer) if peer else None) or UNIX_SOCKET_ADDRESS
    if trusted and (forwarded or x_forwarded_for):
        nodes = _believed_nodes(forwarded, x_forwarded_for, trusted)
        for hop, node in enumerate(nodes):
            if node is None or not trusted.trusts(address, hop=hop):
                break
            address = node
    return without_nat64(address)


def _believed_nodes(
    forwarded: Sequence[str], x_forwarded_for: Sequence[str], trusted: TrustedProxies
) -> Iterator[Address | None]:
    """The chain from its right end, None for a hop that can't be read."""
    if trusted.header == "forwarded" or (trusted.header is None and not x_forwarded_for):
        return _forwarded_nodes(forwarded)
    if trusted.header == "x-forwarded-for" or not forwarded:
        return _x_forwarded_for_nodes(x_forwarded_for)
    pairs = zip(_forwarded_nodes(forwarded), _x_forwarded_for_nodes(x_forwarded_for), strict=False)
    return (one if one == other else None for one, other in pairs)


def _x_forwarded_for_nodes(lines: Sequence[str]) -> Iterator[Address | None]:
    for line in reversed(lines):
        rest, comma = line, ","
        while comma:
            rest, comma, node = rest.rpartition(",")
            yield _address_of_node(node.strip(" \t"))


def _forwarded_nodes(lines: Sequence[str]) -> Iterator[Address | None]:
    for line in reversed(lines):
        for element in _split_from_the_right(line, ","):
            yield _address_of_element(element)


def _split_from_the_right(text: str, separator: str) -> Iterator[str]:
    """The parts of a field between separators outside of quoted strings, the last one first.

    Read leftwards, because the part a trusted hop appended is well-formed and what precedes it need not be:
    read from the left, one unbalanced quote of the caller's would swallow what the proxies said.
    """
    end = len(text)
    quoted = False
    for position in range(end - 1, -1, -1):
        character = text[position]
        if character == '"' and not _is_escaped(text, position):
            quoted = not quoted
        elif character == separator and not quoted:
            yield text[position + 1 : end]
            end = position
    yield text[:end]


def _is_escaped(text: str, position: int) -> bool:
    start = position
    while start > 0 and text[start - 1] == "\\":
        start -= 1
    return (position - start) % 2 == 1


def _address_of_element(element: str) -> Address | None:
    """The one `for` of a hop (RFC 7239 section 4); None where there is none, two, or no address in it."""
    values = [
        value
        for name, _, value in (
            pair.strip(" \t").partition("=") for pair in _split_from_the_right(element, ";")
        )
        if name.lower() == "for"
    ]
    if len(values) != 1:
        return None
    node = values[0]
    if len(node) >= 2 and node[0] == node[-1] == '"':
        node = _ESCAPED.sub(r"\1", node[1:-1])
    return _address_of_node(node)


def _address_of_node(node: str) -> Address | None:
    # Long text is refused before it can fill the cache.
    return None if len(node) > _LONGEST_NODE else _parse_node(node)


@lru_cache(maxsize=_CACHED_NODES)
def _parse_node(node: str) -> Address | None:
    """The address of a node (RFC 7239 section 6), a port allowed; None for `unknown`, `_hidden`, garbage."""
    host = node
    if node.startswith("["):
        host, bracket, port = node[1:].partition("]")
        if not bracket or ":" not in host or (port and not _PORT.fullmatch(port)):
            return None
    elif node.count(":") == 1:
        host, _, port = node.partition(":")
        if not _PORT.fullmatch(f":{port}"):
            return None
    try:
        # A zone (RFC 4007) names an interface of the machine that saw the address, and nothing of ours.
        return without_mapping(ip_address(host.partition("%")[0]))
    except ValueError:
        return None
