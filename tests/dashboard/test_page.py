"""The dashboard as somebody on call sees it: in a real Chromium, over the real service with two workers."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from server.development import EmbeddedServer, redis_server
from server.domain.identity.users import DEMO_EMAILS, DEMO_PASSWORD
from server.settings import ROOT
from tests.conftest import run_sql
from tests.support.browser import Browser, Tab, needs_chromium
from tests.support.service import Service, running_service

pytestmark = pytest.mark.timeout(300)  # a browser, and a service with two workers

# Every canvas has pixels of more than the colours of its axes: the line of its first series.
DRAWN = """
(() => {
  const charts = [...document.querySelectorAll('.plot canvas')];
  if (charts.length !== 6) return false;
  const rgb = getComputedStyle(document.documentElement).getPropertyValue('--series-1').trim()
    .match(/[0-9a-f]{2}/g).map((digits) => parseInt(digits, 16));
  const hasLine = (canvas) => {
    const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    for (let at = 0; at < pixels.length; at += 4) {
      if (pixels[at + 3] > 250 && rgb.every((part, place) => Math.abs(pixels[at + place] - part) < 8)) return true;
    }
    return false;
  };
  return charts.every(hasLine);
})()
"""
# Notes when the tile of Redis turned red, and how late this page's timers have been at most: by so much less has the
# machine let it run, and the test too.
WATCH_REDIS = """
(() => {
  const tile = document.querySelector('[data-name=cache]');
  window.watched = { redAt: null, lateMs: 0 };
  let due = performance.now() + 100;
  setInterval(() => {
    watched.lateMs = Math.max(watched.lateMs, performance.now() - due);
    due = performance.now() + 100;
  }, 100);
  new MutationObserver(() => {
    if (tile.dataset.state === 'critical') watched.redAt ??= Date.now();
  }).observe(tile, { attributes: true, attributeFilter: ['data-state'] });
  return tile.dataset.state;
})()
"""
# The words that stand on two lines, and the boxes whose content is wider than they are.
BROKEN = """
(() => {
  const range = document.createRange(), broken = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    for (const word of node.data.matchAll(/[^\\s\\/\\u2013·-]+/g)) {
      range.setStart(node, word.index);
      range.setEnd(node, word.index + word[0].length);
      const lines = new Set([...range.getClientRects()].filter((box) => box.width).map((box) => Math.round(box.top)));
      if (lines.size > 1) broken.push(word[0]);
    }
  }
  for (const box of document.querySelectorAll('.tile, .chart, .card, .top, .heading')) {
    if (box.scrollWidth > box.clientWidth + 1) broken.push(`${box.className}: ${box.scrollWidth} > ${box.clientWidth}`);
  }
  return broken;
})()
"""
PICTURES = os.environ.get("MASTERY_TEST_PICTURES")  # a folder for what the tests have looked at
FOCUS = "document.activeElement.id || document.activeElement.className || document.activeElement.tagName"


@pytest.fixture(scope="module")
def killed_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A Redis of the module's own, which the last test kills."""
    with redis_server(tmp_path_factory.mktemp("redis"), options=('save ""',)) as server:
        yield server


