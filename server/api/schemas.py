"""What clients may send: the kinds of values, and one schema a body or query. Unknown fields are refused everywhere.

The kinds are stricter than what Python or marshmallow would take for them.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from marshmallow import Schema, ValidationError, fields, missing, validate

from server.domain.identity.passwords import LONGEST, SHORTEST
from server.domain.identity.tokens import ROLES
from server.domain.identity.users import PLAN_FORM
from server.domain.study.activity import USER_ORDERS
from server.domain.study.repetition import MAXIMUM_CONFIDENCE, MINIMUM_CONFIDENCE
from server.domain.study.study_order import STUDY_MODES
from server.domain.values import clean_text, find_forbidden
from server.email_addresses import normal_email

# RFC 9562, section 4: the only form of a UUID that we take, in either case.
CANONICAL_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
_DIGITS = re.compile(r"[0-9]{1,18}", re.ASCII)
# How far a client's clock may be ahead of ours.
_CLOCK_TOLERANCE = timedelta(minutes=5)
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
LONGEST_EMAIL = 254
MAXIMUM_STUDY_CARDS = 1000
MAXIMUM_RATINGS = 100
MAXIMUM_SESSION_DECKS = 50
# A response time longer than a day is a clock error, not a hesitation.
MAXIMUM_RESPONSE_TIME_MS = 24 * 3600 * 1000
DEFAULT_LIMIT = 50
MAXIMUM_LIMIT = 100
# A class's name is part of a position: 255 characters, up to 4 bytes each, then base64.
MAXIMUM_CURSOR_LENGTH = 2000


class Text(fields.String):
    """A string without control characters but tabs and line breaks, trimmed: what an import takes as well."""

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **options: Any
    ) -> str:
        text = clean_text(super()._deserialize(value, attr, data, **options))
        forbidden = find_forbidden(text)
        if forbidden is not None:
            raise ValidationError(f"May not contain the character {forbidden}.")
        return text


class Email(fields.Email):
    """An e-mail address in its normal form, which is what has to be valid.

    Its length is judged before its form, which takes long to judge in a long text.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(validate=validate.Length(max=LONGEST_EMAIL), **options)

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **options: Any
    ) -> str:
        if isinstance(value, str) and len(value) > LONGEST_EMAIL:
            raise ValidationError(f"Longer than maximum length {LONGEST_EMAIL}.")
        text: str = super()._deserialize(value, attr, data, **options)
        if text != text.strip():  # a login forgives blanks; an account is not made by mistake
            raise self.make_error("invalid")
        return normal_email(text)


class Integer(fields.Integer):
    """A number of JSON without a fraction: 4, or 4.0 as some languages write it; no text and no true or false."""

    def __init__(self, **options: Any) -> None:
        super().__init__(strict=True, **options)

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **options: Any
    ) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        number: int = super()._deserialize(value, attr, data, **options)
        return number


class WholeNumber(fields.Integer):
    """A whole number in a query parameter: decimal digits, nothing else that Python would take for one."""

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **options: Any
    ) -> int:
        if not isinstance(value, str) or _DIGITS.fullmatch(value) is None:
            raise self.make_error("invalid", input=value)
        number: int = super()._deserialize(value, attr, data, **options)
        return number


class Flag(fields.Field[bool]):
    """JSON's true or false; no word and no number for it."""

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **options: Any
    ) -> bool:
        del attr, data, options
        if not isinstance(value, bool):
            raise ValidationError("Must be true or false.")
        return value


class FlagWord(fields.Field[bool]):
    """`true` or `false` in a query parameter."""

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **options: Any
    ) -> bool:
        del attr, data, options
        if value not in {"true", "false"}:
            raise ValidationError("Must be true or false.")
        return bool(value == "true")


class Identifier(fields.Field[UUID]):
    """A UUID in its canonical form."""

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **options: Any
    ) -> UUID:
        del attr, data, options
        if not isinstance(value, str) or CANONICAL_UUID.fullmatch(value) is None:
            raise ValidationError("This is not a UUID.")
        return UUID(value)


