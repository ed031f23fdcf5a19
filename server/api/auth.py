"""/api/auth and /api/profile: sign-ins, passwords, what is kept of an account, and what its owner says of themselves.

Registration, login, refresh and logout; another password, an export, and the end of the account.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import structlog
from aiohttp import hdrs, web
from marshmallow import Schema

from server.api.requests import read_json, read_once, refuse_query
from server.api.responses import JSON, NO_STORE_LINE, json_response, refuse_without_room, tagged_response
from server.api.schemas import (
    DeletionSchema,
    LoginSchema,
    PasswordSchema,
    ProfileSchema,
    RefreshSchema,
    RegisterSchema,
    ResetSchema,
)
from server.api.services import caller_of, services_of, state_of
from server.api.whole_response import WholeResponse
from server.api.writes import answer, write
from server.domain.identity import accounts
from server.domain.identity.subjects import subject_of_email, subject_of_family
from server.domain.identity.tokens import family_of
from server.domain.identity.users import delete_user
from server.domain.writing import Answer, Unit
from server.errors import MasteryError

log = structlog.get_logger(__name__)

_REGISTER = RegisterSchema()
_LOGIN = LoginSchema()
_REFRESH = RefreshSchema()
_PASSWORD = PasswordSchema()
_RESET = ResetSchema()
_DELETION = DeletionSchema()
# What the rate limit has read from the body, for the handler; or why it could not.
_READ: web.RequestKey[dict[str, Any] | MasteryError] = web.RequestKey("auth_body", object)  # type: ignore[arg-type]
_CHANGES = ProfileSchema()


async def register(request: web.Request) -> web.Response:
    """Make an account and sign it in."""
    body = await read_json(request, _REGISTER)
    accounts = services_of(request).accounts
    return json_response(await accounts.create_user(**body, wanted=partial(_is_there, request)), status=201)


async def login(request: web.Request) -> web.Response:
    """Sign an account in by its password."""
    body = await _read_once(request, _LOGIN)
    accounts = services_of(request).accounts
    return json_response(await accounts.log_in(**body, wanted=partial(_is_there, request)))


async def name_email(request: web.Request) -> str | None:
    """The subject that a login is counted as: its address, in whatever spelling; None for a body that is no login."""
    try:
        return subject_of_email((await _read_once(request, _LOGIN))["email"])
    except MasteryError:
        return None


async def refresh(request: web.Request) -> web.Response:
    """Exchange a refresh token for new tokens."""
    body = await _read_once(request, _REFRESH)
    return json_response(await services_of(request).accounts.refresh(body["refresh_token"]))


async def name_family(request: web.Request) -> str | None:
    """The subject that a refresh is counted as: the family of its token; None for a body that has none."""
    try:
        return subject_of_family(family_of((await _read_once(request, _REFRESH))["refresh_token"]))
    except MasteryError:
        return None


async def logout(request: web.Request) -> web.Response:
    """End a refresh token and all that descend from the same login."""
    body = await read_json(request, _REFRESH)
    await services_of(request).accounts.log_out(body["refresh_token"])
    return _done()


async def change_password(request: web.Request) -> web.Response:
    """Choose another password.

    The sign-in that the access token comes from goes on; all others of the account end.
    """
    body = await read_json(request, _PASSWORD)
    caller = caller_of(request)
    await services_of(request).accounts.change_password(
        caller.user_id,
        body["current_password"],
        body["new_password"],
        access_token=request.headers[hdrs.AUTHORIZATION].partition(" ")[2].strip(),
        wanted=partial(_is_there, request),
    )
    log.info("audit.password_changed", account_id=caller.user_key)
    return _done()


async def reset_password(request: web.Request) -> web.Response:
    """Choose another password by a one-time token, as an administrator makes it; every sign-in of the account ends."""
    body = await read_json(request, _RESET)
    user_id = await services_of(request).accounts.reset_password(
        body["token"], body["new_password"], wanted=partial(_is_there, request)
    )
    log.info("audit.password_reset", account_id=str(user_id))
    return _done()


async def name_own_email(request: web.Request) -> str | None:
    """The caller's own address as a subject: a wrong current password is a failed login; None for strangers."""
    caller = state_of(request).caller
    if caller is None:
        return None
    try:
        user = await services_of(request).accounts.find_user(caller.user_id)
    except MasteryError:
        return None
    return subject_of_email(user["email"])


async def name_nobody(_request: web.Request) -> str | None:
    """None: a one-time token names no address before it is known to be one."""
    return None


async def get_me(request: web.Request) -> web.Response:
    """The caller's account."""
    refuse_query(request)
    user = await services_of(request).accounts.find_user(caller_of(request).user_id)
    return tagged_response(request, {"user": user})


async def _read_once(request: web.Request, schema: Schema) -> dict[str, Any]:
    """The JSON body, checked once: by the rate limit, and by the handler. It raises as `read_json` does."""
    return await read_once(request, _READ, lambda: read_json(request, schema))


async def export_me(request: web.Request) -> web.Response:
    """Everything that is kept about the caller; of secrets only that they are there."""
    refuse_query(request)
    caller = caller_of(request)
    document = await services_of(request).accounts.export_user(caller.user_id)
    refuse_without_room(request, len(document))
    log.info("audit.account_exported", account_id=caller.user_key)
    return web.Response(text=document, content_type=JSON, headers={hdrs.CACHE_CONTROL: "no-store"})


async def delete_me(request: web.Request) -> web.Response:
    """Delete the caller's account, with all that is its own.

    The password is required of an account that has one. The last admin can't go.
    """
    body = await read_json(request, _DELETION)
    caller = caller_of(request)
    services = services_of(request)
    await services.accounts.check_password(
        caller.user_id, body["password"], wanted=partial(_is_there, request)
    )

    async def work(unit: Unit) -> None:
        unit.stale.update(await delete_user(unit.transaction, caller.user_id))

    await services.writer.run(work, user_id=caller.user_id)
    log.info("audit.account_deleted", account_id=caller.user_key)
    return _done()


def _done() -> web.Response:
    return WholeResponse(status=204, lines=NO_STORE_LINE)


def _is_there(request: web.Request) -> bool:
    """Whether the client still waits for the answer: its connection is open."""
    return request.transport is not None


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
