"""Answers to students: their account, the course, what they have done with it, and all that is kept about them."""

from __future__ import annotations

from marshmallow import fields, validate

from server.api.answers.kinds import (
    CONFIDENCE,
    COUNTS,
    MASTERY,
    Answer,
    count,
    maybe_text,
    next_cursor,
    share,
)
from server.domain.identity.tokens import ROLES
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
    category = maybe_text()
    order = count()
    progress = fields.Nested(StudyProgress, allow_none=True)


class Study(Answer):
    """A page of the cards to study now; totalCards is how many there were to choose from."""

    mode = fields.String(validate=validate.OneOf(STUDY_MODES))
    class_ = fields.Nested(ClassName, data_key="class")
    total_cards = count()
    flashcards = fields.List(fields.Nested(StudyCard))
    next_cursor = next_cursor()


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
    category = maybe_text()
    order = count()


class Deck(Answer):
    """A deck with its cards, or a page of them."""

    deck = fields.Nested(DeckOfClass)
    flashcards = fields.List(fields.Nested(Flashcard))
    total = count()
    next_cursor = fields.String(
        allow_none=True,
        load_default=None,
        metadata={
            "description": "Where a page was asked for, the `cursor` of the next one; null at the end."
        },
    )


class User(Answer):
    """An account."""

    id = fields.UUID()
    email = maybe_text()
    name = maybe_text()
    role = fields.String(validate=validate.OneOf(ROLES))
    created_at = fields.DateTime()


class SignedIn(Answer):
    """Tokens: the access token for the Authorization header, the refresh token for one exchange."""

    user = fields.Nested(User)
    access_token = fields.String()
    token_type = fields.String(validate=validate.Equal("Bearer"))
    expires_in = count(unit="seconds")
    refresh_token = fields.String()


class Me(Answer):
    """The caller."""

    user = fields.Nested(User)


class Profile(Answer):
    """What the caller says of themselves."""

    name = maybe_text()
    time_zone = fields.String(metadata={"description": "an IANA name"})


class CardProgress(Answer):
    """A student's progress on a card."""

    flashcard_id = fields.UUID()
    confidence_level = fields.Integer(validate=CONFIDENCE)
    mastery_status = fields.String(validate=MASTERY)
    times_seen = count()
    last_seen_date = fields.DateTime()
    next_review_date = fields.DateTime()


class RecordedRatings(Answer):
    """The progress of each rating's card, in the order of the ratings."""

    progress = fields.List(fields.Nested(CardProgress))


class ChangedProgress(Answer):
    """A page of a student's progress, in the order in which it changed."""

    progress = fields.List(fields.Nested(CardProgress))
    until = fields.DateTime(
        allow_none=True,
        metadata={
            "description": "the `since` of the next time, once `nextCursor` is null: before that it is the one that was"
            " asked; null where there is no progress. With microseconds, which have to be kept"
        },
    )
    next_cursor = next_cursor()


class ClassDue(Answer):
    """How many cards of a class are due."""

    class_id = fields.UUID()
    class_name = fields.String()
    due_cards = count()


class DueCounts(Answer):
    """How many cards a student should see again now, in all and by class; classes without any are left out."""

    due_cards = count()
    classes = fields.List(fields.Nested(ClassDue))


class ClassProgress(Answer):
    """How many of a class's cards a student has seen, by mastery."""

    class_id = fields.UUID()
    total_cards = count()
    studied_cards = count()
    new_cards = count()
    learning_cards = count()
    mastered_cards = count()
    progress = share()


class Stats(Answer):
    """A student's figures over everything; a streak that has lapsed is 0."""

    total_cards_studied = count()
    study_streak_days = count()
    total_study_time = count(unit="seconds", column="total_study_time_seconds")
    last_active_date = fields.Date(allow_none=True)


class StartedSession(Answer):
    """A study session that has begun."""

    session_id = fields.UUID(attribute="id")
    started_at = fields.DateTime()


class SessionFigures(Answer):
    """What was counted in a session; null while it runs."""

    id = fields.UUID()
    cards_studied = fields.Integer(validate=COUNTS, allow_none=True)
    study_duration = fields.Integer(
        validate=COUNTS, allow_none=True, attribute="duration_seconds", metadata={"description": "seconds"}
    )
    average_confidence = fields.Float(validate=CONFIDENCE, allow_none=True)


class EndedSession(Answer):
    """A session that has ended."""

    session = fields.Nested(SessionFigures)


class ListedSession(SessionFigures):
    """A session in the list of sessions; endedAt is null while it runs."""

    started_at = fields.DateTime()
    ended_at = fields.DateTime(allow_none=True)


