"""Cards go: with them what students did with them, and the figures of those students follow."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from server.stores.database import Transaction


async def delete_progress_in_decks(transaction: Transaction, deck_ids: Sequence[UUID]) -> None:
    """Delete the progress on all cards of decks that are locked and about to be deleted."""
    cards = await transaction.fetch_all("list_card_ids", deck_ids=list(deck_ids))
    await delete_progress_on_cards(transaction, [card["id"] for card in cards])


async def delete_progress_on_cards(transaction: Transaction, flashcard_ids: Sequence[UUID]) -> None:
    """Delete the progress on cards that are about to be deleted and can't move to another deck until then.

    The cascade of a card's deletion would do it as well, card by card, and count each student's figures anew for
    each. It would also lock cards and figures in the opposite order of a rating, which takes the figures first:
    here, too, they come first, and in one order.
    """
    if flashcard_ids:
        await transaction.execute("lock_students_of_cards", flashcard_ids=list(flashcard_ids))
        await transaction.execute("delete_progress_on_cards", flashcard_ids=list(flashcard_ids))
