"""The demo accounts of a development server: a student and an admin, known by fixed ids."""

from __future__ import annotations

from uuid import UUID

import psycopg2
from argon2 import PasswordHasher

from server.domain.identity.tokens import AccessTokens, Caller, Role
from server.settings import Settings

DEMO_PASSWORD = "mastery-demo-password"  # noqa: S105 - printed by `make run`; production has no such account
DEMO_IDS: dict[Role, UUID] = {
    "user": UUID("00000000-0000-4000-8000-000000000001"),
    "admin": UUID("00000000-0000-4000-8000-000000000002"),
}
DEMO_EMAILS: dict[Role, str] = {"user": "student@example.com", "admin": "admin@example.com"}
DEMO_TOKEN_SECONDS = 7 * 24 * 3600

_INSERT = """
INSERT INTO users (id, email, password_hash, name, role)
VALUES (%(id)s::uuid, %(email)s, %(password_hash)s, %(name)s, %(role)s)
    ON CONFLICT DO NOTHING
"""


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
