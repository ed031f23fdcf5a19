"""The program that runs under valgrind: one worker's application, counted between SIGUSR1 and SIGUSR2.

Environment: COUNTED, `bare` or `service`; SWITCH, the compiled switch.c; PORT; and what the application needs.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal

import uvloop
from aiohttp import web


async def main() -> None:
    """Serve until SIGTERM."""
    if os.environ["COUNTED"] == "bare":
        from bench.peers.bare.app import application  # noqa: PLC0415 - each needs an environment of its own
    else:
        from server.app import application  # noqa: PLC0415 - see above
    switch = ctypes.CDLL(os.environ["SWITCH"])
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, switch.start_counting)
    loop.add_signal_handler(signal.SIGUSR2, switch.stop_counting)
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    runner = await application()
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(os.environ["PORT"])).start()
    await stop.wait()
    await runner.cleanup()


uvloop.run(main())
