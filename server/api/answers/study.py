"""The course as a student reads it."""

from __future__ import annotations

from marshmallow import fields, validate

from server.api.answers.kinds import CONFIDENCE, MASTERY, Answer, count, maybe_text, next_cursor, share
from server.domain.study.study_order import STUDY_MODES


class ListedClass(Answer):
    """A class in the list of classes."""

    id = fields.UUID()
    name = fields.String()
    description = maybe_text()
    order = count()
    icon = maybe_text()
    color = maybe_text()
    deck_count = count()
    card_count = count()


class ClassList(Answer):
    """A page of the published classes."""

    classes = fields.List(fields.Nested(ListedClass))
    next_cursor = next_cursor()


class ClassDeck(Answer):
    """A deck of a class, and how far the reader is in it."""

    id = fields.UUID()
    name = fields.String()
    description = maybe_text()
    card_count = count()
    studied_count = count()
    progress = share()
    order = count()


class Class(Answer):
    """A class with its decks."""

    id = fields.UUID()
    name = fields.String()
    description = maybe_text()
    icon = maybe_text()
    color = maybe_text()
    decks = fields.List(fields.Nested(ClassDeck))


class ClassName(Answer):
    """A class by its name."""

    id = fields.UUID()
    name = fields.String()


class StudyProgress(Answer):
    """What the reader last said of a card."""

    confidence_level = fields.Integer(validate=CONFIDENCE)
    mastery_status = fields.String(validate=MASTERY)
    next_review_date = fields.DateTime()


class StudyCard(Answer):
    """A card to study; progress is null for one that was never rated."""

    id = fields.UUID()
    deck_id = fields.UUID()
    deck_name = fields.String()
    question = fields.String()
    answer = fields.String()
    explanation = maybe_text()
    order = count()
    progress = fields.Nested(StudyProgress, allow_none=True)


class Study(Answer):
    """The cards to study now; totalCards is how many there were to choose from."""

    mode = fields.String(validate=validate.OneOf(STUDY_MODES))
    class_ = fields.Nested(ClassName, data_key="class")
    total_cards = count()
    flashcards = fields.List(fields.Nested(StudyCard))


class DeckOfClass(Answer):
    """A deck and the class that it belongs to."""

    id = fields.UUID()
    name = fields.String()
    description = maybe_text()
    class_id = fields.UUID()
    class_name = fields.String()


class Flashcard(Answer):
    """A card."""

    id = fields.UUID()
    question = fields.String()
    answer = fields.String()
    explanation = maybe_text()
    order = count()


class Deck(Answer):
    """A deck with its cards."""

    deck = fields.Nested(DeckOfClass)
    flashcards = fields.List(fields.Nested(Flashcard))
    total = count()
