"""The demo accounts of a development server: a student and an admin, with fixed ids and a public password.

`make run` makes them in a database of its own, and nothing else does.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from server.domain.identity.tokens import Role

DEMO_PASSWORD: Final = "mastery-demo-password"  # noqa: S105 - printed by `make run`; production has no such account
DEMO_IDS: Final[dict[Role, UUID]] = {
    "user": UUID("00000000-0000-4000-8000-000000000001"),
    "admin": UUID("00000000-0000-4000-8000-000000000002"),
}
DEMO_EMAILS: Final[dict[Role, str]] = {"user": "student@example.com", "admin": "admin@example.com"}
