"""IP addresses: which one is the client's, behind proxies trusted by network or by number, and how it is shown.

Only what a trusted proxy wrote is believed. Proxies append, so the list of addresses is read from its right end. What
stands further left may come from anyone: it can't be chosen as the address, and can't change how the right end reads.

In logs and traces addresses are shown whole, short or hashed (LOG_CLIENT_IP). Whatever is shown is a valid IP address,
because log pipelines index the field as one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final, Literal

Address = IPv4Address | IPv6Address
_MAPPED_PREFIX: Final = int(IPv6Address("::ffff:0:0")) >> 32
_NAT64_PREFIX: Final = int(IPv6Address("64:ff9b::")) >> 32
Header = Literal["forwarded", "x-forwarded-for"]
MOST_HOPS: Final = 32
_HEADERS: Final[dict[str, Header]] = {"forwarded": "forwarded", "x-forwarded-for": "x-forwarded-for"}
ACCEPTED: Final = (
    "networks separated by commas (10.0.0.0/8, 2001:db8::/32, 192.0.2.7) or one number of hops "
    f"(0 to {MOST_HOPS}), and beside them forwarded or x-forwarded-for: the one header your proxies write"
)
AddressForm = Literal["full", "short", "hashed"]
_SUBJECT_PREFIX: Final = "ip:"
_CACHED_ADDRESSES: Final = 8192
# What is left of an address: a part of a city or of a provider (IPv4), a site (IPv6).
_SHORT_BITS: Final = {4: 24, 6: 48}
# One client's network (RFC 6177 section 2): it may have any address in it, so it is hashed as one.
_CLIENT_BITS: Final = 64
# The discard prefix (RFC 6666): no packet comes from there, so no client's real address is one of ours.
_DISCARD: Final = ip_network("100::/64")
_HASH_BYTES: Final = 8
# Addresses of machines beside us, which errors of PostgreSQL and Redis name; and the listening "any" address.
_OWN_NETWORKS: Final = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/32", "10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16",
            "::/127", "fc00::/7", "fe80::/10",
        ),
    )
)  # fmt: skip
_IPV4: Final = r"(?:[0-9]{1,3}\.){3}[0-9]{1,3}"
# Candidates, for `ip_address` to judge. A colon may stand before an IPv6 address only in a subject, `ip:2001:db8::1`.
_IN_TEXT: Final = re.compile(
    rf"(?:(?<=\bip:)|(?<![0-9A-Za-z:.]))(?:[0-9A-Fa-f]{{0,4}}:){{2,7}}(?:{_IPV4}|[0-9A-Fa-f]{{0,4}})(?!:?[0-9A-Za-z])"
    rf"|(?<![0-9.]){_IPV4}(?![0-9]|\.[0-9])"
)


def without_mapping(address: Address) -> Address:
    """The IPv4 address inside ::ffff:0:0/96 (RFC 4291 section 2.5.5.2), which a dual-stack socket shows."""
    if isinstance(address, IPv4Address):
        return address
    bits = int(address)
    return IPv4Address(bits & 0xFFFF_FFFF) if bits >> 32 == _MAPPED_PREFIX else address


def without_nat64(address: Address) -> Address:
    """The IPv4 address inside 64:ff9b::/96 (RFC 6052 section 2.1), which a NAT64 in front of us shows.

    Not for questions of trust: RFC 6052 section 3.1 forbids the prefix around private addresses, so that
    64:ff9b::10.0.0.1 must not pass for the machine at 10.0.0.1. The local-use 64:ff9b:1::/48 (RFC 8215) is
    left alone: its operator chooses the prefix length inside it, and with that where the IPv4 bits are.
    """
    if isinstance(address, IPv4Address):
        return address
    bits = int(address)
    return IPv4Address(bits & 0xFFFF_FFFF) if bits >> 32 == _NAT64_PREFIX else address


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
                networks.append(_network_of(entry))
        if len(headers) > 1:
            raise ValueError(f"{text!r} names two headers")
        if len(numbers) > 1 or (numbers and networks):
            raise ValueError(f"{text!r} mixes a number of hops with other entries")
        if numbers and numbers[0] > MOST_HOPS:
            raise ValueError(f"{numbers[0]} hops are too many")
        return cls(tuple(networks), sum(numbers), headers[0] if headers else None)


def _network_of(entry: str) -> IPv4Network | IPv6Network:
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
            return _network_of(f"{inner}/{network.prefixlen - 96}")
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


class ShownAddresses:
    """Shortens or hashes addresses; what is shown already is left as it is.

    Args:
        form: `short` for the network of /24 or /48; `hashed` for an address in 100::/64 that is the same for all
            requests of a client (of an IPv6 network of /64), in every process with this key.
        secret_key: what the key of the hashes is derived from. Without the key, addresses can't be tried out.
    """

    def __init__(self, form: Literal["short", "hashed"], secret_key: str) -> None:
        self._is_short = form == "short"
        self._key = blake2b(secret_key.encode(), digest_size=32, person=b"log-client-ip").digest()
        self.address: Callable[[Address], str] = lru_cache(maxsize=_CACHED_ADDRESSES)(self._address)

    def subject(self, subject: str) -> str:
        """A subject of the rate limits, such as `ip:192.0.2.1`; those that are no address come back as they are."""
        if not subject.startswith(_SUBJECT_PREFIX):
            return subject
        text, _, bits = subject.removeprefix(_SUBJECT_PREFIX).partition("/")
        address = _parse(text)
        if address is None:
            return self.in_text(subject)
        shown = self.address(address)
        if not self._is_short or address in _DISCARD:
            return f"{_SUBJECT_PREFIX}{shown}"
        short_bits = _SHORT_BITS[address.version]
        return f"{_SUBJECT_PREFIX}{shown}/{min(int(bits), short_bits) if bits.isdecimal() else short_bits}"

    def in_text(self, text: str) -> str:
        """A text in which every public address is shown, and every subject; other private ones are our own servers'."""
        if "." not in text and ":" not in text:
            return text
        return _IN_TEXT.sub(self._shown_match, text)

    def in_event(
        self, _logger: object, _method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        """A processor for structlog: the fields of an event that hold a client's address, whatever network it is of."""
        client_ip, subject = event.get("client_ip"), event.get("subject")
        if isinstance(client_ip, str):
            address = _parse(client_ip)
            event["client_ip"] = self.in_text(client_ip) if address is None else self.address(address)
        if isinstance(subject, str):
            event["subject"] = self.subject(subject)
        return event

    def _address(self, address: Address) -> str:
        """An address, without any wrapping, as it is shown."""
        if address in _DISCARD:
            return str(address)
        if self._is_short:
            return str(_beginning_of(address, _SHORT_BITS[address.version]))
        hashed = address if isinstance(address, IPv4Address) else _beginning_of(address, _CLIENT_BITS)
        digest = blake2b(hashed.packed, digest_size=_HASH_BYTES, key=self._key).digest()
        return str(IPv6Address(int(_DISCARD.network_address) | int.from_bytes(digest)))

    def _shown_match(self, match: re.Match[str]) -> str:
        text = match.group()
        # "2001:db8::1: refused": the last colon is the sentence's.
        end = ":" if text.endswith(":") and not text.endswith("::") else ""
        address = _parse(text.removesuffix(end))
        is_subject = match.string.endswith(_SUBJECT_PREFIX, 0, match.start())
        if address is None or (not is_subject and any(address in network for network in _OWN_NETWORKS)):
            return text
        return f"{self.address(address)}{end}"


def shown_addresses(form: AddressForm, secret_key: str) -> ShownAddresses | None:
    """What shows addresses in a form; None for `full`, where nothing has to be done."""
    return None if form == "full" else ShownAddresses(form, secret_key)


def _parse(text: str) -> Address | None:
    try:
        # A zone (RFC 4007) names an interface of this machine.
        return without_nat64(without_mapping(ip_address(text.partition("%")[0])))
    except ValueError:
        return None


def _beginning_of(address: Address, bits: int) -> Address:
    return type(address)(int(address) >> (address.max_prefixlen - bits) << (address.max_prefixlen - bits))
