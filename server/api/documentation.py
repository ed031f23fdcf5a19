"""/api/openapi.json and /api/docs: the API as it describes itself, for programs and for people."""

from __future__ import annotations

import asyncio
import functools

from aiohttp import web

from server.api.assets import Asset, Site, read_site
from server.api.responses import JSON

# Swagger UI asks nobody else for anything; its styles' icons are data: URLs.
_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

OPENAPI = web.AppKey("openapi", Asset)


async def show_openapi(request: web.Request) -> web.Response:
    """The OpenAPI 3.1 document of this API."""
    return request.app[OPENAPI].answer(request)


async def show_documentation(request: web.Request) -> web.Response:
    """A page to read about this API, and to try it out."""
    return (await asyncio.to_thread(_site)).show_page(request)


async def show_asset(request: web.Request) -> web.Response:
    """A file of that page; its name changes with its content."""
    return (await asyncio.to_thread(_site)).show_file(request, request.match_info["file"])


def openapi_asset(document: bytes) -> Asset:
    """The OpenAPI document (JSON) as it is served."""
    return Asset.of(document, JSON)


def asset_names() -> list[str]:
    """The names of the page's files."""
    return list(_site().files)


@functools.cache
def _site() -> Site:
    """The page and its files, read once."""
    return read_site(
        "docs/index.html",
        ("swagger-ui/swagger-ui.css", "swagger-ui/swagger-ui-bundle.js", "docs/start.js"),
        address="/api/docs",
        content_security_policy=_CONTENT_SECURITY_POLICY,
    )
