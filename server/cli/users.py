"""`python -m server users`: accounts, on the command line. The first admin is made here.

Each change is an audit event, as the same change over HTTP is; `source` says that it came from here. A development
server has two demo accounts, a student and an admin, with fixed ids.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from uuid import UUID

import psycopg2
import structlog
from argon2 import PasswordHasher
from marshmallow import ValidationError, validate

from server.cli.database import tell_readers
from server.clock import iso_timestamp
from server.domain.identity.accounts import EmailTaken, add_account
from server.domain.identity.passwords import LONGEST, SHORTEST, Passwords
from server.domain.identity.tokens import AccessTokens, Caller, Role
from server.domain.identity.users import (
    DEMO_EMAILS,
    DEMO_IDS,
    DEMO_PASSWORD,
    PLAN_FORM,
    delete_user,
    issue_reset,
    list_users,
    update_user,
)
from server.email_addresses import normal_email, stored_spelling
from server.errors import CommandError, MasteryError
from server.ratelimit.limits_file import RateLimitsError, load_rate_limits
from server.settings import Settings
from server.stores.postgres.database import Database, DatabaseUnavailable, SchemaOutdated, Transaction

log = structlog.get_logger(__name__)

Result = TypeVar("Result")

_PAGE = 100
_DEADLINE_MS = 10_000
_LONGEST_NAME = 255

DEMO_TOKEN_SECONDS = 7 * 24 * 3600
_INSERT = """
INSERT INTO users (id, email, password_hash, name, role)
VALUES (%(id)s::uuid, %(email)s, %(password_hash)s, %(name)s, %(role)s)
    ON CONFLICT DO NOTHING
