"""`python -m server users`: the first admin, and every other account, on the command line."""

from __future__ import annotations

import asyncio
import json
import subprocess
from typing import Any
from uuid import UUID

import pytest

from server.domain.identity.users import LastAdmin, delete_user, update_user
from server.settings import Settings
from server.stores.postgres.database import Database
from tests.api.conftest import StartApi, redis_url, run_statement, settings, start_api
from tests.cli.commands import run_command, run_forked_command
from tests.conftest import run_sql

__all__ = ["redis_url", "settings", "start_api"]

EMAIL, PASSWORD = "Ada@Example.com", "correct horse battery"


def users(url: str, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run `users …`, which has to work, and print no traceback."""
    done = run_forked_command("users", *arguments, database_url=url, stdin=stdin)
    assert 0 == done.returncode, done.stderr
    return done


def refused(url: str, *arguments: str, stdin: str | None = None, code: int = 1) -> str:
    """Run `users …`, which has to be refused with a sentence; gives it."""
    done = run_forked_command("users", *arguments, database_url=url, stdin=stdin)
    assert (code, "") == (done.returncode, done.stdout)
    assert "Traceback" not in done.stderr
    return done.stderr


def audits(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """The audit events on standard error."""
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    return [line for line in lines if line["message"].startswith("audit.")]


def make(url: str, email: str = EMAIL, *options: str) -> str:
    """Make an account; its id."""
    return users(url, "create", email, "--password-stdin", *options, stdin=f"{PASSWORD}\n").stdout.split()[-1]


async def test_deploy_05_the_first_admin_is_made_and_signs_in(
    database_url: str, start_api: StartApi, settings: Settings
) -> None:
    """On an empty database, one command makes an admin, whose login opens the admin routes."""
    run_sql(database_url, "DELETE FROM users")
    create = ("users", "create", EMAIL, "--role", "admin", "--password-stdin")
    done = await asyncio.to_thread(run_command, *create, database_url=database_url, stdin=f"{PASSWORD}\n")
    assert 0 == done.returncode, done.stderr
    user_id = done.stdout.split()[-1]
    event = audits(done)[0]
    assert ("audit.user_created", user_id, "admin", "command line") == (
        event["message"], event["account_id"], event["role"], event["source"]
    )  # fmt: skip
    assert PASSWORD not in done.stderr
    assert "example.com" not in done.stderr.lower()

    api = await start_api(settings)
    login = await api.post("/api/auth/login", by=None, json={"email": EMAIL, "password": PASSWORD})
    bearer = {"Authorization": f"Bearer {(await login.json())['accessToken']}"}
    assert 200 == (await api.get("/api/admin/classes", by=None, headers=bearer)).status


def test_deploy_05_a_password_comes_from_a_terminal_or_is_asked_for_by_name(database_url: str) -> None:
    """Without a terminal and without --password-stdin nothing waits, and nothing is made."""
    assert "--password-stdin" in refused(database_url, "create", EMAIL, stdin="", code=2)
    assert "--yes" in refused(database_url, "delete", EMAIL, stdin="", code=2)
    assert [] == run_statement(database_url, "SELECT id FROM users")


@pytest.mark.parametrize(
    ("email", "options", "password", "words"),
    [
        ("nobody", (), PASSWORD, "not a valid email address"),
        (EMAIL, (), "short", "12 to 128"),
        (EMAIL, (), "", "12 to 128"),
        (EMAIL, ("--name", "a\nb"), PASSWORD, "printable"),
    ],
)
def test_deploy_05_what_is_no_account_is_refused(
    database_url: str, email: str, options: tuple[str, ...], password: str, words: str
) -> None:
    """Address, name and password are held to the rules of a registration."""
    problem = refused(database_url, "create", email, "--password-stdin", *options, stdin=f"{password}\n")
    assert words in problem
    assert [] == run_statement(database_url, "SELECT id FROM users")


def test_deploy_05_accounts_are_listed_changed_and_deleted(database_url: str) -> None:
    """Each action does what it says, by address or id, and is an audit event."""
    admin = make(database_url, EMAIL, "--role", "admin")
    user = make(database_url, "bob@example.com", "--name", "Bob")
    assert "has an account" in refused(
        database_url, "create", "BOB@example.com", "--password-stdin", stdin=f"{PASSWORD}\n"
    )

    assert [user, admin] == [line.split()[0] for line in users(database_url, "list").stdout.splitlines()]
    assert [admin] == [
        line.split()[0] for line in users(database_url, "list", "--role", "admin").stdout.splitlines()
    ]
    assert [user] == [
        line.split()[0] for line in users(database_url, "list", "--search", "BOB").stdout.splitlines()
    ]

    for arguments, expected, changed in (
        (("set-role", "Bob@Example.com", "admin"), ("admin", None, False), ["role"]),
        (("set-plan", user, "team"), ("admin", "team", False), ["plan"]),
        (("deactivate", user), ("admin", "team", True), ["is_deactivated"]),
        (("deactivate", user), ("admin", "team", True), []),
        (("reactivate", user), ("admin", "team", False), ["is_deactivated"]),
        (("set-plan", user, "none"), ("admin", None, False), ["plan"]),
    ):
        done = users(database_url, *arguments)
        row = run_statement(
            database_url, "SELECT role, plan, deactivated_at IS NOT NULL FROM users WHERE id = %s", user
        )
        assert [expected] == row
        event = audits(done)[0]
        assert ("audit.user_updated", user, changed) == (
            event["message"],
            event["account_id"],
            event["changed"],
        )
        assert ("no limits for the plan team" in done.stderr) == (arguments[-1] == "team")

    assert "audit.user_deleted" == audits(users(database_url, "delete", user, "--yes"))[0]["message"]
    assert [(admin,)] == run_statement(database_url, "SELECT id::text FROM users")
    for action in (("set-role", "admin"), ("set-plan", "team"), ("deactivate",), ("reset-password",)):
        assert "no such account" in refused(database_url, action[0], user, *action[1:])
        assert "no such account" in refused(database_url, action[0], "bob@example.com", *action[1:])
    assert "no such account" in refused(database_url, "delete", user, "--yes")


def test_deploy_05_the_last_admin_stays(database_url: str) -> None:
    """The last admin who can sign in is neither demoted, deactivated nor deleted; their plan is free."""
    make(database_url, EMAIL, "--role", "admin")
    for arguments in (("set-role", EMAIL, "user"), ("deactivate", EMAIL), ("delete", EMAIL, "--yes")):
        assert "last admin" in refused(database_url, *arguments)
    users(database_url, "set-plan", EMAIL, "team")
    assert [("admin", None, "team")] == run_statement(
        database_url, "SELECT role, deactivated_at, plan FROM users"
    )


@pytest.mark.parametrize("action", ["demote", "deactivate", "delete"])
async def test_deploy_05_admins_who_leave_at_once_leave_one(database_url: str, action: str) -> None:
    """Of four admins who all go at the same moment, one stays: whoever comes last is refused."""
    database = Database(database_url, pool_size=4)
    await database.start()
    run_sql(
        database_url,
        "INSERT INTO users (email, role) SELECT n || '@example.com', 'admin' FROM generate_series(1, 4) AS n",
    )
    ids = [UUID(row[0]) for row in run_statement(database_url, "SELECT id::text FROM users")]

    async def leave(user_id: UUID) -> None:
        async with database.transaction() as transaction:
            if action == "delete":
                await delete_user(transaction, user_id)
            else:
                changes = {"role": "user"} if action == "demote" else {"is_deactivated": True}
                await update_user(transaction, user_id, changes)

    results = await asyncio.gather(*map(leave, ids), return_exceptions=True)
    await database.close()
    assert [LastAdmin] == [type(result) for result in results if result is not None]


def test_deploy_05_an_older_schema_is_named(empty_url: str) -> None:
    """On a database without tables, the answer is what to run."""
    assert "python -m server migrate" in refused(empty_url, "list")


def test_deploy_05_a_token_is_for_development(database_url: str) -> None:
    """Outside development `token` prints none of an account that is not there, and says what to do."""
    key = {"SECRET_KEY": "s" * 32}
    done = run_command("token", "--role", "admin", database_url=database_url, **key, MASTERY_ENV="production")
    assert (1, "") == (done.returncode, done.stdout)
    assert "users create EMAIL --role admin" in done.stderr
    done = run_command("token", database_url=database_url, **key, MASTERY_ENV="development")
    assert (0, 3) == (done.returncode, len(done.stdout.split(".")))
