"""What a student has done with the course."""

from __future__ import annotations

from marshmallow import fields

from server.api.answers.kinds import CONFIDENCE, COUNTS, MASTERY, Answer, count, next_cursor, share


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
    total_study_time = count(unit="seconds")
    last_active_date = fields.Date(allow_none=True)


class StartedSession(Answer):
    """A study session that has begun."""

    session_id = fields.UUID()
    started_at = fields.DateTime()


class SessionFigures(Answer):
    """What was counted in a session; null while it runs."""

    id = fields.UUID()
    cards_studied = fields.Integer(validate=COUNTS, allow_none=True)
    study_duration = fields.Integer(validate=COUNTS, allow_none=True, metadata={"description": "seconds"})
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
