"""Accounts as administrators see and change them, over HTTP and on the command line; those of a development server.

A change holds where the account is read next: at the next login or refresh, and for callers that a process remembers
after `callers.RECHECK_SECONDS` at most. The demo accounts, a student and an admin, have fixed ids and a public
password: `make run` makes them in a database of its own, and nothing else does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from server.domain.identity.tokens import Role, hash_of, new_secret
from server.domain.study.activity import lock_activity
from server.domain.study.overlays import overlay_keys
from server.errors import AccountGone, Conflict, NotFound
from server.stores.postgres.database import Database, Transaction

DEMO_PASSWORD: Final = "mastery-demo-password"  # noqa: S105 - printed by `make run`; production has no such account
DEMO_IDS: Final[dict[Role, UUID]] = {
    "user": UUID("00000000-0000-4000-8000-000000000001"),
    "admin": UUID("00000000-0000-4000-8000-000000000002"),
}
DEMO_EMAILS: Final[dict[Role, str]] = {"user": "student@example.com", "admin": "admin@example.com"}
RESET_SECONDS: Final = 3600
# The names that config/ratelimits.toml can give to a plan.
PLAN_FORM: Final = r"[a-z][a-z0-9-]{0,31}"
# A user may have rated a hundred thousand cards: their rows go with the account.
_DELETION_MS: Final = 20_000


class LastAdmin(Conflict):
    """This is the last admin who can sign in: make another one first."""

    code = "last_admin"


class ForeignPassword(Conflict):
    """This account signs in with an external issuer, which keeps its password."""

    code = "external_account"


@dataclass(frozen=True, slots=True)
class Reset:
    """A one-time token for a new password; it is known here and nowhere else."""

    token: str
    expires_at: datetime


async def update_user(
    transaction: Transaction, user_id: UUID, changes: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Change what an account may do.

    Args:
        transaction: in which it happens.
        user_id: the account.
        changes: any of `role`, `plan` (None for the default) and `is_deactivated`; a deactivated account is signed out
            everywhere.

    Returns:
        The account, and the names of what has really changed.

    Raises:
        NotFound: there is no such account.
        LastAdmin: the service would have no administrator.
    """
    if changes.get("role", "admin") != "admin" or changes.get("is_deactivated"):
        await _see_that_an_admin_stays(transaction, user_id)
    before = _found(await transaction.fetch_one("lock_account", user_id=user_id))
    known = {
        "role": before["role"],
        "plan": before["plan"],
        "is_deactivated": before["deactivated"],
    }
    changed = sorted(name for name, value in changes.items() if value != known[name])
    if not changed:
        return before, []
    if changes.get("is_deactivated"):
        await transaction.execute("end_sign_ins", user_id=user_id, kept_family_id=None)
    after = await transaction.fetch_one("update_account", user_id=user_id, **(known | dict(changes)))
    return _found(after), changed


async def issue_reset(transaction: Transaction, user_id: UUID) -> Reset:
    """Make the token by which an account's owner chooses a new password within `RESET_SECONDS`.

    Raises:
        NotFound: there is no such account.
        ForeignPassword: it has none here.
    """
    account = _found(await transaction.fetch_one("lock_account", user_id=user_id))
    if account["external_issuer"] is not None:
        raise ForeignPassword
    token = new_secret()
    row = await transaction.fetch_one(
        "add_password_reset", user_id=user_id, token_hash=hash_of(token), lifetime_seconds=RESET_SECONDS
    )
    if row is None:
        raise RuntimeError("add_password_reset gave no row")
    return Reset(token, row["expires_at"])


async def delete_user(transaction: Transaction, user_id: UUID) -> set[str]:
    """Delete an account with all that is its own.

    Returns:
        The keys under which a cache may still hold some of it.

    Raises:
        NotFound: there is no such account.
        LastAdmin: the service would have no administrator.
    """
    await transaction.extend_deadline(_DELETION_MS)
    try:
        await lock_activity(transaction, user_id)  # first, as every write of the user does
    except AccountGone as error:
        raise NotFound("There is no such account.") from error
    await _see_that_an_admin_stays(transaction, user_id)
    await transaction.execute("delete_user", user_id=user_id)
    classes = await transaction.fetch_all("list_class_ids")
    return {key for row in classes for key in overlay_keys(user_id, row["id"])}


async def list_users(
    database: Database,
    *,
    role: Role | None,
    text: str | None,
    before: tuple[str, UUID] | None,
    page_size: int,
) -> list[dict[str, Any]]:
    """Accounts, newest first.

    Args:
        database: to be asked.
        role: only those with this one.
        text: only those with this in their address or name, in capitals or not.
        before: `position` and `id` of the last row of the page before; None for the first one.
        page_size: how many at most.
    """
    created, user_id = before or (None, None)
    return await database.fetch_all(
        "list_accounts", role=role, text=text, before_created=created, before_id=user_id, page_size=page_size
    )


async def get_user(database: Database, user_id: UUID) -> dict[str, Any]:
    """An account.

    Raises:
        NotFound: there is none with this id.
    """
    return _found(await database.fetch_one("get_account", user_id=user_id))


async def _see_that_an_admin_stays(transaction: Transaction, user_id: UUID) -> None:
    admins = [row["id"] for row in await transaction.fetch_all("lock_admins")]
    if admins == [user_id]:
        raise LastAdmin


def _found(row: dict[str, Any] | None) -> dict[str, Any]:
    if row is None:
        raise NotFound("There is no such account.")
    return row
