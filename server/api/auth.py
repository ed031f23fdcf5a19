"""/api/auth: becoming known to the service, and staying so."""

from __future__ import annotations

from aiohttp import web

from server.api.requests import read_json, refuse_query
from server.api.responses import json_response, tagged_response
from server.api.schemas import LoginSchema, RefreshSchema, RegisterSchema
from server.api.services import caller_of, services_of

_REGISTER = RegisterSchema()
_LOGIN = LoginSchema()
_REFRESH = RefreshSchema()


async def register(request: web.Request) -> web.Response:
    """Make an account and sign it in."""
    body = await read_json(request, _REGISTER)
    return json_response(await services_of(request).accounts.create_user(**body), status=201)


async def login(request: web.Request) -> web.Response:
    """Sign an account in by its password."""
    body = await read_json(request, _LOGIN)
    return json_response(await services_of(request).accounts.log_in(**body))


async def refresh(request: web.Request) -> web.Response:
    """Exchange a refresh token for new tokens."""
    body = await read_json(request, _REFRESH)
    return json_response(await services_of(request).accounts.refresh(body["refresh_token"]))


async def logout(request: web.Request) -> web.Response:
    """End a refresh token and all that descend from the same login."""
    body = await read_json(request, _REFRESH)
    await services_of(request).accounts.log_out(body["refresh_token"])
    return web.Response(status=204, headers={"Cache-Control": "no-store"})


async def get_me(request: web.Request) -> web.Response:
    """The caller's account."""
    refuse_query(request)
    user = await services_of(request).accounts.find_user(caller_of(request).user_id)
    return tagged_response(request, {"user": user})
