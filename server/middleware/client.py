"""The address that a request came from, as trusted proxies tell it."""

from __future__ import annotations

from aiohttp import web

from server.ratelimit.identity import Address, client_address
from server.ratelimit.proxies import TrustedProxies


def address_of(request: web.Request, trusted: TrustedProxies) -> Address:
    """The client's address: the peer's, or what trusted proxies say it is."""
    if not trusted:
        return client_address(request.remote, (), (), trusted)
    headers = request.headers
    return client_address(
        request.remote, headers.getall("Forwarded", ()), headers.getall("X-Forwarded-For", ()), trusted
    )