class IdentifierList(fields.Field[list[UUID]]):
    """UUIDs separated by commas, in a query parameter; where it is repeated, `read_query` joins its values."""

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **options: Any
    ) -> list[UUID]:
        del attr, data, options
        parts = [part.strip() for part in str(value).split(",")]
        if not all(CANONICAL_UUID.fullmatch(part) for part in parts):
            raise ValidationError("Must be UUIDs separated by commas.")
        return [UUID(part) for part in parts]


# Reads a value; gives `missing` where marshmallow has to look at it.
_Read = Callable[[Any], Any]


class QuickSchema(Schema):
    """A schema that reads what is plainly right in one pass, for those that are loaded most often.

    Marshmallow loads everything else, such as all that is wrong, and takes ten times as long. Such a schema has no
    hooks, no attributes under other names, and no defaults that are functions.
    """

    @functools.cached_property
    def _plan(self) -> list[tuple[str, str, Any, _Read]]:
        return [
            (field.data_key or name, name, field.load_default, _reader_of(field))
            for name, field in self.load_fields.items()
        ]

    def load(self, data: Any, **options: Any) -> Any:
        """As marshmallow's."""
        if type(data) is dict and not any(options.values()):
            loaded, known = {}, 0
            for key, name, default, read in self._plan:
                given = data.get(key, missing)
                known += given is not missing
                value = default if given is missing else read(given)
                if value is missing:
                    break
                loaded[name] = value
            else:
                if known == len(data):
                    return loaded
        return super().load(data, **options)


def _is_range(rule: object) -> bool:
    return type(rule) is validate.Range and rule.min_inclusive and rule.max_inclusive


def _reader_of(field: fields.Field[Any]) -> _Read:
    nothing = None if field.allow_none else missing
    if type(field) is Integer and all(map(_is_range, field.validators)):
        ranges = [(rule.min, rule.max) for rule in field.validators if isinstance(rule, validate.Range)]
        lowest = max((low for low, _ in ranges if low is not None), default=-math.inf)
        highest = min((high for _, high in ranges if high is not None), default=math.inf)

        def read_number(given: Any) -> Any:
            if type(given) is int:
                return given if lowest <= given <= highest else missing
            return nothing if given is None else missing

        return read_number
    if type(field) is Identifier and not field.validators:

        def read_id(given: Any) -> Any:
            if type(given) is str:
                return UUID(given) if CANONICAL_UUID.fullmatch(given) else missing
            return nothing if given is None else missing

        return read_id
    return lambda given: nothing if given is None else missing


class PastMoment(fields.AwareDateTime):
    """An ISO-8601 time with a zone, not in the future; in UTC, as PostgreSQL does not know every offset."""

    def __init__(self, **options: Any) -> None:
        super().__init__(format="iso", **options)

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **options: Any
    ) -> datetime:
        moment: datetime = super()._deserialize(value, attr, data, **options)
        now = datetime.now(UTC)
        if not _EARLIEST <= moment <= now + _CLOCK_TOLERANCE:
            raise ValidationError("Must be a time between the year 2000 and now.")
        return min(moment.astimezone(UTC), now)


class PageSchema(Schema):
    """The two parameters that every list takes."""

    limit = WholeNumber(
        load_default=DEFAULT_LIMIT,
        validate=validate.Range(1, MAXIMUM_LIMIT, error=f"Must be from 1 to {MAXIMUM_LIMIT}."),
    )
    cursor = fields.String(
        load_default=None,
        validate=validate.Length(max=MAXIMUM_CURSOR_LENGTH),
        metadata={
            "description": "`nextCursor` of the page before, as it came",
            "pattern": "^[A-Za-z0-9_-]+$",
        },
    )


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


class DeckQuerySchema(PageSchema):
    """GET /api/decks/{id}/flashcards."""

    limit = WholeNumber(
        load_default=None,
        validate=validate.Range(1, MAXIMUM_STUDY_CARDS, error="Must be from {min} to {max}."),
        metadata={"description": "at most so many cards; all of the deck without it"},
    )


class DashboardQuerySchema(Schema):
    """GET /api/dashboard: points of the history after a time, in whole seconds since 1970."""

    after = WholeNumber(
        load_default=0, validate=validate.Range(0, 10**12, error="Must be from {min} to {max}.")
    )


class RatingSchema(QuickSchema):
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
