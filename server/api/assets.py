"""Public files that come with the program: pages, styles and scripts.

`/` says what this is and where to go on, as a page for browsers and as JSON for programs. By /api/docs and
/api/openapi.json the API describes itself.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar

import orjson
from aiohttp import hdrs, web

from server import __version__
from server.api.compression import compress, takes_gzip
from server.api.responses import JSON, LARGE_BYTES, is_known, lines_of, refuse_without_room
from server.api.whole_response import WholeResponse, add_lines, header_line
from server.domain.identity.users import DEMO_EMAILS, DEMO_PASSWORD
from server.errors import NotFound
from server.settings import Settings

Made = TypeVar("Made")

STATIC_FOLDER = Path(__file__).resolve().parents[1] / "static"
_MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_REVALIDATED = "public, no-cache"
_FOR_GOOD = "public, max-age=31536000, immutable"
DESCRIPTION: Final = "The backend of a flashcard study service: courses, ratings, repetition and progress."
LINKS: Final = {
    "documentation": "/api/docs",
    "openapi": "/api/openapi.json",
    "dashboard": "/dashboard",
    "health": "/api/health",
}
_STYLE: Final = re.compile(r"<style>(.*?)</style>", re.DOTALL)
_NAMES: Final = {"user": "Student", "admin": "Administrator"}


class Once(Generic[Made]):
    """A function without arguments that is run once, also where several threads want its result at the same time."""

    def __init__(self, make: Callable[[], Made]) -> None:
        self._make = make
        self._made: Made | None = None
        self._lock = threading.Lock()

    def __call__(self) -> Made:
        """Its result."""
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made

    async def result(self) -> Made:
        """The same; only who comes before it is there waits for it, in a thread."""
        return await asyncio.to_thread(self) if self._made is None else self._made


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

# Makes the document, which takes a tenth of a second: when it is first asked for, not at the start.
OPENAPI = web.AppKey("openapi", Once[Asset])


async def show_openapi(request: web.Request) -> web.Response:
    """The OpenAPI 3.1 document of this API."""
    return (await request.app[OPENAPI].result()).answer(request)


async def show_documentation(request: web.Request) -> web.Response:
    """A page to read about this API, and to try it out."""
    return (await _site.result()).show_page(request)


async def show_asset(request: web.Request) -> web.Response:
    """A file of that page; its name changes with its content."""
    return (await _site.result()).show_file(request, request.match_info["file"])


def asset_names() -> list[str]:
    """The names of the page's files."""
    return list(_site().files)


@Once
def _site() -> Site:
    """The page and its files, read once."""
    return read_site(
        "docs/index.html",
        ("swagger-ui/swagger-ui.css", "swagger-ui/swagger-ui-bundle.js", "docs/docs.css", "docs/start.js"),
        address="/api/docs",
        content_security_policy=_CONTENT_SECURITY_POLICY,
    )


@dataclass(frozen=True, slots=True)
class Home:
    """Both forms of it, made once.

    Args:
        page: for browsers.
        content_security_policy: of the page: it loads nothing, and its style is known by its hash.
        json: for programs.
    """

    page: Asset
    content_security_policy: str
    json: Asset


HOME = web.AppKey("home", Home)


def home_of(settings: Settings) -> Home:
    """What `/` shows with these settings: the demo accounts too, where `make run` has made them."""
    text = (STATIC_FOLDER / "home" / "index.html").read_text(encoding="utf-8")
    document: dict[str, Any] = {
        "name": "Mastery",
        "description": DESCRIPTION,
        "version": __version__,
        "links": LINKS,
    }
    accounts = ""
    if settings.demo_accounts:
        document["demoAccounts"] = [
            {"role": role, "email": email, "password": DEMO_PASSWORD} for role, email in DEMO_EMAILS.items()
        ]
        accounts = _accounts(f"http://{settings.host}:{settings.port}")
    for name, value in (("description", DESCRIPTION), ("version", __version__)):
        text = text.replace(f"{{{{{name}}}}}", escape(value))
    text = text.replace("{{accounts}}", accounts)
    style = _STYLE.findall(text)[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return Home(Asset.of(text.encode(), "text/html"), policy, Asset.of(orjson.dumps(document), JSON))


async def show_home(request: web.Request) -> web.Response:
    """What this service is, its version, and where its pages are; JSON where `Accept` names it before HTML."""
    home = request.app[HOME]
    wants_json = _prefers_json(request.headers.get(hdrs.ACCEPT, ""))
    response = (home.json if wants_json else home.page).answer(request)
    response.headers[hdrs.VARY] = f"{hdrs.ACCEPT}, {hdrs.ACCEPT_ENCODING}"
    if not wants_json:
        response.headers[hdrs.CONTENT_SECURITY_POLICY] = home.content_security_policy
    return response


def _accounts(address: str) -> str:
    rows = "".join(
        f"<tr><td>{_NAMES[role]}</td><td><code>{escape(email)}</code></td><td><code>{escape(DEMO_PASSWORD)}</code></td></tr>"
        for role, email in DEMO_EMAILS.items()
    )
    text = (STATIC_FOLDER / "home" / "accounts.html").read_text(encoding="utf-8").strip()
    values = {
        "rows": rows,
        "email": DEMO_EMAILS["user"],
        "password": DEMO_PASSWORD,
        "address": escape(address),
    }
    for name, value in values.items():
        text = text.replace(f"{{{{{name}}}}}", value)
    return text


def _prefers_json(accept: str) -> bool:
    """Whether JSON is named, and HTML is not named before it."""
    for part in accept.lower().split(","):
        kind = part.partition(";")[0].strip()
        if kind in {JSON, "application/*"}:
            return True
        if kind in {"text/html", "application/xhtml+xml", "text/*"}:
            return False
    return False
