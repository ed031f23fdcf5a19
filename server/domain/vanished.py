"""What a write refers to may be deleted between the look and the write: then its foreign key says what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from server.errors import AccountGone, NotFound
from server.stores.postgres.database import ConstraintViolated


@contextmanager
def vanished_as_not_found() -> Iterator[None]:
    """Inside, a violated foreign key says what a client would have been told a moment later.

    Raises:
        NotFound: a card or a deck is gone.
        AccountGone: the user is.
    """
    try:
        yield
    except ConstraintViolated as error:
        name = error.constraint_name
        if name.endswith("_flashcard_id_fkey"):
            raise NotFound("There is no such card.") from error
        if name.endswith("_deck_id_fkey"):
            raise NotFound("There is no such deck.") from error
        if name.endswith("_user_id_fkey"):
            raise AccountGone from error
        raise
