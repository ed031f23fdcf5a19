"""/api/profile: what the caller says of themselves."""

from __future__ import annotations

from aiohttp import web

from server.api.requests import read_json, refuse_query
from server.api.responses import tagged_response
from server.api.schemas import ProfileSchema
from server.api.services import caller_of, services_of
from server.api.writes import answer, write
from server.domain.identity import accounts
from server.domain.writing import Answer, Unit

_CHANGES = ProfileSchema()


async def get_profile(request: web.Request) -> web.Response:
    """The caller's name and time zone."""
    refuse_query(request)
    profile = await accounts.get_profile(services_of(request).database, caller_of(request).user_id)
    return tagged_response(request, profile)


async def change_profile(request: web.Request) -> web.Response:
    """Change the name, the time zone, or both."""
    changes = await read_json(request, _CHANGES)
    if "time_zone" in changes:
        accounts.check_time_zone(changes["time_zone"])

    async def work(unit: Unit) -> Answer:
        return answer(await accounts.update_profile(unit, caller_of(request).user_id, **changes))

    return await write(request, work)