@pytest.fixture(scope="module")
def service(
    shared_postgres: EmbeddedServer, killed_redis: EmbeddedServer, database_template: str
) -> Iterator[Service]:
    """Two workers that are asked something all the time."""
    with running_service(
        shared_postgres,
        killed_redis,
        database_template,
        RATE_LIMITS_FILE=str(ROOT / "bench" / "ratelimits.toml"),
    ) as service:
        ended = threading.Event()

        def ask() -> None:
            # So seldom that the alerts' minimum of a hundred is far: how fast a busy machine answers is no matter here.
            while not ended.wait(1.0):
                service.request("GET", "/api/classes", token=service.user_token)

        put = ("PUT", "/api/admin/rate-limits/ip:198.51.100.7/overrides/generous")
        assert (
            200 == service.request(*put, token=service.admin_token, body={"limit": 500, "seconds": 7200})[0]
        )
        limits = subprocess.run(
            [sys.executable, "-m", "server", "limits", "block", "ip:203.0.113.9", "--seconds", "3600"],
            cwd=ROOT, env=service.environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert 0 == limits.returncode, limits.stderr
        asking = threading.Thread(target=ask)
        asking.start()
        yield service
        ended.set()
        asking.join()


@pytest.fixture
async def tab(service: Service, browser: Browser) -> AsyncIterator[Tab]:
    """A browser on the sign-in form; what it complains about fails the test."""
    async with browser.open_tab() as tab:
        await tab.look_like(width=1200, height=900, scheme="dark")
        await tab.open(f"{service.address}/dashboard")
        await tab.until("!document.getElementById('sign-in').hidden")
        yield tab
        assert [] == tab.complaints


async def sign_in(tab: Tab) -> None:
    """With the keyboard alone, as the admin of the demo accounts."""
    await tab.until("document.activeElement.id === 'email'")
    await tab.type(DEMO_EMAILS["admin"])
    await tab.press("Tab")
    await tab.type(DEMO_PASSWORD)
    await tab.press("Enter")
    await tab.until("document.querySelectorAll('#key-metrics .tile').length === 6")


@needs_chromium
async def test_an_admin_signs_in_and_the_charts_draw(service: Service, tab: Tab) -> None:
    """Six tiles with their states in words, two services, six charts with lines; a reload keeps all of it."""
    await sign_in(tab)
    await tab.until(DRAWN)
    assert "✓ All is well" == await tab.text("#overall")
    tiles = await tab.text("#key-metrics")
    for title in (
        "p95 response time",
        "Cache hit rate",
        "p95 query time",
        "Error rate",
        "rejections",
        "Memory",
    ):
        assert title in tiles
    assert 2 == (await tab.text("#services")).count("✓ Healthy")
    assert "/api/classes" in await tab.text("#routes")
    await tab.call("Page.reload")
    await tab.until(f"document.readyState === 'complete' && {DRAWN}")
    assert await tab.evaluate("document.getElementById('sign-in').hidden")
    assert service.process


@needs_chromium
async def test_a_token_opens_it_too_and_a_wrong_one_does_not(service: Service, tab: Tab) -> None:
    """A pasted token works; a student's and a made-up one are refused in words; signing out forgets it."""
    answers = {
        "made up": "Please sign in again.",
        service.user_token: "This account is not an administrator's.",
    }
    await tab.evaluate("document.querySelector('details').open = true")
    for token, message in answers.items():
        await tab.evaluate("document.getElementById('token').focus()")
        await tab.type(token)
        await tab.press("Enter")
        await tab.until(f"document.getElementById('sign-in-error').textContent === {message!r}")
    assert all("status of 40" in complaint for complaint in tab.complaints)  # as a console shows any refusal
    tab.complaints.clear()
    await tab.evaluate("document.getElementById('token').focus()")
    await tab.type(service.admin_token)
    await tab.press("Enter")
    await tab.until("document.querySelectorAll('#key-metrics .tile').length === 6")
    await tab.evaluate("document.getElementById('sign-out').click()")
    await tab.until("!document.getElementById('sign-in').hidden")
    assert 0 == await tab.evaluate("sessionStorage.length")


@needs_chromium
async def test_a_broken_word_and_a_wide_box_are_found(tab: Tab) -> None:
    """What looks at the pages sees what it looks for."""
    assert [] == await tab.evaluate(BROKEN)
    await tab.evaluate(
        "(window.title = document.getElementById('sign-in-title'), title.textContent = 'Incomprehensibilities', "
        "title.style.width = '40px', title.style.overflowWrap = 'anywhere')[0]"
    )
    assert ["Incomprehensibilities"] == await tab.evaluate(BROKEN)
    await tab.evaluate("(title.style.width = '9999px')[0]")
    (wide,) = await tab.evaluate(BROKEN)
    assert wide.startswith("card sign-in: ")


async def look(tab: Tab, name: str, width: int) -> None:
    """Nothing has to be scrolled sideways, no word is broken, nothing is wider than its box; keep the picture."""
    assert [width, width] == await tab.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert [] == await tab.evaluate(BROKEN)
    if PICTURES:
        height = await tab.evaluate("document.documentElement.scrollHeight")
        scheme = "light" if "light" in name else "dark"
        await tab.look_like(width=width, height=height, scheme=scheme)
        (Path(PICTURES) / f"{name}.png").write_bytes(await tab.photograph())


@needs_chromium
async def test_blocks_overrides_and_sources_are_shown(service: Service, tab: Tab) -> None:
    """Each client is masked and has its end; each worker has its decisions by source; the machine is named."""
    await sign_in(tab)
    await tab.until("document.querySelectorAll('#exceptions tbody tr').length === 2")
    rows = await tab.evaluate(
        "[...document.querySelectorAll('#exceptions tbody tr')]"
        ".map((row) => [...row.cells].map((cell) => cell.innerText))"
    )
    assert [["ip:203.0.113.…", "all", "blocked"], ["ip:198.51.100.…", "generous", "500"]] == [
        row[:3] for row in rows
    ]
    assert all(re.search(r"\d\d:\d\d$", row[3]) for row in rows)
    await tab.until("document.querySelectorAll('#workers tbody tr').length === 2")
    head = await tab.evaluate("[...document.querySelectorAll('#workers th')].map((cell) => cell.innerText)")
    assert (["Worker", "Redis"], "Now") == (head[:2], head[-1])
    answer = json.loads(service.request("GET", "/api/dashboard", token=service.admin_token)[1])
    assert socket.gethostname() == answer["machine"] == await tab.text("#machine")
    assert str(answer["process"]) in {worker["worker"] for worker in answer["workers"]}
    await look(tab, "dashboard-dark", 1200)
    await tab.look_like(width=1200, height=900, scheme="light")
    await tab.until(DRAWN)
    await look(tab, "dashboard-light", 1200)


@needs_chromium
@pytest.mark.parametrize("scheme", ["dark", "light"])
async def test_it_fits_a_phone_in_both_schemes(service: Service, tab: Tab, scheme: str) -> None:
    """At 375 pixels nothing is scrolled sideways or broken, and text stands out from what is behind it."""
    await tab.look_like(width=375, height=800, scheme=scheme)
    await sign_in(tab)
    await tab.until(DRAWN)
    await tab.until("document.querySelectorAll('#exceptions tbody tr').length === 2")
    await look(tab, f"dashboard-phone-{scheme}", 375)
    background = await tab.evaluate("getComputedStyle(document.body).backgroundColor")
    text = await tab.evaluate("getComputedStyle(document.body).color")
    assert (luminance(background) < luminance(text)) == (scheme == "dark")
    for selector in ("body", ".tile .state", ".tile .basis", ".chart .key", "h3", "th", ".method"):
        colour = await tab.evaluate(f"getComputedStyle(document.querySelector({selector!r})).color")
        assert (
            contrast(
                colour,
                await tab.evaluate("getComputedStyle(document.querySelector('.card')).backgroundColor"),
            )
            >= 4.5
        )
    assert service.process


@needs_chromium
async def test_the_keyboard_reaches_everything(service: Service, tab: Tab) -> None:
    """Tab goes through the links and buttons in their order, and Enter changes the time shown."""
    await sign_in(tab)
    await tab.until("document.activeElement.id === 'main'")
    for seconds in ("600", "3600"):
        await tab.press("Tab")
        assert seconds == await tab.evaluate("document.activeElement.dataset.seconds")
    await tab.press("Enter")
    assert "true" == await tab.evaluate("document.activeElement.getAttribute('aria-pressed')")
    names = await tab.evaluate("[...document.querySelectorAll('[role=img]')].map((plot) => plot.ariaLabel)")
    assert 6 == sum(bool(re.fullmatch(r".+, last 60 minutes\. .+\.", name)) for name in names)
    assert 0 == await tab.evaluate(
        "[...document.querySelectorAll('img')].filter((image) => image.alt === null).length"
    )
    await tab.evaluate("document.body.tabIndex = -1, document.body.focus()")
    await tab.press("Tab")
    assert "skip" == await tab.evaluate(FOCUS)
    assert service.process


def test_the_terminal_prints_the_same(service: Service) -> None:
    """Without a URL it asks this machine; nothing critical is exit code 0, an address without a service 1."""
    here = run_status(service)
    assert (0, "") == (here.returncode, here.stderr)
    lines = here.stdout.splitlines()
    assert ["KEY METRIC", "NOW", "STATE", "BASIS"] == re.split(r"\s{2,}", lines[0])
    assert 6 == sum(bool(re.search(r" (good|warning|unknown) +", line)) for line in lines[1:8])
    assert re.search(r"^database +\d+\.\d\d ms  healthy$", here.stdout, re.MULTILINE)
    nowhere = run_status(service, "http://127.0.0.1:1")
    assert (1, "") == (nowhere.returncode, nowhere.stdout)
    assert nowhere.stderr.startswith("mastery: http://127.0.0.1:1 does not answer: ")
    assert 1 == run_status(service, "ftp://127.0.0.1").returncode
    elsewhere = run_status(service, "http://mastery.invalid")
    assert (1, True) == (elsewhere.returncode, "METRICS_TOKEN is not set" in elsewhere.stderr)


@needs_chromium
async def test_deploy_08_a_read_only_database_is_yellow(
    service: Service, shared_postgres: EmbeddedServer, tab: Tab
) -> None:
    """The tile is no outage: it says what still works, and turns green again by itself."""
    await sign_in(tab)
    database = service.environment["DATABASE_URL"].rpartition("/")[2]
    run_sql(shared_postgres.url, f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    run_sql(
        shared_postgres.url,
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'",  # noqa: S608
    )
    await tab.until("document.querySelector('[data-name=database]').dataset.state === 'warning'")
    assert "read_only" in await tab.text("#services")
    assert "Reading goes on" in await tab.text("#services")
    run_sql(shared_postgres.url, f"ALTER DATABASE {database} SET default_transaction_read_only = off")
    await tab.until("document.querySelector('[data-name=database]').dataset.state === 'good'")


@needs_chromium
async def test_a_stopped_redis_is_red_within_five_seconds(
    service: Service, killed_redis: EmbeddedServer, tab: Tab
) -> None:
    """The tile turns red, says what that means, and screen readers are told; the charts stay, and go on."""
    await sign_in(tab)
    await tab.until(DRAWN)
    # On a busy machine Redis may answer a look too late.
    await tab.until("document.querySelector('[data-name=cache]').dataset.state === 'good'")
    assert "good" == await tab.evaluate(WATCH_REDIS)
    killed_at = time.time()
    os.kill(killed_redis.pid, signal.SIGKILL)
    await tab.until("watched.redAt !== null")
    red_at, late_ms = await tab.evaluate("[watched.redAt, watched.lateMs]")
    assert red_at / 1000 - killed_at < 5 + late_ms / 1000
    assert "rgb(255, 107, 107)" == await tab.evaluate(
        "getComputedStyle(document.querySelector('[data-name=cache]'), '::before').backgroundColor"
    )
    assert "Redis is down" in await tab.text("#announcement")
    assert "Slower, but correct" in await tab.text("#services")
    assert await tab.evaluate("document.title.startsWith('✖')")
    await tab.until(
        "document.querySelector('#exceptions tbody tr').innerText.startsWith('ip:198')"
    )  # from memory
    for width in (1200, 375):
        await tab.look_like(width=width, height=900, scheme="dark")
        await look(tab, f"dashboard-redis-down-{width}", width)
    last = await tab.evaluate("Number(charts.lastTime)")
    await tab.until(f"charts.lastTime > {last + 5} && {DRAWN}")
    status = run_status(service, service.address)
    assert (1, "mastery: critical: cache\n") == (status.returncode, status.stderr)
    assert re.search(r"^cache +\d+\.\d\d ms  unhealthy  \w+$", status.stdout, re.MULTILINE)


def run_status(service: Service, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m server status`."""
    return subprocess.run(
        [sys.executable, "-m", "server", "status", *arguments],
        cwd=ROOT,
        env={**service.environment, "LOG_LEVEL": "warning"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def luminance(colour: str) -> float:
    """Relative luminance of `rgb(…)`: WCAG 2.2, section 1.4.3."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours, from 1 to 21."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)
