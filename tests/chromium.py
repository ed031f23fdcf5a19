"""A headless Chromium, driven over its DevTools protocol: just what the tests of the pages need."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import aiohttp

from tests.waiting import wait_until

NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--disable-dev-shm-usage", "--remote-debugging-port=0", "--lang=en-GB",
)  # fmt: skip
_START_SECONDS = 60
_LOOK_SECONDS = 0.1  # each look makes the page work
_LARGEST_MESSAGE_BYTES = 32 * 1024 * 1024


def find_chromium() -> str | None:
    """The program, if there is one."""
    return next((path for path in map(shutil.which, NAMES) if path is not None), None)


class Tab:
    """A tab of the browser; what its console and its security policy complain about is in `complaints`."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.complaints: list[str] = []

    async def read(self) -> None:
        """Take in what the browser sends, until it ends."""
        async for message in self._socket:
            body = message.json()
            if body.get("id") in self._waiting:
                self._waiting.pop(body["id"]).set_result(body)
            elif body.get("method") == "Runtime.exceptionThrown":
                self.complaints.append(str(body["params"]["exceptionDetails"]))
            elif body.get("method") == "Log.entryAdded":
                entry = body["params"]["entry"]
                if entry["source"] == "rendering":
                    continue  # advice on how our own looking at the canvas could be faster
                self.complaints.append(f"{entry['source']}: {entry['text']} {entry.get('url', '')}")

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Run a method of the protocol."""
        number = next(self._numbers)
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        body = await asyncio.wait_for(future, _START_SECONDS)
        assert "error" not in body, body
        result: dict[str, Any] = body["result"]
        return result

    async def open(self, address: str) -> None:
        """Go to a page, and wait until it is loaded."""
        await self.call("Page.navigate", url=address)
        await self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    async def run(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is awaited."""
        answer = await self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def until(self, expression: str, seconds: float = 60) -> None:
        """Wait until a JavaScript expression is true."""
        deadline = monotonic() + seconds
        while not await self.run(expression):
            assert monotonic() < deadline, f"{expression}: not within {seconds} s; {self.complaints}"
            await asyncio.sleep(_LOOK_SECONDS)

    async def text(self, selector: str) -> str:
        """What one reads in an element."""
        return str(await self.run(f"document.querySelector({selector!r}).innerText"))

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


@asynccontextmanager
async def chromium_tab(program: str, folder: Path) -> AsyncIterator[Tab]:
    """A tab of a browser of its own, which is gone with its profile folder's owner."""
    process = await asyncio.create_subprocess_exec(
        program,
        *_FLAGS,
        f"--user-data-dir={folder}",
        "about:blank",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    port_file = folder / "DevToolsActivePort"
    try:
        await wait_until(
            lambda: port_file.exists() and "\n" in port_file.read_text(), "the browser", _START_SECONDS
        )
        port = int(port_file.read_text().splitlines()[0])
        async with aiohttp.ClientSession() as client:
            async with client.get(f"http://127.0.0.1:{port}/json/list") as answer:
                tabs = [tab for tab in await answer.json() if tab["type"] == "page"]
            async with client.ws_connect(
                tabs[0]["webSocketDebuggerUrl"], max_msg_size=_LARGEST_MESSAGE_BYTES
            ) as socket:
                tab = Tab(socket)
                reading = asyncio.create_task(tab.read())
                for domain in ("Page", "Runtime", "Log"):
                    await tab.call(f"{domain}.enable")
                yield tab
            await reading
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        await process.wait()
