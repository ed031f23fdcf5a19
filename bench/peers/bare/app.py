"""The yardstick: aiohttp answering with fixed bytes, under the same worker as the service. No chain, no stores, no log.

Environment: BODY_FILE, the body; HEADERS_FILE, the headers as a JSON object. Both are those of an answer of the
service: what is left between the two is what the service does, not what it says.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from aiohttp import web
from multidict import CIMultiDict

BODY = Path(os.environ["BODY_FILE"]).read_bytes()
HEADERS = CIMultiDict(json.loads(Path(os.environ["HEADERS_FILE"]).read_text()))


async def get_class(_request: web.Request) -> web.Response:
    """The same bytes for everybody."""
    return web.Response(body=BODY, headers=HEADERS)


async def application() -> web.AppRunner:
    """What gunicorn serves; the runner's settings are the service's."""
    app = web.Application()
    app.router.add_get("/api/classes/{classId}", get_class)
    return web.AppRunner(app, access_log=None, keepalive_timeout=95)
