"""Everything that is kept about a person: GET /api/auth/me/export."""

from __future__ import annotations

from marshmallow import fields

from server.api.answers.kinds import CONFIDENCE, COUNTS, MASTERY, Answer, count, maybe_text
from server.api.answers.study import User


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
