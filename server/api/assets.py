"""Public files that come with the program: pages, styles and scripts.

Two of them are /api/docs and /api/openapi.json, by which the API describes itself.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from aiohttp import hdrs, web

from server.api.compression import compress, takes_gzip
from server.api.responses import JSON, LARGE_BYTES, is_known, lines_of, refuse_without_room
from server.api.whole_response import WholeResponse, add_lines, header_line
from server.errors import NotFound

STATIC_FOLDER = Path(__file__).resolve().parents[1] / "static"
_MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_REVALIDATED = "public, no-cache"
_FOR_GOOD = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Asset:
    """A public file with its entity tag; the gzip form is made once as well."""

    body: bytes
    compressed: bytes
    media_type: str
    cache_control: str
    tag: str

    @classmethod
    def of(cls, body: bytes, media_type: str, cache_control: str = _REVALIDATED) -> Asset:
        """The asset with these bytes."""
        return cls(body, compress(body, level=9), media_type, cache_control, f'W/"{_hash_of(body)}"')

    def answer(self, request: web.Request) -> WholeResponse:
        """The response: 304 where the reader has it already, compressed where that is understood."""
        headers: dict[str, str] = {
            hdrs.ETAG: self.tag,
            hdrs.CACHE_CONTROL: self.cache_control,
            hdrs.VARY: hdrs.ACCEPT_ENCODING,
        }
        if is_known(request, self.tag):
            return WholeResponse(status=304, lines=lines_of(headers))
        body = self.body
        if takes_gzip(request):
            body = self.compressed
            headers[hdrs.CONTENT_ENCODING] = "gzip"
        if len(body) > LARGE_BYTES:
            refuse_without_room(request, len(body))
        charset = "" if self.media_type == JSON else "; charset=utf-8"
        headers[hdrs.CONTENT_TYPE] = self.media_type + charset
        return WholeResponse(body, lines=lines_of(headers))


@dataclass(frozen=True, slots=True)
class Site:
    """A page and its files, which have their content's hash in their names."""

    page: Asset
    files: Mapping[str, Asset]
    content_security_policy: str

    def show_page(self, request: web.Request) -> WholeResponse:
        """The page."""
        response = self.page.answer(request)
        add_lines(response, header_line(hdrs.CONTENT_SECURITY_POLICY, self.content_security_policy))
        return response

    def show_file(self, request: web.Request, name: str) -> WholeResponse:
        """One of its files, for good.

        Raises:
            NotFound: it has none of that name.
        """
        if name not in self.files:
            raise NotFound
        return self.files[name].answer(request)


def read_site(page: str, files: tuple[str, ...], *, address: str, content_security_policy: str) -> Site:
    """The site with a page of `server/static`, in which `{{name}}` becomes the address of the file.

    Args:
        page: the page, such as `dashboard/index.html`.
        files: its files, such as `uplot/uPlot.min.css`; their last parts differ.
        address: where they are served: `/dashboard`, for example.
        content_security_policy: what the page may load.
    """
    text = (STATIC_FOLDER / page).read_text(encoding="utf-8")
    assets = {}
    for path in (STATIC_FOLDER / file for file in files):
        body = path.read_bytes()
        hashed = f"{path.stem}.{_hash_of(body)}{path.suffix}"
        assets[hashed] = Asset.of(body, _MEDIA_TYPES[path.suffix], _FOR_GOOD)
        text = text.replace(f"{{{{{path.name}}}}}", f"{address}/{hashed}")
    return Site(Asset.of(text.encode(), "text/html"), MappingProxyType(assets), content_security_policy)


def _hash_of(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=12).hexdigest()


# Swagger UI loads nothing from elsewhere; its styles' icons are data: URLs.
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
        ("swagger-ui/swagger-ui.css", "swagger-ui/swagger-ui-bundle.js", "docs/docs.css", "docs/start.js"),
        address="/api/docs",
        content_security_policy=_CONTENT_SECURITY_POLICY,
    )
