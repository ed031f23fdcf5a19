"""IP addresses in the two forms in which one of them may appear."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Final

Address = IPv4Address | IPv6Address

_MAPPED_PREFIX: Final = int(IPv6Address("::ffff:0:0")) >> 32


def without_mapping(address: Address) -> Address:
    """The IPv4 address inside ::ffff:0:0/96 (RFC 4291 section 2.5.5.2), which a dual-stack socket shows."""
    if isinstance(address, IPv4Address):
        return address
    bits = int(address)
    return IPv4Address(bits & 0xFFFF_FFFF) if bits >> 32 == _MAPPED_PREFIX else address
