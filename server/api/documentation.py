"""/api/openapi.json and /api/docs: the API as it describes itself, for programs and for people."""

from __future__ import annotations

import asyncio
import functools
import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from aiohttp import hdrs, web

from server.api.responses import JSON, is_known
from server.errors import NotFound

_STATIC = Path(__file__).resolve().parents[1] / "static"
# Swagger UI asks nobody else for anything; its styles' icons are data: URLs.
_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_REVALIDATED = "public, no-cache"
_FOR_GOOD = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Asset:
    """A file for everybody, with its entity tag; the gzip form is made once as well."""

    body: bytes
    compressed: bytes
    media_type: str
    cache_control: str
    tag: str

    @classmethod
    def of(cls, body: bytes, media_type: str, cache_control: str = _REVALIDATED) -> Asset:
        """The asset with these bytes."""
        # Without a time in its header: the same bytes on every worker, and after every start.
        compressed = gzip.compress(body, mtime=0)
        return cls(body, compressed, media_type, cache_control, f'W/"{_hash_of(body)}"')


OPENAPI = web.AppKey("openapi", Asset)


async def show_openapi(request: web.Request) -> web.Response:
    """The OpenAPI 3.1 document of this API."""
    return _answer(request, request.app[OPENAPI])


async def show_documentation(request: web.Request) -> web.Response:
    """A page to read about this API, and to try it out."""
    page = (await asyncio.to_thread(_site))["index.html"]
    response = _answer(request, page)
    response.headers[hdrs.CONTENT_SECURITY_POLICY] = _CONTENT_SECURITY_POLICY
    return response


async def show_asset(request: web.Request) -> web.Response:
    """A file of that page; its name changes with its content."""
    asset = (await asyncio.to_thread(_site)).get(request.match_info["file"])
    if asset is None or asset.cache_control != _FOR_GOOD:
        raise NotFound
    return _answer(request, asset)


def openapi_asset(document: bytes) -> Asset:
    """The OpenAPI document (JSON) as it is served."""
    return Asset.of(document, JSON)


def asset_names() -> list[str]:
    """The names of the page's files."""
    return [name for name, asset in _site().items() if asset.cache_control == _FOR_GOOD]


@functools.cache
def _site() -> Mapping[str, Asset]:
    """The page and its files by name, read once."""
    assets = {}
    page = (_STATIC / "docs" / "index.html").read_text(encoding="utf-8")
    for folder, name, media_type in (
        ("swagger-ui", "swagger-ui.css", "text/css"),
        ("swagger-ui", "swagger-ui-bundle.js", "text/javascript"),
        ("docs", "start.js", "text/javascript"),
    ):
        body = (_STATIC / folder / name).read_bytes()
        stem, _, suffix = name.rpartition(".")
        hashed = f"{stem}.{_hash_of(body)}.{suffix}"
        assets[hashed] = Asset.of(body, media_type, _FOR_GOOD)
        page = page.replace(f"{{{{{name}}}}}", f"/api/docs/{hashed}")
    assets["index.html"] = Asset.of(page.encode(), "text/html")
    return MappingProxyType(assets)


def _answer(request: web.Request, asset: Asset) -> web.Response:
    headers = {
        hdrs.ETAG: asset.tag,
        hdrs.CACHE_CONTROL: asset.cache_control,
        hdrs.VARY: hdrs.ACCEPT_ENCODING,
    }
    if is_known(request, asset.tag):
        return web.Response(status=304, headers=headers)
    body = asset.body
    if _takes_gzip(request):
        body = asset.compressed
        headers[hdrs.CONTENT_ENCODING] = "gzip"
    charset = None if asset.media_type == JSON else "utf-8"
    return web.Response(body=body, content_type=asset.media_type, charset=charset, headers=headers)


def _takes_gzip(request: web.Request) -> bool:
    """RFC 9110, section 12.5.3; a client that weighs its encodings against each other gets the plain one."""
    codings = ",".join(request.headers.getall(hdrs.ACCEPT_ENCODING, ())).lower().split(",")
    return "gzip" in {coding.strip() for coding in codings}


def _hash_of(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=12).hexdigest()
