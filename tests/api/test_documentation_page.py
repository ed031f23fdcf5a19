"""/api/openapi.json and /api/docs over HTTP, and the page in a real browser."""

from __future__ import annotations

import re

import orjson
import pytest

from server.api.openapi.document import openapi_document
from tests.api.conftest import Api, Course
from tests.support.browser import Browser, needs_chromium

ADDRESS = re.compile(r'(?:href|src)="(/api/docs/[^"]+)"')


@pytest.mark.parametrize("coding", ["identity", "gzip"])
async def test_the_document_is_for_everybody_and_has_a_tag(api: Api, coding: str) -> None:
    """A stranger gets it, packed if that is wanted, and 304 with the tag that came with it."""
    headers = {"Accept-Encoding": coding}
    first = await api.get("/api/openapi.json", by=None, headers=headers)
    again = await api.get(
        "/api/openapi.json", by=None, headers={**headers, "If-None-Match": first.headers["ETag"]}
    )
    assert 200 == first.status
    assert "public, no-cache" == first.headers["Cache-Control"]
    assert (coding if coding == "gzip" else None) == first.headers.get("Content-Encoding")
    assert orjson.loads(openapi_document()) == await first.json()
    assert (304, b"") == (again.status, await again.read())


async def test_the_page_loads_only_our_files(api: Api) -> None:
    """Each of its files is there, for good: another version has another name."""
    page = await api.get("/api/docs", by=None)
    text = await page.text()
    assert "text/html" == page.content_type
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "unsafe" not in page.headers["Content-Security-Policy"]
    addresses = ADDRESS.findall(text)
    assert 4 == len(addresses)
    assert 5 == len(re.findall(r"<(?:script|link|style|img)\b", text))  # the fifth is an empty icon
    for address in addresses:
        file = await api.get(address, by=None)
        assert 200 == file.status
        assert "public, max-age=31536000, immutable" == file.headers["Cache-Control"]
        assert ("text/css" if address.endswith(".css") else "text/javascript") == file.content_type


@pytest.mark.parametrize("name", ["index.html", "swagger-ui.css", "..%2Fdocs%2Fstart.js", "README.md"])
async def test_other_files_are_not_there(api: Api, name: str) -> None:
    """Neither the page by another name, nor what else lies in the folders."""
    response = await api.get(f"/api/docs/{name}", by=None)
    assert 404 == response.status
    assert "application/problem+json" == response.content_type


@needs_chromium
async def test_a_browser_shows_the_api_and_its_policy_refuses_nothing(api: Api, browser: Browser) -> None:
    """Swagger UI lists every operation, opens one, and sends a request; the console has nothing to complain of."""
    operations = sum(len(methods) for methods in orjson.loads(openapi_document())["paths"].values())
    async with browser.open_tab() as tab:
        await tab.call("Page.navigate", url=str(api.client.make_url("/api/docs")))
        await tab.shows(".opblock-summary")
        assert operations == await tab.evaluate("document.querySelectorAll('.opblock-summary').length")
        for step in (
            "[id*='livez'] .opblock-summary-control",
            "[id*='livez'] .try-out__btn",
            "[id*='livez'] .execute",
        ):
            await tab.shows(step)
            await tab.evaluate(f"document.querySelector({step!r}).click()")
        await tab.shows("[id*='livez'] .live-responses-table .response-col_status")
        assert "200" in await tab.evaluate("document.querySelector('.live-responses-table').innerText")
        for scheme, background in (("dark", "rgb(28, 32, 34)"), ("light", "rgba(0, 0, 0, 0)")):
            await tab.look_like(width=1200, height=900, scheme=scheme)
            await tab.until(f"getComputedStyle(document.documentElement).backgroundColor === {background!r}")
        assert [] == tab.complaints


@needs_chromium
async def test_a_browser_signs_in_and_makes_an_authorised_call(
    api: Api, course: Course, browser: Browser
) -> None:
    """A token that is given to the page's form goes with the request, to a path with an id: the class is shown."""
    class_id = course.classes["Risk"]
    token = api.tokens.issue(api.people["user"])
    operation = "[id^='operations-Reading'][id$='getClass']"
    async with browser.open_tab() as tab:
        await tab.call("Page.navigate", url=str(api.client.make_url("/api/docs")))

        async def click(selector: str) -> None:
            await tab.shows(selector)
            await tab.evaluate(f"document.querySelector({selector!r}).click()")

        async def fill(selector: str, text: str) -> None:
            await tab.shows(selector)
            await tab.evaluate(f"document.querySelector({selector!r}).focus()")
            await tab.type(text)

        await click(".btn.authorize")
        await fill(".auth-container input", token)
        await click(".auth-btn-wrapper .btn.authorize")
        await click(".auth-btn-wrapper .btn-done")
        await click(f"{operation} .opblock-summary-control")
        await click(f"{operation} .try-out__btn")
        await fill(f"{operation} [data-param-name='classId'] input", str(class_id))
        # What was typed reaches the form a moment later; until then a click is answered with "Required field".
        execute, status = f"{operation} .execute", f"{operation} .live-responses-table .response-col_status"
        await tab.until(
            f"(document.querySelector({execute!r}).click(), document.querySelector({status!r}) !== null)"
        )
        shown = await tab.text(f"{operation} .live-responses-table")
        assert "200" in shown.split()
        assert '"name": "Analysis"' in shown
        assert [] == tab.complaints
