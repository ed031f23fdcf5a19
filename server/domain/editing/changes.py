"""What all changes of the course have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from server.errors import InvalidInput
from server.stores.database import ConstraintViolated

# What the client got wrong when one of these constraints stops a write.
_FIELD_ERRORS: Mapping[str, dict[str, str]] = {
    "decks_class_id_fkey": {"classId": "There is no such class."},
    "flashcards_deck_id_fkey": {"deckId": "There is no such deck."},
}


@dataclass(frozen=True, slots=True)
class Edited:
    """A row after its change, and the columns that really changed."""

    row: dict[str, Any]
    changed: frozenset[str]


@contextmanager
def unknown_parent_as_invalid() -> Iterator[None]:
    """Inside, a violated foreign key says which field names a class or a deck that is not there.

    Raises:
        InvalidInput: as said.
    """
    try:
        yield
    except ConstraintViolated as error:
        if error.constraint_name in _FIELD_ERRORS:
            raise InvalidInput(errors=_FIELD_ERRORS[error.constraint_name]) from error
        raise
