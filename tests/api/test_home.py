"""`/`, where one begins: a page for browsers, JSON for programs."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from server import __version__
from server.domain.identity.users import DEMO_PASSWORD
from server.settings import Settings
from tests.api.conftest import Api, StartApi
from tests.support.browser import Browser, needs_chromium

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (BROWSER, "text/html"),
        ("*/*", "text/html"),
        ("", "text/html"),
        ("application/json", "application/json"),
        ("Application/JSON; charset=utf-8, */*", "application/json"),
        ("text/html, application/json", "text/html"),
        ("application/json, text/html", "application/json"),
    ],
)
async def test_browsers_get_a_page_and_programs_json(api: Api, accept: str, kind: str) -> None:
    """By `Accept`, which caches are told of; each form has a tag of its own, and nobody has to sign in."""
    response = await api.get("/", by=None, headers={"Accept": accept})
    assert (200, kind) == (response.status, response.content_type)
    assert {"Accept", "Accept-Encoding"} == set(response.headers["Vary"].split(", "))
    again = await api.get("/", by=None, headers={"Accept": accept, "If-None-Match": response.headers["ETag"]})
    assert 304 == again.status


async def test_the_json_says_what_this_is(api: Api) -> None:
    """Its name, version and links, each of which leads somewhere; no account where there is none."""
    home = await (await api.get("/", by=None, headers={"Accept": "application/json"})).json()
    assert {"name", "description", "version", "links"} == set(home)
    assert __version__ == home["version"]
    assert {"/api/docs", "/dashboard", "/api/health", "/api/openapi.json"} == set(home["links"].values())
    for path in home["links"].values():
        assert 200 == (await api.get(path, by=None)).status


async def test_the_page_links_the_same(api: Api) -> None:
    """It loads nothing, nothing may be put into it, and it names no account."""
    response = await api.get("/", by=None, headers={"Accept": BROWSER})
    text = await response.text()
    assert {"/api/docs", "/dashboard", "/api/health", "/api/openapi.json"} == set(
        re.findall(r'<a href="([^"]+)"', text)
    )
    assert __version__ in text
    assert "{{" not in text
    assert "unsafe" not in response.headers["Content-Security-Policy"]
    assert DEMO_PASSWORD not in text


async def test_with_demo_accounts_it_shows_them(start_api: StartApi, settings: Settings) -> None:
    """`make run` has them shown: roles, addresses, passwords, and how one signs in."""
    api = await start_api(replace(settings, demo_accounts=True))
    home = await (await api.get("/", by=None, headers={"Accept": "application/json"})).json()
    assert ["user", "admin"] == [account["role"] for account in home["demoAccounts"]]
    text = await (await api.get("/", by=None)).text()
    for account in home["demoAccounts"]:
        assert account["email"] in text
        assert account["password"] in text
    assert "/api/auth/login" in text
    assert "{{" not in text


@needs_chromium
@pytest.mark.parametrize("scheme", ["dark", "light"])
async def test_the_page_fits_a_phone(
    start_api: StartApi, settings: Settings, browser: Browser, scheme: str
) -> None:
    """In both schemes, with the accounts: nothing is scrolled sideways, the style is let in, the console is empty."""
    api = await start_api(replace(settings, demo_accounts=True))
    async with browser.open_tab() as tab:
        await tab.look_like(width=360, height=800, scheme=scheme)
        await tab.open(str(api.client.make_url("/")))
        assert [360, 360] == await tab.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        background = await tab.evaluate("getComputedStyle(document.body).backgroundColor")
        assert {"dark": "rgb(12, 15, 20)", "light": "rgb(244, 246, 250)"}[scheme] == background
        assert [] == tab.complaints
