"""What a student sees of a class: the shared content with their own overlay laid over it, in the order of study.

A page is put together once, and given again as long as its parts stay the same.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Sequence
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from server.bounded_dict import BoundedDict
from server.clock import iso_timestamp
from server.domain.catalog.catalog import Catalog, class_key, position
from server.domain.study.overlays import Overlays, cards_key, counts_key
from server.domain.study.study_order import StudyMode, StudyPass, choose_cards
from server.domain.values import percentage
from server.errors import InvalidInput
from server.stores.cache.cache import CacheKeys, Seen

DEFAULT_MAX_PAGES = 5_000
Name = TypeVar("Name", bound=Hashable)


class Page:
    """A finished answer. Its rendering may be kept with it; its content never changes.

    Attributes:
        content: the answer.
        seen: the versions of the cached values that it was made of; None if it was not made of such.
        rendering: what the first to render it has kept.
    """

    __slots__ = ("_parts", "content", "rendering", "seen")

    def __init__(self, content: dict[str, Any], parts: tuple[object, ...]) -> None:
        self.content = content
        self.seen: Seen | None = None
        self.rendering: Any = None
        self._parts = parts

    def is_made_of(self, *parts: object) -> bool:
        """Whether it was made of these very objects: the cache gives the same one for the same version of a value."""
        return all(map(operator.is_, self._parts, parts))


class Place:
    """Where the latest page of one kind and reader is, with the keys of what it is made of."""

    __slots__ = ("keys", "page")

    def __init__(self, keys: CacheKeys) -> None:
        self.keys = keys
        self.page: Page | None = None


class Pages(Generic[Name]):
    """The places by name, the oldest forgotten first.

    Args:
        keys_of: the cache keys that the page of a name is made of.
        max_pages: how many places are known.
    """

    def __init__(self, keys_of: Callable[[Name], CacheKeys], max_pages: int = DEFAULT_MAX_PAGES) -> None:
        self._keys_of = keys_of
        self._places: BoundedDict[Name, Place] = BoundedDict(max_pages)

    def place(self, name: Name) -> Place:
        """The place of a name."""
        place = self._places.get(name)
        if place is None:
            place = self._places[name] = Place(self._keys_of(name))
        return place


class Reading:
    """The pages of a class for one reader. Content and overlay are asked for together: one round trip to Redis."""

    def __init__(self, catalog: Catalog, overlays: Overlays) -> None:
        self._catalog = catalog
        self._overlays = overlays
        self._pages: Pages[tuple[UUID, UUID]] = Pages(_page_keys)

    def look_up_class(self, user_id: UUID, class_id: UUID) -> ClassPageLookup:
        """A class as a reader sees it, asked for now and read later."""
        return ClassPageLookup(self._pages, self._catalog, self._overlays, user_id, class_id)

    async def get_class_progress(self, user_id: UUID, class_id: UUID) -> dict[str, Any]:
        """How many of a class's cards the reader has seen, by mastery.

        Raises:
            NotFound: it is unknown or not published.
        """
        content, counts = await self.look_up_class(user_id, class_id).parts()
        total = sum(deck["cardCount"] for deck in content["decks"])
        by_status = {
            status: sum(deck.get(status, 0) for deck in counts.values())
            for status in ("new", "learning", "mastered")
        }
        studied = sum(by_status.values())
        return {
            "classId": str(class_id),
            "totalCards": total,
            "studiedCards": studied,
            "newCards": by_status["new"],
            "learningCards": by_status["learning"],
            "masteredCards": by_status["mastered"],
            "progress": percentage(studied, total),
        }

    async def study(
        self,
        user_id: UUID,
        class_id: UUID,
        *,
        mode: StudyMode,
        deck_ids: Sequence[UUID] | None,
        limit: int,
        on: StudyPass | None = None,
    ) -> tuple[dict[str, Any], StudyPass | None]:
        """The cards to study now, each with the reader's progress, and how it goes on; None at the end.

        `totalCards` is how many there are to choose from.

        Args:
            user_id: the reader.
            class_id: the class.
            mode: which cards, in which order.
            deck_ids: those whose cards are studied; None for all.
            limit: at most so many cards.
            on: how far the reader has come; None from the beginning.

        Raises:
            NotFound: the class is unknown or not published.
            InvalidInput: one of the decks is not a published deck of the class.
        """
        keys = class_key(class_id), cards_key(user_id, class_id)
        class_reply, cards_reply = self._catalog.cache.lookup_each(*keys)
        class_lookup = self._catalog.read_class(class_reply, class_id)
        cards_lookup = self._overlays.read_cards(cards_reply, user_id, class_id)
        content = await class_lookup.value()
        known = {deck["id"]: deck for deck in content["decks"]}
        wanted = (
            list(known) if deck_ids is None else list(dict.fromkeys(str(deck_id) for deck_id in deck_ids))
        )
        foreign = [deck_id for deck_id in wanted if deck_id not in known]
        if foreign:
            raise InvalidInput(errors={"decks": f"not decks of this class: {', '.join(foreign)}"})
        progress = await cards_lookup.value(content["fingerprint"])
        in_order = [UUID(deck_id) for deck_id in known if deck_id in set(wanted)]
        decks = await self._catalog.get_decks(in_order)
        cards = [card for deck in decks for card in deck["flashcards"]]
        deck_of = {card["id"]: known[deck["deck"]["id"]] for deck in decks for card in deck["flashcards"]}
        chosen, following = choose_cards(
            cards,
            progress,
            mode=mode,
            on=on or StudyPass.begin(iso_timestamp(datetime.now(UTC))),
            limit=limit,
            place_of=lambda card: [*position(deck_of[card["id"]]), card["order"], card["id"]],
        )
        page = {
            "mode": mode,
            "class": {"id": content["id"], "name": content["name"]},
            "totalCards": len(cards),
            "flashcards": [
                _with_progress(card, deck_of[card["id"]], progress.get(card["id"])) for card in chosen
            ],
        }
        return page, following


class ClassPageLookup:
    """A class and the reader's counts, on their way from the cache in one command."""

    __slots__ = ("_catalog", "_class_id", "_lookups", "_overlays", "_place", "_user_id")

    def __init__(
        self,
        pages: Pages[tuple[UUID, UUID]],
        catalog: Catalog,
        overlays: Overlays,
        user_id: UUID,
        class_id: UUID,
    ) -> None:
        self._catalog = catalog
        self._overlays = overlays
        self._user_id = user_id
        self._class_id = class_id
        self._place = pages.place((user_id, class_id))
        page = self._place.page
        self._lookups = catalog.cache.lookups(self._place.keys, None if page is None else page.seen)

    async def parts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The class as every reader sees it, and the reader's counts.

        Raises:
            NotFound: it is unknown or not published.
        """
        content_lookup, counts_lookup = self._lookups.each()
        content = await self._catalog.read_class(content_lookup, self._class_id).value()
        counts = self._overlays.read_counts(counts_lookup, self._user_id, self._class_id)
        return content, await counts.value(content["fingerprint"])

    def page_at_hand(self) -> Page | None:
        """The page that was made last, if the cache has just said that its parts are still the same."""
        page = self._place.page
        if page is None or page.seen is None or not self._lookups.are_still(page.seen):
            return None
        return page

    async def page(self) -> Page:
        """The class with its decks and how far the reader is in each.

        Raises:
            NotFound: it is unknown or not published.
        """
        await self._lookups.wait()
        page = self.page_at_hand()
        if page is not None:
            return page
        content, counts = await self.parts()
        page = self._place.page
        if page is None or not page.is_made_of(content, counts):
            page = self._place.page = Page(_lay_over(content, counts), (content, counts))
        page.seen = self._lookups.seen()
        return page


def _page_keys(reader: tuple[UUID, UUID]) -> CacheKeys:
    user_id, class_id = reader
    return CacheKeys(class_key(class_id), counts_key(user_id, class_id))


def _lay_over(content: dict[str, Any], counts: dict[str, Any]) -> dict[str, Any]:
    decks = []
    for deck in content["decks"]:
        studied = sum(counts.get(deck["id"], {}).values())
        decks.append(
            {
                "id": deck["id"],
                "name": deck["name"],
                "description": deck["description"],
                "cardCount": deck["cardCount"],
                "studiedCount": studied,
                "progress": percentage(studied, deck["cardCount"]),
                "order": deck["order"],
            }
        )
    shared = ("id", "name", "description", "icon", "color")
    return {**{key: content[key] for key in shared}, "decks": decks}


def _with_progress(card: dict[str, Any], deck: dict[str, Any], seen: dict[str, Any] | None) -> dict[str, Any]:
    progress = None
    if seen is not None:
        progress = {key: seen[key] for key in ("confidenceLevel", "masteryStatus", "nextReviewDate")}
    return {
        "id": card["id"],
        "deckId": deck["id"],
        "deckName": deck["name"],
        "question": card["question"],
        "answer": card["answer"],
        "explanation": card["explanation"],
        "category": card["category"],
        "order": card["order"],
        "progress": progress,
    }
