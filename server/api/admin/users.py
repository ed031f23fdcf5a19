"""/api/admin/users: accounts, what they may do, and new passwords for their owners."""

from __future__ import annotations

from functools import partial
from uuid import UUID

import structlog
from aiohttp import web

from server.api.pagination import read_listing
from server.api.requests import path_id, read_json, refuse_query
from server.api.responses import json_response, tagged_response
from server.api.schemas import AccountChangesSchema, AccountsQuerySchema
from server.api.services import caller_of, services_of
from server.api.writes import answer, write
from server.clock import iso_timestamp
from server.domain.identity.users import describe_account, get_user, issue_reset, list_users, update_user
from server.domain.writing import Answer, Unit

log = structlog.get_logger(__name__)

_QUERY = AccountsQuerySchema()
_CHANGES = AccountChangesSchema()


async def list_accounts(request: web.Request) -> web.Response:
    """A page of accounts, newest first."""
    listing = read_listing(request, "admin-users", _QUERY)
    before = listing.position
    rows = await list_users(
        services_of(request).database,
        **listing.filters,
        before=None if before is None else (before[0], UUID(before[1])),
        page_size=listing.limit + 1,
    )
    page, next_cursor = listing.page(rows, lambda row: (row["position"], str(row["id"])))
    return tagged_response(
        request, {"users": [describe_account(row) for row in page], "nextCursor": next_cursor}
    )


async def get_account(request: web.Request) -> web.Response:
    """An account."""
    row = await get_user(services_of(request).database, path_id(request, "userId"))
    return tagged_response(request, describe_account(row))


async def update_account(request: web.Request) -> web.Response:
    """Change an account's role or plan, deactivate it, or let it in again.

    It holds for the next login and refresh at once, and for requests within 30 s. The last admin stays one.
    """
    user_id = path_id(request, "userId")
    changes = await read_json(request, _CHANGES)

    async def work(unit: Unit) -> Answer:
        row, changed = await update_user(unit.transaction, user_id, changes)
        unit.afterwards.append(
            partial(
                log.info,
                "audit.user_updated",
                admin_id=caller_of(request).user_key,
                account_id=str(user_id),
                changed=changed,
                role=row["role"],
                plan=row["plan"],
                deactivated=row["deactivated_at"] is not None,
            )
        )
        return answer(describe_account(row))

    return await write(request, work)


async def reset_password(request: web.Request) -> web.Response:
    """Make a one-time token by which the account's owner chooses a new password within an hour.

    It is answered once, and replaces the one before. An Idempotency-Key has no meaning here: the answer is not kept.
    """
    user_id = path_id(request, "userId")
    refuse_query(request)
    services = services_of(request)
    reset = await services.database.run_transaction(lambda transaction: issue_reset(transaction, user_id))
    log.info("audit.password_reset_issued", admin_id=caller_of(request).user_key, account_id=str(user_id))
    return json_response({"token": reset.token, "expiresAt": iso_timestamp(reset.expires_at)}, status=201)
