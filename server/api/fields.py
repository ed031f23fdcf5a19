"""The kinds of values that clients send, stricter than what Python or marshmallow would take for them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from marshmallow import ValidationError, fields, validate

from server.domain.values import clean_text, find_forbidden
from server.email_addresses import normal_email

# RFC 9562, section 4: the only form of a UUID that we take, in either case.
CANONICAL_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)

_DIGITS = re.compile(r"[0-9]{1,18}", re.ASCII)
# How far a client's clock may be ahead of ours.
_CLOCK_TOLERANCE = timedelta(minutes=5)
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)


LONGEST_EMAIL = 254


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
