"""Clients' addresses as logs and traces show them, where that is less than the whole: a network, or a keyed hash.

Whatever is shown is a valid IP address, because log pipelines index the field as one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, MutableMapping
from functools import lru_cache
from hashlib import blake2b
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Final, Literal

from server.net.addresses import Address, without_mapping, without_nat64

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
            return str(_network(address, _SHORT_BITS[address.version]))
        hashed = address if isinstance(address, IPv4Address) else _network(address, _CLIENT_BITS)
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


def _network(address: Address, bits: int) -> Address:
    return type(address)(int(address) >> (address.max_prefixlen - bits) << (address.max_prefixlen - bits))
