"""The pages as axe sees them: rules for everybody who can't see well, or has no mouse."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from typing import Any

import pytest

from server.settings import ROOT, Settings
from tests.api.conftest import Api, StartApi
from tests.support.browser import Browser, Tab, needs_chromium
from tests.support.programs import for_want_of

# From npm, with the linters of `make check`.
AXE = ROOT / ".venv" / "api-linters" / "node_modules" / "axe-core" / "axe.min.js"
RUN = """
axe.run(document, { resultTypes: ['violations'] }).then((result) =>
  result.violations.flatMap(({ id, nodes }) =>
    nodes.map(({ target, html }) => [id, target, html.slice(0, 90)].join(' '))))
"""
OPENED = (
    "[id*='livez']",
    "[id^='operations-Reading'][id$='getClass']",
    "[id^='operations-Identity'][id$='changeProfile']",
)

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(300),
    needs_chromium,
    pytest.mark.skipif(not AXE.exists(), reason=for_want_of("axe-core", "Node")),
]


@pytest.fixture(params=["dark", "light"])
async def tab(request: pytest.FixtureRequest, browser: Browser) -> AsyncIterator[Tab]:
    """A browser in one of the two schemes."""
    async with browser.open_tab() as tab:
        await tab.look_like(width=1200, height=900, scheme=request.param)
        yield tab


async def violations(tab: Tab) -> Iterable[str]:
    """What axe finds on the page."""
    await tab.evaluate(f"{AXE.read_text(encoding='utf-8')}\n;0")
    found: list[str] = await tab.evaluate(RUN)
    return found


async def test_the_reference(api: Api, tab: Tab) -> None:
    """/api/docs: every operation, three of them opened, and one tried out."""
    await tab.open(str(api.client.make_url("/api/docs")))
    for operation in OPENED:
        await tab.shows(f"{operation} .opblock-summary-control")
        await tab.evaluate(f"document.querySelector({operation!r} + ' .opblock-summary-control').click()")
    for step in (".try-out__btn", ".execute"):
        await tab.shows(f"{OPENED[0]} {step}")
        await tab.evaluate(f"document.querySelector({OPENED[0]!r} + ' {step}').click()")
    await tab.shows(f"{OPENED[0]} .live-responses-table .response-col_status")
    await tab.until("document.getAnimations().length === 0")
    assert [] == await violations(tab)


async def test_the_first_page(start_api: StartApi, settings: Settings, tab: Tab) -> None:
    """/ with the demo accounts."""
    api = await start_api(replace(settings, demo_accounts=True))
    await tab.open(str(api.client.make_url("/")))
    assert [] == await violations(tab)


async def test_the_dashboard(api: Api, tab: Tab) -> None:
    """/dashboard: the form, and what an admin sees."""
    await tab.open(str(api.client.make_url("/dashboard")))
    await tab.until("!document.getElementById('sign-in').hidden")
    assert [] == await violations(tab)
    token: Any = api.tokens.issue(api.people["admin"])
    await tab.evaluate(f"sessionStorage.setItem('mastery-access-token', {token!r})")
    await tab.call("Page.reload")
    await tab.until("document.querySelectorAll('#key-metrics .tile').length === 6")
    await tab.until("document.getAnimations().length === 0")
    assert [] == await violations(tab)
