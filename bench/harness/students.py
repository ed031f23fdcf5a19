"""A student's evening, drawn from a seed: what a browser with our API behind it asks for, one request after the other.

The proportions are those of a study application, where most requests rate a card:

* A student studies one class of an evening, one in four a second one.
* An evening has two to four visits, with breaks that are shorter than the hour for which an overlay is kept.
* A visit opens with the list of classes and the page of the class, which shows what is left to do in each deck.
* It goes on with one to four rounds: a session is started, ten cards to study are asked for (in three rounds of five of
  the whole class, else of one deck), and each of them is rated: in nine rounds of ten with a request each, as the cards
  are turned, else as one batch at the end. The session is ended, and the page of the class is shown again, with the new
  bars. So a page follows each round of ratings that wants to know what has become of them.
* After one round in two the application asks for the progress in the class, after one in four for the figures of the
  profile; after one in five it bookmarks a card and lists the bookmarks.
* One visit in three leafs through the cards of a deck.

Nobody waits between requests: an evening is over in seconds, and all are busy at once. Confidence is drawn as in
`python -m server generate`. What the cache is asked for is counted by kind of key from what each answer needs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

CARDS_A_ROUND = 10
CONFIDENCE = ((1, 2, 3, 4, 5), (6, 9, 20, 35, 30))
# The kinds of keys: what all readers share, and the two overlays of one reader and class.
SHARED, COUNTS, CARDS = "shared content", "reader's counts", "reader's cards"

Json = Mapping[str, Any]


class Ask(Protocol):
    """Sends one request of a student: the JSON of its answer and its X-Cache, empty where no cache was asked."""

    async def __call__(self, method: str, path: str, body: Json | None = None) -> tuple[Any, str]:
        """Raises: an error for any answer but a success."""


@dataclass(slots=True)
class Tally:
    """What was asked for.

    Attributes:
        outcomes: requests by route and X-Cache.
        lookups: keys of the cache that were needed, by kind.
    """

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    lookups: Counter[str] = field(default_factory=Counter)


class Student:
    """One student; the same number and seed are the same evening."""

    def __init__(self, number: int, seed: int, ask: Ask, tally: Tally) -> None:
        self._chance = Random(f"{seed}-{number}")
        self._ask = ask
        self._tally = tally

    async def spend_evening(self) -> None:
        """From the first visit to the last."""
        chance = self._chance
        listed = await self._browse()
        classes = chance.sample(listed["classes"], 2 if chance.random() < 0.25 else 1)
        for visit in range(chance.randint(2, 4)):
            if visit > 0:
                await self._browse()
            await self._visit(chance.choice(classes)["id"])

    async def _visit(self, class_id: str) -> None:
        chance = self._chance
        decks = [deck["id"] for deck in (await self._open_class(class_id))["decks"]]
        if chance.random() < 1 / 3:
            await self._send("GET", "/api/decks/{id}/flashcards", chance.choice(decks), {SHARED: 1})
        for _ in range(chance.randint(1, 4)):
            await self._study(class_id, decks if chance.random() < 0.6 else [chance.choice(decks)])
            await self._open_class(class_id)
            if chance.random() < 0.5:
                await self._send("GET", "/api/progress/class/{id}", class_id, {SHARED: 1, COUNTS: 1})
            if chance.random() < 0.25:
                await self._send("GET", "/api/stats")

    async def _study(self, class_id: str, decks: list[str]) -> None:
        """A round: a session, its cards, their ratings."""
        chance = self._chance
        session = (await self._send("POST", "/api/sessions", body={"deckIds": decks}))["sessionId"]
        page = await self._send(
            "GET",
            "/api/classes/{id}/study",
            class_id,
            {SHARED: 1 + len(decks), CARDS: 1},
            query=f"?mode=progressive&limit={CARDS_A_ROUND}&decks={','.join(decks)}",
        )
        cards = [card["id"] for card in page["flashcards"]]
        ratings = [
            {"confidenceLevel": chance.choices(*CONFIDENCE)[0], "sessionId": session, "responseTime": 4000}
            for _ in cards
        ]
        if chance.random() < 0.9:
            for card, rating in zip(cards, ratings, strict=True):
                await self._send("PUT", "/api/progress/cards/{id}", card, body=rating)
        else:
            batch = [{"flashcardId": card, **rating} for card, rating in zip(cards, ratings, strict=True)]
            await self._send("POST", "/api/progress/cards", body={"ratings": batch})
        if chance.random() < 0.2:
            await self._send("PUT", "/api/bookmarks/{id}", chance.choice(cards))
            await self._send("GET", "/api/bookmarks")
        await self._send("POST", "/api/sessions/{id}/end", session)

    async def _browse(self) -> Any:
        return await self._send("GET", "/api/classes", needs={SHARED: 1})

    async def _open_class(self, class_id: str) -> Any:
        return await self._send("GET", "/api/classes/{id}", class_id, {SHARED: 1, COUNTS: 1})

    async def _send(
        self,
        method: str,
        path: str,
        item: str = "",
        needs: Mapping[str, int] | None = None,
        *,
        query: str = "",
        body: Json | None = None,
    ) -> Any:
        """One request. Args: needs: how many keys of each kind its answer takes from the cache."""
        answer, outcome = await self._ask(method, path.replace("{id}", item) + query, body)
        self._tally.outcomes[f"{method} {path}", outcome] += 1
        self._tally.lookups.update(needs or {})
        return answer
