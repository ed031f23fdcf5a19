"""What the answers are made of.

The schemas describe the answers in the OpenAPI document, and the tests hold the service to them. Handlers put rows of
the database into the form of one by `Answer.of`, which is faster than marshmallow's `dump`. What is cached has its form
already.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from marshmallow import EXCLUDE, Schema, fields, missing, validate

from server.api.answers.error_codes import ERROR_CODES
from server.clock import optional_timestamp
from server.domain.study.repetition import MAXIMUM_CONFIDENCE, MINIMUM_CONFIDENCE

COUNTS = validate.Range(min=0)
SHARES = validate.Range(0, 100)
CONFIDENCE = validate.Range(MINIMUM_CONFIDENCE, MAXIMUM_CONFIDENCE)
MASTERY_STATUSES = ("new", "learning", "mastered")
MASTERY = validate.OneOf(MASTERY_STATUSES)


class Answer(Schema):
    """An object in an answer: a field `next_cursor` is `nextCursor` in JSON, and always there.

    But for fields with a `load_default`, which may be left out. Clients ignore what they do not know: later versions
    may add fields.
    """

    class Meta:
        """Told to apispec: other fields are not forbidden."""

        unknown = EXCLUDE

    def on_bind_field(self, field_name: str, field_obj: fields.Field[Any]) -> None:
        """Give a field its name in JSON."""
        if field_obj.data_key is None:
            field_obj.data_key = in_camel_case(field_name)
        field_obj.required = field_obj.load_default is missing

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row in this form, from the columns that its fields are named after, or that their `attribute` names."""
        return {name: convert(row[column]) for name, column, convert in _columns_of(cls)}


@functools.cache
def _columns_of(form: type[Answer]) -> tuple[tuple[str, str, Callable[[Any], Any]], ...]:
    """The fields of a form: the name in JSON, the column, and what makes JSON of its value."""
    return tuple(
        (str(described.data_key), described.attribute or name, _json_of(described))
        for name, described in form().fields.items()
    )


def _json_of(described: fields.Field[Any]) -> Callable[[Any], Any]:
    match described:
        case fields.UUID():
            return str
        case fields.Boolean():
            return bool
        case fields.DateTime():
            return optional_timestamp
        case fields.Date():
            return lambda day: None if day is None else day.isoformat()
        case fields.Float():
            return lambda number: None if number is None else float(number)
    return lambda value: value


def in_camel_case(name: str) -> str:
    """A name of ours as JSON writes it: next_cursor is nextCursor."""
    first, *others = name.split("_")
    return first + "".join(word.title() for word in others)


def count(*, unit: str | None = None, column: str | None = None) -> fields.Integer:
    """A number of things, or of `unit`; from a column of another name."""
    return fields.Integer(
        validate=COUNTS, attribute=column, metadata={} if unit is None else {"description": unit}
    )


def milliseconds() -> fields.Float:
    """A duration."""
    return fields.Float(validate=COUNTS, metadata={"description": "milliseconds"})


def share() -> fields.Integer:
    """A part of a whole."""
    return fields.Integer(validate=SHARES, metadata={"description": "percent, rounded half up"})


def maybe_text() -> fields.String:
    """A text, or null."""
    return fields.String(allow_none=True)


def next_cursor() -> fields.String:
    """Where a list goes on."""
    return fields.String(
        allow_none=True, metadata={"description": "the `cursor` of the next page; null at the end"}
    )


class FieldProblem(Answer):
    """What is wrong with one field of a request."""

    field = fields.String(metadata={"description": "a dotted path, such as ratings.0.flashcardId"})
    message = fields.String()


class Problem(Answer):
    """An error, RFC 9457."""

    type = fields.String(metadata={"format": "uri-reference"})
    title = fields.String()
    status = fields.Integer(validate=validate.Range(400, 599))
    detail = fields.String()
    code = fields.String(
        validate=validate.OneOf([code.code for code in ERROR_CODES]),
        metadata={"description": "A stable word to program against."},
    )
    request_id = fields.String()
    errors = fields.List(fields.Nested(FieldProblem), load_default=None, allow_none=False)
    more_errors = fields.Integer(
        load_default=None,
        allow_none=False,
        metadata={"description": "how many more errors there are than `errors` lists"},
        validate=validate.Range(min=1),
    )
    violated_policies = fields.List(
        fields.String(),
        load_default=None,
        allow_none=False,
        data_key="violated-policies",
        metadata={"description": "of a 429: the rate limit policies that refused"},
    )
