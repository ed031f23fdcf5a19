"""Addresses of clients: the other end of a request's connection, or what trusted proxies report."""

from __future__ import annotations

from typing import NamedTuple

from aiohttp import web

from server.bounded_dict import BoundedDict
from server.net.addresses import Address
from server.net.client_address import TrustedProxies, client_address
from server.net.shown_addresses import ShownAddresses

_MOST_KNOWN = 8192
# Longer headers do not come from a chain of proxies, and must not fill the memory.
_LONGEST_KNOWN = 256

_Evidence = tuple[str | None, tuple[str, ...], tuple[str, ...]]


class Client(NamedTuple):
    """Where a request came from.

    Args:
        address: as IPv4 where IPv6 wraps one.
        text: the same as text.
        shown: the form of it in logs and traces.
    """

    address: Address
    text: str
    shown: str


class Clients:
    """Finds the addresses of clients, and remembers them: the same clients come again and again.

    Args:
        trusted: the proxies whose headers are believed.
        addresses: what shortens or hashes them for logs; None to show them whole.
    """

    def __init__(self, trusted: TrustedProxies, addresses: ShownAddresses | None = None) -> None:
        self._trusted = trusted
        self._addresses = addresses
        self._known: BoundedDict[_Evidence, Client] = BoundedDict(_MOST_KNOWN)

    def find(self, request: web.Request) -> Client:
        """The client of a request: the connection's other end, or what trusted proxies report."""
        evidence: _Evidence = (request.remote, (), ())
        if self._trusted:
            headers = request.headers
            evidence = (
                evidence[0],
                tuple(headers.getall("Forwarded", ())),
                tuple(headers.getall("X-Forwarded-For", ())),
            )
        return self._known.get(evidence) or self._find(evidence)

    def _find(self, evidence: _Evidence) -> Client:
        peer, forwarded, x_forwarded_for = evidence
        address = client_address(peer, forwarded, x_forwarded_for, self._trusted)
        text = str(address)
        shown = text if self._addresses is None else self._addresses.address(address)
        client = Client(address, text, shown)
        if sum(map(len, (*forwarded, *x_forwarded_for))) <= _LONGEST_KNOWN:
            self._known[evidence] = client
        return client
