"""The program that runs under valgrind: one worker's application, counted between SIGUSR1 and SIGUSR2.

From SIGUSR1 on, no timer fires: what this process does by itself now and then is not part of a request. Neither are
texts that are made once a second: the time of day stands still, or a busy machine would make them more often.

Environment: COUNTED, `bare` or `service`; SWITCH, the compiled switch.c; BEGUN, a file that is made when the counter
starts; PORT; and what the application needs.
"""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import os
import signal
import time
from collections.abc import Callable
from contextvars import Context
from pathlib import Path
from typing import Any

import uvloop
from aiohttp import web

if "COUNTED" in os.environ:  # before anything takes the function by its name; this one costs no more
    time.time = itertools.repeat(time.time()).__next__

from server.api.services import SERVICES

_LONG_SECONDS = 3600.0


class HeldTimers(uvloop.Loop):
    """An event loop whose timers can be held: those that are due from then on do nothing."""

    are_held = False

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call it after so many seconds, unless timers are held by then; `call_at` comes by here too."""
        return super().call_later(delay, self._call, callback, args, context=context)

    def _call(self, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
        if not self.are_held:
            callback(*args)


async def main() -> None:
    """Serve until SIGTERM."""
    if os.environ["COUNTED"] == "bare":
        from bench.peers.bare.app import application  # noqa: PLC0415 - each needs an environment of its own
    else:
        from server.app import application  # noqa: PLC0415 - see above
    switch = ctypes.CDLL(os.environ["SWITCH"])
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def start_counting() -> None:
        if isinstance(loop, HeldTimers):
            loop.are_held = True
        Path(os.environ["BEGUN"]).touch()
        switch.start_counting()

    loop.add_signal_handler(signal.SIGUSR1, start_counting)
    loop.add_signal_handler(signal.SIGUSR2, switch.stop_counting)
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    runner = await application()
    if (services := runner.app.get(SERVICES)) is not None:
        # At this pace half a minute passes every few requests, and rights would be read again as often.
        services.callers._recheck_seconds = _LONG_SECONDS  # noqa: SLF001 - nothing else has a use for it
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(os.environ["PORT"])).start()
    await stop.wait()
    await runner.cleanup()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=HeldTimers) as runner:
        runner.run(main())
