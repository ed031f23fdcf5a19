"""IP addresses in the two forms in which one of them may appear."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Final

Address = IPv4Address | IPv6Address

_MAPPED_PREFIX: Final = int(IPv6Address("::ffff:0:0")) >> 32
_NAT64_PREFIX: Final = int(IPv6Address("64:ff9b::")) >> 32


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
