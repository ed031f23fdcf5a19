"""What people say of themselves: their name, and the time zone in which their days of study are counted."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from server.domain.writing import Unit
from server.domain.zones import find_zone
from server.errors import AccountGone, InvalidInput
from server.stores.postgres.database import Database


class UnknownTimeZone(InvalidInput):
    """There is no such time zone."""

    status = 422
    code = "unknown_time_zone"
    title = "Unprocessable Content"


def check_time_zone(name: str) -> None:
    """See that a profile may name a time zone.

    Raises:
        UnknownTimeZone: there is none of this name.
    """
    if find_zone(name) is None:
        raise UnknownTimeZone(errors={"timeZone": "This is not an IANA time zone such as Europe/Berlin."})


async def update_profile(
    unit: Unit, user_id: UUID, *, time_zone: str | None = None, **changes: str | None
) -> dict[str, Any]:
    """Change a profile.

    Args:
        unit: the unit of work.
        user_id: whose profile it is.
        time_zone: one that `check_time_zone` takes; None for the one that the profile has.
        changes: `name`, where it is to change; None for no name.

    Raises:
        AccountGone: the account no longer exists.
    """
    row = await unit.transaction.fetch_one(
        "update_profile",
        user_id=user_id,
        sets_name="name" in changes,
        name=changes.get("name"),
        time_zone=time_zone,
    )
    return _profile(row)


class Profiles:
    """Reads profiles."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get_profile(self, user_id: UUID) -> dict[str, Any]:
        """A user's profile.

        Raises:
            AccountGone: the account no longer exists.
        """
        return _profile(await self._database.fetch_one("get_profile", user_id=user_id))


def _profile(row: dict[str, Any] | None) -> dict[str, Any]:
    if row is None:
        raise AccountGone
    return {"name": row["name"], "timeZone": row["time_zone"]}
