"""A real Chromium without a window, driven over the DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType

from tests.support.programs import for_want_of
from tests.support.waiting import eventually

_LOOK_SECONDS = 0.1  # each look makes the page work
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason=for_want_of("chromium"))


class Tab:
    """A page of the browser; `complaints` is everything that its console has warned of."""

    def __init__(self, socket: ClientWebSocketResponse) -> None:
        self.complaints: list[str] = []
        self._socket = socket
        self._ids = count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol."""
        number = next(self._ids)
        answered = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        answer = await asyncio.wait_for(answered, timeout=30)
        assert "error" not in answer, f"{method}: {answer}"
        result: dict[str, Any] = answer["result"]
        return result

    async def evaluate(self, expression: str) -> Any:
        """The value of an expression of JavaScript in the page."""
        answer = await self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, f"{expression}: {answer}"
        return answer["result"].get("value")

    async def shows(self, selector: str) -> None:
        """Wait until the page has an element."""
        await self.until(f"document.querySelector({selector!r}) !== null")

    async def open(self, address: str) -> None:
        """Go to a page, and wait until it is loaded."""
        await self.call("Page.navigate", url=address)
        await self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    async def until(self, expression: str, seconds: float = 60) -> None:
        """Wait until a JavaScript expression is true."""
        deadline = monotonic() + seconds
        while not await self.evaluate(expression):
            assert monotonic() < deadline, f"{expression}: not within {seconds} s; {self.complaints}"
            await asyncio.sleep(_LOOK_SECONDS)

    async def text(self, selector: str) -> str:
        """What one reads in an element."""
        return str(await self.evaluate(f"document.querySelector({selector!r}).innerText"))

    async def press(self, key: str) -> None:
        """Press a key: `Tab`, `Enter`, or a character."""
        codes = {"Tab": 9, "Enter": 13}
        text = "\r" if key == "Enter" else key if len(key) == 1 else ""
        for kind in ("keyDown", "keyUp"):
            await self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                text=text if kind == "keyDown" else "",
                windowsVirtualKeyCode=codes.get(key, 0),
            )

    async def type(self, text: str) -> None:
        """Type into what has the focus."""
        await self.call("Input.insertText", text=text)

    async def look_like(self, *, width: int, height: int, scheme: str, scale: float = 1) -> None:
        """Be a screen of this size (CSS pixels), with this preferred colour scheme."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )
        await self.call(
            "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
        )

    async def photograph(self) -> bytes:
        """What is shown, as PNG."""
        answer = await self.call("Page.captureScreenshot", format="png")
        return base64.b64decode(answer["data"])

    async def listen(self) -> None:
        """Take what the browser sends, until it hangs up."""
        async for message in self._socket:
            if message.type is not WSMsgType.TEXT:
                continue
            said = message.json()
            if "id" in said:
                self._answers.pop(said["id"]).set_result(said)
            elif said["method"] == "Log.entryAdded":
                entry = said["params"]["entry"]
                if (
                    entry["source"] != "rendering"
                ):  # advice on how our own looking at a canvas could be faster
                    self.complaints.append(entry["text"])
            elif said["method"] == "Runtime.exceptionThrown":
                self.complaints.append(str(said["params"]["exceptionDetails"]))
            elif said["method"] == "Runtime.consoleAPICalled" and said["params"]["type"] in {
                "error",
                "warning",
            }:
                self.complaints.append(str(said["params"]["args"]))


@dataclass(frozen=True, slots=True)
class Browser:
    """A running Chromium: where it listens for the DevTools protocol."""

    port: int

    @asynccontextmanager
    async def open_tab(self) -> AsyncIterator[Tab]:
        """Open an empty page that shares nothing with other pages, neither cookies nor storage nor a cache."""
        async with ClientSession(f"http://127.0.0.1:{self.port}") as session:
            async with session.get("/json/version") as response:
                control = (await response.json())["webSocketDebuggerUrl"]
            async with self._connected(session, control) as browser:
                context = (await browser.call("Target.createBrowserContext"))["browserContextId"]
                page = await browser.call("Target.createTarget", url="about:blank", browserContextId=context)
                async with self._connected(session, f"/devtools/page/{page['targetId']}") as tab:
                    for domain in ("Log", "Page", "Runtime"):
                        await tab.call(f"{domain}.enable")
                    yield tab
                await browser.call("Target.disposeBrowserContext", browserContextId=context)

    @staticmethod
    @asynccontextmanager
    async def _connected(session: ClientSession, address: str) -> AsyncIterator[Tab]:
        async with session.ws_connect(address, max_msg_size=0) as socket:
            tab = Tab(socket)
            listening = asyncio.create_task(tab.listen())
            yield tab
        await listening


@contextmanager
def running_browser(folder: Path) -> Iterator[Browser]:
    """Start Chromium with its profile in a folder."""
    assert CHROMIUM is not None
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",  # containers run as root
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-quic",
        "--disable-sync",
        "--no-first-run",
        "--hide-scrollbars",
        "--remote-debugging-port=0",
        "--window-size=1300,1600",
        f"--user-data-dir={folder}",
        "about:blank",
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        port_file = folder / "DevToolsActivePort"
        eventually(lambda: port_file.exists() and "\n" in port_file.read_text(), "the browser's port")
        yield Browser(int(port_file.read_text().split("\n")[0]))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
