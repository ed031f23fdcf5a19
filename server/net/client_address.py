"""Who is calling: the client's address behind trusted proxies.

Only what a trusted hop wrote is believed, so the chain is read from its right end, where hops append.
What stands further left may come from anyone: it can neither be chosen as the address nor change how the
right end reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, ip_address
from typing import Final

from server.net.addresses import Address, without_mapping, without_nat64
from server.net.proxies import TrustedProxies

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
        trusted: whom to believe, and which header they write.

    Returns:
        An address without an IPv4-mapped (RFC 4291) or NAT64 (RFC 6052) wrapping. Where a hop is obfuscated,
        `unknown` or garbage, it is the address of the trusted hop that said so.

    When both headers are there and the settings do not say which one the proxies write, one of them may be
    the caller's own invention, and nothing in the request tells which. Only what both say is then believed:
    who invents the other header can hide behind the proxy's address, but never pose as somebody else.
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
