"""The picture in the README: `python -m tests.support.photograph_dashboard ADDRESS docs/dashboard.png < TOKEN`.

Of a running service that has had some minutes of traffic; the token is an admin's.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from tests.dashboard.test_page import DRAWN
from tests.support.browser import CHROMIUM, running_browser


async def photograph(address: str, token: str) -> bytes:
    """Sign in with a token, wait for the charts, and take the picture."""
    assert CHROMIUM is not None, "there is no Chromium here"
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        running_browser(Path(folder)) as browser,
    ):
        async with browser.open_tab() as tab:
            await tab.look_like(width=1200, height=1130, scheme="dark")
            await tab.open(f"{address}/dashboard")
            await tab.evaluate(f"sessionStorage.setItem('mastery-access-token', {token!r})")
            await tab.call("Page.reload")
            await tab.until(DRAWN)
            return await tab.photograph()


if __name__ == "__main__":
    Path(sys.argv[2]).write_bytes(asyncio.run(photograph(sys.argv[1], sys.stdin.read().strip())))