class SessionList(Answer):
    """A page of a student's sessions, newest first."""

    sessions = fields.List(fields.Nested(ListedSession))
    next_cursor = next_cursor()


class Bookmark(Answer):
    """A card that a student wants to find again."""

    flashcard_id = fields.UUID()
    created_at = fields.DateTime()


class ListedBookmark(Bookmark):
    """A bookmark with its card."""

    question = fields.String()
    answer = fields.String()
    deck_id = fields.UUID()
    deck_name = fields.String()
    class_id = fields.UUID()
    class_name = fields.String()


class BookmarkList(Answer):
    """A page of a student's bookmarks, newest first."""

    bookmarks = fields.List(fields.Nested(ListedBookmark))
    next_cursor = next_cursor()


class ExportedAccount(User):
    """The account itself."""

    plan = maybe_text()
    time_zone = fields.String()
    has_password = fields.Boolean()
    issuer = maybe_text()
    subject = maybe_text()
    updated_at = fields.DateTime()


class ExportedStats(Answer):
    """The figures that are kept; the streak as it was when the account last studied."""

    new_cards = count()
    learning_cards = count()
    mastered_cards = count()
    total_study_time = count(unit="seconds")
    study_streak_days = count()
    last_active_date = fields.Date(allow_none=True)


class ExportedSignIn(Answer):
    """A refresh token; those of one login have the same family."""

    family = fields.UUID()
    created_at = fields.DateTime()
    expires_at = fields.DateTime()
    used_at = fields.DateTime(allow_none=True)
    revoked_at = fields.DateTime(allow_none=True)


class ExportedReset(Answer):
    """A token for a new password."""

    expires_at = fields.DateTime()


class ExportedProgress(Answer):
    """Where a card stands."""

    flashcard_id = fields.UUID()
    confidence_level = fields.Integer(validate=CONFIDENCE)
    mastery_status = fields.String(validate=MASTERY)
    times_seen = count()
    last_seen = fields.DateTime()
    next_review_date = fields.DateTime()
    created_at = fields.DateTime()


class ExportedRating(Answer):
    """One rating."""

    flashcard_id = fields.UUID()
    confidence_level = fields.Integer(validate=CONFIDENCE)
    response_time = fields.Integer(validate=COUNTS, allow_none=True, metadata={"description": "milliseconds"})
    rated_at = fields.DateTime()


class ExportedMemory(Answer):
    """What FSRS makes of a card's ratings."""

    flashcard_id = fields.UUID()
    stability = fields.Float(metadata={"description": "days"})
    difficulty = fields.Float()
    state = fields.String()
    step = fields.Integer(allow_none=True)
    reviews = count()
    due_at = fields.DateTime()
    last_review_at = fields.DateTime()


class ExportedSession(Answer):
    """A study session, with its ratings."""

    id = fields.UUID()
    cards_studied = fields.Integer(validate=COUNTS, allow_none=True)
    study_duration = fields.Integer(validate=COUNTS, allow_none=True, metadata={"description": "seconds"})
    average_confidence = fields.Float(allow_none=True)
    started_at = fields.DateTime()
    ended_at = fields.DateTime(allow_none=True)
    deck_ids = fields.List(fields.UUID())
    ratings = fields.List(fields.Nested(ExportedRating))


class ExportedBookmark(Answer):
    """A bookmark."""

    flashcard_id = fields.UUID()
    created_at = fields.DateTime()


class ExportedDay(Answer):
    """A day of study, where the person was."""

    day = fields.Date()
    first_at = fields.DateTime()


class ExportedKey(Answer):
    """An Idempotency-Key, with the answer that is kept for it."""

    key = fields.String()
    status = fields.Integer(allow_none=True)
    answer = maybe_text()
    created_at = fields.DateTime()


class Export(Answer):
    """Everything that is kept about the caller, as of one moment."""

    account = fields.Nested(ExportedAccount)
    stats = fields.Nested(ExportedStats)
    sign_ins = fields.List(fields.Nested(ExportedSignIn))
    password_reset = fields.Nested(ExportedReset, allow_none=True)
    progress = fields.List(fields.Nested(ExportedProgress))
    ratings = fields.List(fields.Nested(ExportedRating))
    memory = fields.List(fields.Nested(ExportedMemory))
    sessions = fields.List(fields.Nested(ExportedSession))
    bookmarks = fields.List(fields.Nested(ExportedBookmark))
    active_days = fields.List(fields.Nested(ExportedDay))
    idempotency_keys = fields.List(fields.Nested(ExportedKey))
