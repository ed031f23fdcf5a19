"""What administrators may send about classes, decks and cards.

POST takes a schema as a whole, PATCH takes any part of it: a field left out stays as it was, null clears one that may
be null. Texts are trimmed; their lengths count characters.
"""

from __future__ import annotations

from marshmallow import Schema, fields, validate

from server.api.schemas import Flag, FlagWord, Identifier, Integer, PageSchema, Text
from server.domain.catalog.deck_rows import HEADER_RULES
from server.domain.catalog.deck_tables import SEPARATORS
from server.domain.study.repetition import SCHEDULERS
from server.ratelimit.overrides import MAX_DURATION_MS
from server.ratelimit.policies import MAX_LIMIT

LONGEST_NAME = 255
LONGEST_NOTE = 2000
LONGEST_CARD_TEXT = 5000
LONGEST_ICON = 64
LONGEST_COLOR = 32
LONGEST_FILTER = 200
HIGHEST_ORDER = 2**31 - 1


def _text(shortest: int, longest: int) -> Text:
    accepted = validate.Length(shortest, longest, error="Must be {min} to {max} characters.")
    return Text(required=True, validate=accepted)


def _note(longest: int) -> Text:
    accepted = validate.Length(max=longest, error="Must be at most {max} characters.")
    return Text(load_default=None, allow_none=True, validate=accepted)


def _order() -> Integer:
    accepted = validate.Range(0, HIGHEST_ORDER, error="Must be from {min} to {max}.")
    return Integer(load_default=0, data_key="order", attribute="sort_order", validate=accepted)


def _published() -> Flag:
    return Flag(load_default=False, data_key="isPublished", attribute="is_published")


class ClassSchema(Schema):
    """POST /api/admin/classes, PATCH /api/admin/classes/{classId}.

    `name` 1 to 255 characters; `description` (null) up to 2000; `icon` (null) up to 64 and `color` (null) up to 32,
    for the client to understand; `order` (0) among the classes; `isPublished` (false); `scheduler`: when a rated card
    is due again, "fixed" (a table; the default) or "fsrs" (spaced repetition).
    """

    name = _text(1, LONGEST_NAME)
    description = _note(LONGEST_NOTE)
    icon = _note(LONGEST_ICON)
    color = _note(LONGEST_COLOR)
    sort_order = _order()
    is_published = _published()
    scheduler = fields.String(
        load_default="fixed", validate=validate.OneOf(SCHEDULERS, error="Must be one of {choices}.")
    )


class DeckSchema(Schema):
    """POST /api/admin/decks, PATCH /api/admin/decks/{deckId}.

    `classId` of an existing class, published or not: another one moves the deck; `name` 1 to 255 characters;
    `description` (null) up to 2000; `order` (0) among the decks of the class; `isPublished` (false).
    """

    class_id = Identifier(required=True, data_key="classId")
    name = _text(1, LONGEST_NAME)
    description = _note(LONGEST_NOTE)
    sort_order = _order()
    is_published = _published()


class FlashcardSchema(Schema):
    """POST /api/admin/flashcards, PATCH /api/admin/flashcards/{flashcardId}.

    `deckId` of an existing deck, published or not: another one moves the card, and students keep their progress on
    it; `question` and `answer` 1 to 5000 characters; `explanation` (null) and `category` (null, tags separated by
    commas) up to 2000; `order` (0) among the cards of the deck; `isPublished` (false).
    """

    deck_id = Identifier(required=True, data_key="deckId")
    question = _text(1, LONGEST_CARD_TEXT)
    answer = _text(1, LONGEST_CARD_TEXT)
    explanation = _note(LONGEST_NOTE)
    category = _note(LONGEST_NOTE)
    sort_order = _order()
    is_published = _published()


class ClassesQuerySchema(PageSchema):
    """GET /api/admin/classes.

    `published` true or false: only those that are, or only drafts; `q`: only those with this text in their name, in
    capitals or not. Each may be left out.
    """

    published = FlagWord(load_default=None)
    text = Text(
        load_default=None,
        data_key="q",
        validate=validate.Length(1, LONGEST_FILTER, error="Must be {min} to {max} characters."),
    )


class DecksQuerySchema(ClassesQuerySchema):
    """GET /api/admin/decks: as for classes, and `classId`: only the decks of this class."""

    class_id = Identifier(load_default=None, data_key="classId")


class FlashcardsQuerySchema(DecksQuerySchema):
    """GET /api/admin/flashcards: as for decks, but `q` is looked for in question, answer and category; and `deckId`."""

    deck_id = Identifier(load_default=None, data_key="deckId")


class ImportQuerySchema(Schema):
    """POST /api/admin/decks/{deckId}/import: how the file is to be read, and whether it is only tried out."""

    dry_run = FlagWord(
        load_default=False,
        data_key="dryRun",
        metadata={"description": "true: answer what would be created and changed, and store nothing."},
    )
    dialect = fields.String(
        load_default=None,
        validate=validate.OneOf(list(SEPARATORS)),
        metadata={
            "description": "What divides the columns of a table, where the file itself leaves two answers."
        },
    )
    escapes = fields.String(
        load_default=None,
        validate=validate.OneOf(["none"]),
        metadata={
            "description": "none: `\\n` written out is text, also in a TSV without quotes, where it is a line break."
        },
    )
    header = fields.String(
        load_default=None,
        validate=validate.OneOf(list(HEADER_RULES)),
        metadata={
            "description": "none: the first row is a card, also where it looks like a header. skip: the first row is "
            "passed over, and the columns are question, answer, category and explanation."
        },
    )


class OverrideSchema(Schema):
    """PUT /api/admin/rate-limits/{subject}/overrides/{policy}.

    `limit`: the units that the client has in the policy's window instead; null: it is not limited. `seconds` until that
    ends: up to 366 days.
    """

    limit = Integer(
        required=True,
        allow_none=True,
        validate=validate.Range(1, MAX_LIMIT, error="Must be null, or from {min} to {max}."),
    )
    seconds = Integer(
        required=True,
        validate=validate.Range(1, MAX_DURATION_MS // 1000, error="Must be from {min} to {max}."),
    )
