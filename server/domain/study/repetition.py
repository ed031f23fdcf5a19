"""Spaced repetition, for the classes set to FSRS: a student's memory of a card follows from the log of reviews.

Usually a rating moves the kept memory on. Where the log has more than that (the class had another scheduler for a
while, or a device was offline), the memory is made anew from the whole log: it depends on what was rated when, and not
on the order in which we heard of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from server.domain.study.memory import Memory, remember_all
from server.domain.study.scheduling import Review, Standing
from server.stores.postgres.database import Transaction

Reviews = Mapping[UUID, Sequence[Review]]


async def memorize(transaction: Transaction, user_id: UUID, new_reviews: Reviews) -> dict[UUID, Standing]:
    """Bring a user's memories of cards up to date, and say when the cards are due.

    Args:
        transaction: in which the user's row is locked, and the reviews are in the log.
        user_id: whose memory it is.
        new_reviews: by card, each from old to new.
    """
    if not new_reviews:
        return {}
    rows = await transaction.fetch_all("list_memory_states", user_id=user_id, flashcard_ids=list(new_reviews))
    kept = {
        row["flashcard_id"]: _memory(row)
        for row in rows
        if _is_continued(row, new_reviews[row["flashcard_id"]])
    }
    counts = {row["flashcard_id"]: row["logged"] for row in rows}
    reviews = dict(new_reviews)
    anew = [flashcard_id for flashcard_id in new_reviews if flashcard_id not in kept]
    if anew:
        logged = await _read_log(transaction, user_id, anew)
        reviews |= logged
        counts |= {flashcard_id: len(entries) for flashcard_id, entries in logged.items()}
    memories = {
        flashcard_id: remember_all(kept.get(flashcard_id), entries)
        for flashcard_id, entries in reviews.items()
    }
    await _keep(transaction, user_id, memories, counts)
    return {
        flashcard_id: Standing(reviews[flashcard_id][-1], memory.due_at)
        for flashcard_id, memory in memories.items()
    }


def _is_continued(row: Mapping[str, Any], reviews: Sequence[Review]) -> bool:
    """Whether a kept memory lacks the new reviews, which come after all that it was made of, and nothing else."""
    return bool(row["logged"] == row["reviews"] + len(reviews) and reviews[0].at >= row["last_review_at"])


async def _read_log(
    transaction: Transaction, user_id: UUID, flashcard_ids: Sequence[UUID]
) -> dict[UUID, list[Review]]:
    rows = await transaction.fetch_all("list_reviews", user_id=user_id, flashcard_ids=list(flashcard_ids))
    log: dict[UUID, list[Review]] = {flashcard_id: [] for flashcard_id in flashcard_ids}
    for row in rows:
        log[row["flashcard_id"]].append(Review(row["confidence_level"], row["rated_at"]))
    return log


async def _keep(
    transaction: Transaction, user_id: UUID, memories: Mapping[UUID, Memory], counts: Mapping[UUID, int]
) -> None:
    await transaction.execute(
        "keep_memory_states",
        user_id=user_id,
        flashcard_ids=list(memories),
        stabilities=[memory.stability for memory in memories.values()],
        difficulties=[memory.difficulty for memory in memories.values()],
        states=[memory.phase for memory in memories.values()],
        steps=[memory.step for memory in memories.values()],
        due_ats=[memory.due_at for memory in memories.values()],
        last_review_ats=[memory.last_review_at for memory in memories.values()],
        review_counts=[counts[flashcard_id] for flashcard_id in memories],
    )


def _memory(row: Mapping[str, Any]) -> Memory:
    return Memory(
        stability=row["stability"],
        difficulty=row["difficulty"],
        phase=row["state"],
        step=row["step"],
        due_at=row["due_at"],
        last_review_at=row["last_review_at"],
    )
