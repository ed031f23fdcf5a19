"""The yardstick: aiohttp answering with fixed bytes, under the same worker as the service. No chain, no stores, no log.

Environment: BODY_FILE, CONTENT_TYPE.
"""

from __future__ import annotations

import os
from pathlib import Path

from aiohttp import web

BODY = Path(os.environ["BODY_FILE"]).read_bytes()
HEADERS = {"Content-Type": os.environ["CONTENT_TYPE"]}


async def get_class(_request: web.Request) -> web.Response:
    """The same bytes for everybody."""
    return web.Response(body=BODY, headers=HEADERS)


async def application() -> web.AppRunner:
    """What gunicorn serves; the runner's settings are the service's."""
    app = web.Application()
    app.router.add_get("/api/classes/{classId}", get_class)
    return web.AppRunner(app, access_log=None, keepalive_timeout=95)
