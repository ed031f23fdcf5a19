"""`/`: what this is and where to go on, as a page for browsers and as JSON for programs."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from html import escape
from typing import Any, Final

import orjson
from aiohttp import hdrs, web

from server import __version__
from server.api.assets import STATIC_FOLDER, Asset
from server.api.responses import JSON
from server.domain.identity.demo import DEMO_EMAILS, DEMO_PASSWORD
from server.settings import Settings

DESCRIPTION: Final = "The backend of a flashcard study service: courses, ratings, repetition and progress."
LINKS: Final = {
    "documentation": "/api/docs",
    "openapi": "/api/openapi.json",
    "dashboard": "/dashboard",
    "health": "/api/health",
}
_STYLE: Final = re.compile(r"<style>(.*?)</style>", re.DOTALL)
_NAMES: Final = {"user": "Student", "admin": "Administrator"}


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
