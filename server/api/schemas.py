"""What clients may send, one schema a body or query. Unknown fields are refused everywhere.

What may be sent about accounts: by administrators, and by their owners.
"""

from __future__ import annotations

from marshmallow import Schema, fields, validate

from server.api.fields import (
    LONGEST_EMAIL,
    Email,
    Flag,
    Identifier,
    IdentifierList,
    Integer,
    PastMoment,
    Text,
    WholeNumber,
)
from server.api.pagination import PageSchema
from server.domain.identity.passwords import LONGEST, SHORTEST
from server.domain.identity.tokens import ROLES
from server.domain.identity.users import PLAN_FORM
from server.domain.study.activity import USER_ORDERS
from server.domain.study.repetition import MAXIMUM_CONFIDENCE, MINIMUM_CONFIDENCE
from server.domain.study.study_order import STUDY_MODES

MAXIMUM_STUDY_CARDS = 1000
MAXIMUM_RATINGS = 100
MAXIMUM_SESSION_DECKS = 50
# A response time longer than a day is a clock error, not a hesitation.
MAXIMUM_RESPONSE_TIME_MS = 24 * 3600 * 1000


class RegisterSchema(Schema):
    """POST /api/auth/register."""

    email = Email(required=True)
    password = fields.String(required=True, validate=validate.Length(min=SHORTEST, max=LONGEST))
    name = Text(load_default=None, allow_none=True, validate=validate.Length(min=1, max=255))


class LoginSchema(Schema):
    """POST /api/auth/login."""

    email = Text(required=True, validate=validate.Length(min=1, max=LONGEST_EMAIL))
    password = fields.String(required=True, validate=validate.Length(min=1, max=128))


class RefreshSchema(Schema):
    """POST /api/auth/refresh and /api/auth/logout."""

    refresh_token = fields.String(
        required=True, data_key="refreshToken", validate=validate.Length(min=1, max=512)
    )


class ProfileSchema(Schema):
    """PATCH /api/profile; what is left out stays as it was."""

    name = Text(allow_none=True, validate=validate.Length(min=1, max=255))
    # Whether there is such a zone, the handler says: 422.
    time_zone = fields.String(
        data_key="timeZone", metadata={"description": "an IANA name", "example": "Europe/Berlin"}
    )


class StudyQuerySchema(PageSchema):
    """GET /api/classes/{id}/study."""

    mode = fields.String(
        load_default="progressive",
        validate=validate.OneOf(STUDY_MODES, error="Must be one of {choices}."),
    )
    decks = IdentifierList(load_default=None)
    # More than anybody studies in one go: what was written before there were cursors goes on as it did.
    limit = WholeNumber(
        load_default=MAXIMUM_STUDY_CARDS,
        validate=validate.Range(1, MAXIMUM_STUDY_CARDS, error="Must be from {min} to {max}."),
    )


class DashboardQuerySchema(Schema):
    """GET /api/dashboard: points of the history after a time, in whole seconds since 1970."""

    after = WholeNumber(
        load_default=0, validate=validate.Range(0, 10**12, error="Must be from {min} to {max}.")
    )


class RatingSchema(Schema):
    """PUT /api/progress/cards/{flashcardId}."""

    confidence_level = Integer(
        required=True,
        data_key="confidenceLevel",
        validate=validate.Range(MINIMUM_CONFIDENCE, MAXIMUM_CONFIDENCE, error="Must be from {min} to {max}."),
    )
    session_id = Identifier(load_default=None, allow_none=True, data_key="sessionId")
    response_time_ms = Integer(
        load_default=None,
        allow_none=True,
        data_key="responseTime",
        validate=validate.Range(
            0, MAXIMUM_RESPONSE_TIME_MS, error="Must be milliseconds, from {min} to {max}."
        ),
    )


class BatchedRatingSchema(RatingSchema):
    """One of the ratings of POST /api/progress/cards."""

    flashcard_id = Identifier(required=True, data_key="flashcardId")
    rated_at = PastMoment(load_default=None, allow_none=True, data_key="ratedAt")


class RatingsSchema(Schema):
    """POST /api/progress/cards."""

    ratings = fields.List(
        fields.Nested(BatchedRatingSchema),
        required=True,
        validate=validate.Length(1, MAXIMUM_RATINGS, error="Must be {min} to {max} ratings."),
    )


class SessionSchema(Schema):
    """POST /api/sessions."""

    deck_ids = fields.List(
        Identifier(),
        required=True,
        data_key="deckIds",
        validate=validate.Length(1, MAXIMUM_SESSION_DECKS, error="Must be {min} to {max} decks."),
    )


class SessionsQuerySchema(PageSchema):
    """GET /api/sessions."""

    deck_id = Identifier(load_default=None, data_key="deckId")


class ChangesQuerySchema(PageSchema):
    """GET /api/progress."""

    since = PastMoment(load_default=None)


class UsersQuerySchema(PageSchema):
    """GET /api/admin/analytics/users."""

    sort = fields.String(
        load_default="recent", validate=validate.OneOf(USER_ORDERS, error="Must be one of {choices}.")
    )


_ROLE = validate.OneOf(ROLES, error="Must be one of {choices}.")


class AccountsQuerySchema(PageSchema):
    """GET /api/admin/users; `q` is looked for in the address and the name, in capitals or not."""

    text = Text(load_default=None, data_key="q", validate=validate.Length(1, 200))
    role = fields.String(load_default=None, validate=_ROLE)


class AccountChangesSchema(Schema):
    """PATCH /api/admin/users/{userId}; what is left out stays as it was. `plan` null: the default limits."""

    role = fields.String(validate=_ROLE)
    plan = Text(
        allow_none=True,
        validate=validate.Regexp(
            rf"^{PLAN_FORM}$",
            error="Must be 1 to 32 lower-case letters, digits and hyphens, a letter first.",
        ),
    )
    is_deactivated = Flag(data_key="deactivated")


def _password(name: str) -> fields.String:
    return fields.String(required=True, data_key=name, validate=validate.Length(SHORTEST, LONGEST))


class PasswordSchema(Schema):
    """POST /api/auth/password."""

    current_password = fields.String(
        required=True, data_key="currentPassword", validate=validate.Length(1, LONGEST)
    )
    new_password = _password("newPassword")


class ResetSchema(Schema):
    """POST /api/auth/reset."""

    token = fields.String(required=True, validate=validate.Length(1, 512))
    new_password = _password("newPassword")


class DeletionSchema(Schema):
    """DELETE /api/auth/me; `password` of an account that has one."""

    password = fields.String(load_default=None, allow_none=True, validate=validate.Length(1, LONGEST))
