"""What all changes of the course have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from server.errors import InvalidInput


class UnknownClass(InvalidInput):
    """The request is not valid."""

    def __init__(self) -> None:
        super().__init__(errors={"classId": "There is no such class."})


class UnknownDeck(InvalidInput):
    """The request is not valid."""

    def __init__(self) -> None:
        super().__init__(errors={"deckId": "There is no such deck."})


@dataclass(frozen=True, slots=True)
class Edited:
    """A row after its change, and the columns that really changed."""

    row: dict[str, Any]
    changed: frozenset[str]