"""


def create_user(settings: Settings, email: str, *, password: str, name: str | None, role: Role) -> str:
    """Make an account that signs in with its password, in clear; its address may be in any spelling.

    Returns:
        A line about what was made.

    Raises:
        CommandError: address, name or password are not usable, the address has an account, or there is no database.
    """
    try:
        validate.Email()(normal_email(email))
    except ValidationError as error:
        raise CommandError(f"{email}: not a valid email address") from error
    if not SHORTEST <= len(password) <= LONGEST:
        raise CommandError(f"a password has {SHORTEST} to {LONGEST} characters, and this one {len(password)}")
    if name is not None and not (name.isprintable() and 1 <= len(name.strip()) <= _LONGEST_NAME):
        raise CommandError(f"a name has 1 to {_LONGEST_NAME} printable characters")
    password_hash = asyncio.run(Passwords().hash(password))

    async def work(transaction: Transaction) -> dict[str, Any]:
        user = await add_account(
            transaction,
            email=email,
            password_hash=password_hash,
            name=None if name is None else name.strip(),
        )
        if role != user["role"]:
            user, _ = await update_user(transaction, user["id"], {"role": role})
        return user

    try:
        user = _change(settings, work)
    except EmailTaken as error:
        raise CommandError(f"{email} has an account; `users set-role` changes what it may do") from error
    _audit("audit.user_created", user["id"], role=role)
    return f"{user['email']}: {role}, {user['id']}"


def list_all_users(
    settings: Settings, *, role: Role | None, text: str | None, write: Callable[[str], object]
) -> None:
    """Write a line about each account with this role and this text in its address or name, newest first.

    Raises:
        CommandError: there is no database.
    """

    async def work(database: Database) -> None:
        before: tuple[str, UUID] | None = None
        while True:
            rows = await list_users(database, role=role, text=text, before=before, page_size=_PAGE)
            for row in rows:
                write(_line(row))
            if len(rows) < _PAGE:
                return
            before = (rows[-1]["position"], rows[-1]["id"])

    _run(settings, work)


def change_user(settings: Settings, who: str, **changes: Any) -> str:
    """Change `role`, `plan` or `is_deactivated` of an account, which is named by its address or id.

    Returns:
        A line about what it is now.

    Raises:
        CommandError: there is no such account, it is the last admin, or there is no database.
    """
    plan = changes.get("plan")
    if plan is not None and re.fullmatch(PLAN_FORM, plan) is None:
        raise CommandError(
            f"{plan}: a plan is 1 to 32 lower-case letters, digits and hyphens, a letter first"
        )

    async def work(transaction: Transaction) -> tuple[dict[str, Any], list[str]]:
        return await update_user(transaction, await _find(transaction, who), changes)

    user, changed = _change(settings, work)
    _audit(
        "audit.user_updated",
        user["id"],
        changed=changed,
        role=user["role"],
        plan=user["plan"],
        deactivated=user["deactivated_at"] is not None,
    )
    return _line(user)


def knows_plan(settings: Settings, plan: str) -> bool:
    """Whether the rate limits file has limits for a plan.

    Raises:
        CommandError: the file is not valid.
    """
    try:
        return plan in load_rate_limits(settings.rate_limits_file).plans
    except RateLimitsError as error:
        raise CommandError(str(error)) from error


def reset_password(settings: Settings, who: str) -> tuple[str, str]:
    """Make the one-time token by which the owner of an account, named by its address or id, chooses a new password.

    Returns:
        The token, and until when it can be used.

    Raises:
        CommandError: there is no such account, it has no password here, or there is no database.
    """

    async def work(transaction: Transaction) -> tuple[UUID, str, str]:
        user_id = await _find(transaction, who)
        reset = await issue_reset(transaction, user_id)
        return user_id, reset.token, iso_timestamp(reset.expires_at)

    user_id, token, expires_at = _change(settings, work)
    _audit("audit.password_reset_issued", user_id)
    return token, expires_at


def delete_account(settings: Settings, who: str) -> bool:
    """Delete an account, named by its address or id, with all that is its own.

    Returns:
        Whether Redis knows. If it does not answer, what it holds of the account ends with its time to live.

    Raises:
        CommandError: there is no such account, it is the last admin, or there is no database.
    """

    async def work(transaction: Transaction) -> tuple[UUID, set[str]]:
        user_id = await _find(transaction, who)
        return user_id, await delete_user(transaction, user_id)

    user_id, stale = _change(settings, work)
    _audit("audit.user_deleted", user_id)
    return tell_readers(settings, stale)


async def _find(transaction: Transaction, who: str) -> UUID:
    try:
        return UUID(who)
    except ValueError:
        row = await transaction.fetch_one(
            "find_user_by_email", email=normal_email(who), spelling=stored_spelling(who)
        )
    if row is None:
        raise CommandError(f"{who}: there is no such account")
    user_id: UUID = row["id"]
    return user_id


def _change(settings: Settings, work: Callable[[Transaction], Awaitable[Result]]) -> Result:
    return _run(settings, lambda database: database.run_transaction(work))


def _run(settings: Settings, work: Callable[[Database], Awaitable[Result]]) -> Result:
    async def run() -> Result:
        database = Database(
            settings.database_url,
            pool_size=1,
            acquire_timeout_ms=_DEADLINE_MS,
            query_timeout_ms=_DEADLINE_MS,
        )
        try:
            return await work(database)
        finally:
            await database.close()

    try:
        return asyncio.run(run())
    except EmailTaken:
        raise
    except SchemaOutdated as error:
        raise CommandError("the schema is older than this release; run `python -m server migrate`") from error
    except DatabaseUnavailable as error:
        raise CommandError(
            f"the database does not answer ({error.reason}); is DATABASE_URL right?"
        ) from error
    except MasteryError as error:
        raise CommandError(error.detail) from error


def _line(user: dict[str, Any]) -> str:
    state = "deactivated" if user["deactivated_at"] is not None else "active"
    return f"{user['id']}  {user['role']:<5}  {state:<11}  {user['plan'] or '-'}  {user['email']}"


def _audit(event: str, user_id: UUID, **more: Any) -> None:
    log.info(event, source="command line", account_id=str(user_id), **more)


def ensure_demo_accounts(url: str, *, with_password: bool = False) -> None:
    """Make the demo accounts where they are missing.

    Args:
        url: of the migrated database.
        with_password: whether DEMO_PASSWORD signs them in. It is public: only for a database of our own.
            Without it, there are only the tokens.
    """
    password_hash = PasswordHasher().hash(DEMO_PASSWORD) if with_password else None
    connection = psycopg2.connect(url)
    try:
        with connection, connection.cursor() as cursor:
            for role, user_id in DEMO_IDS.items():
                cursor.execute(
                    _INSERT,
                    {
                        "id": str(user_id),
                        "email": DEMO_EMAILS[role],
                        "password_hash": password_hash,
                        "name": f"Demo {role}",
                        "role": role,
                    },
                )
    finally:
        connection.close()


def demo_token(settings: Settings, role: Role) -> str:
    """An access token of the demo account with a role, valid for a week."""
    tokens = AccessTokens(settings.secret_key, lifetime_seconds=DEMO_TOKEN_SECONDS)
    return tokens.issue(Caller(DEMO_IDS[role], role))
