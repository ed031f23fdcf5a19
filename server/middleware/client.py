"""The address that a request came from, worked out once."""

from __future__ import annotations

from aiohttp import web

from server.ratelimit.identity import Address, client_address
from server.ratelimit.proxies import TrustedProxies

TRUSTED_PROXIES = web.AppKey("trusted_proxies", TrustedProxies)
_ADDRESS = web.RequestKey("client_address", object)


def address_of(request: web.Request) -> Address:
    """The client's address: the peer's, or what trusted proxies say it is."""
    known = request.get(_ADDRESS)
    if known is None:
        known = client_address(
            request.remote,
            request.headers.getall("Forwarded", ()),
            request.headers.getall("X-Forwarded-For", ()),
            request.app[TRUSTED_PROXIES],
        )
        request[_ADDRESS] = known
    return known
