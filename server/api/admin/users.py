"""/api/admin/users and …/analytics: accounts, what they may do, new passwords, and the figures of the students."""

from __future__ import annotations

from functools import partial
from uuid import UUID

import structlog
from aiohttp import web

from server.api.answers.operations import Account
from server.api.pagination import CURSORS, read_listing
from server.api.requests import path_id, read_json, read_query, refuse_query
from server.api.responses import json_response, tagged_response
from server.api.schemas import AccountChangesSchema, AccountsQuerySchema, UsersQuerySchema
from server.api.services import caller_of, services_of
from server.api.writes import answer, write
from server.clock import iso_timestamp
from server.domain.identity import users
from server.domain.study import activity
from server.domain.writing import Answer, Unit

log = structlog.get_logger(__name__)

_QUERY = AccountsQuerySchema()
_CHANGES = AccountChangesSchema()
_FIGURES_QUERY = UsersQuerySchema()


async def list_accounts(request: web.Request) -> web.Response:
    """A page of accounts, newest first."""
    listing = read_listing(request, "admin-users", _QUERY)
    before = listing.position
    rows = await users.list_users(
        services_of(request).database,
        **listing.filters,
        before=None if before is None else (before[0], UUID(before[1])),
        page_size=listing.limit + 1,
    )
    page, next_cursor = listing.page(rows, lambda row: (row["position"], str(row["id"])))
    return tagged_response(request, {"users": [Account.of(row) for row in page], "nextCursor": next_cursor})


async def get_account(request: web.Request) -> web.Response:
    """An account."""
    row = await users.get_user(services_of(request).database, path_id(request, "userId"))
    return tagged_response(request, Account.of(row))


async def update_account(request: web.Request) -> web.Response:
    """Change an account's role or plan, deactivate it, or let it in again.

    It holds for the next login and refresh at once, and for requests within 30 s. The last admin stays one.
    """
    user_id = path_id(request, "userId")
    changes = await read_json(request, _CHANGES)

    async def work(unit: Unit) -> Answer:
        row, changed = await users.update_user(unit.transaction, user_id, changes)
        unit.afterwards.append(
            partial(
                log.info,
                "audit.user_updated",
                admin_id=caller_of(request).user_key,
                account_id=str(user_id),
                changed=changed,
                role=row["role"],
                plan=row["plan"],
                deactivated=row["deactivated"],
            )
        )
        return answer(Account.of(row))

    return await write(request, work)


async def reset_password(request: web.Request) -> web.Response:
    """Make a one-time token by which the account's owner chooses a new password within an hour.

    It is answered once, and replaces the one before. An Idempotency-Key has no meaning here: the answer is not kept.
    """
    user_id = path_id(request, "userId")
    refuse_query(request)
    services = services_of(request)
    reset = await services.database.run_transaction(
        lambda transaction: users.issue_reset(transaction, user_id)
    )
    log.info("audit.password_reset_issued", admin_id=caller_of(request).user_key, account_id=str(user_id))
    return json_response({"token": reset.token, "expiresAt": iso_timestamp(reset.expires_at)}, status=201)


async def list_users(request: web.Request) -> web.Response:
    """A page of users with their figures."""
    query = read_query(request, _FIGURES_QUERY)
    cursors = request.app[CURSORS]
    listing = f"users:{query['sort']}"
    position = cursors.read(listing, query["cursor"])
    before = None if position is None else (position[0], UUID(position[1]))
    rows = await services_of(request).replica_reads.read(
        partial(activity.list_users, order=query["sort"], before=before, page_size=query["limit"] + 1)
    )
    page, next_cursor = cursors.page(listing, rows, query["limit"], lambda row: (row["rank"], str(row["id"])))
    return json_response(
        {"users": [activity.describe_user_figures(row) for row in page], "nextCursor": next_cursor}
    )


async def get_user(request: web.Request) -> web.Response:
    """One user's figures, with their progress class by class."""
    user_id = path_id(request, "userId")
    refuse_query(request)
    figures = partial(activity.get_user_figures, user_id=user_id)
    return json_response(await services_of(request).replica_reads.read(figures))
