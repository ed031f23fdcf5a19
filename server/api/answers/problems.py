"""Errors."""

from __future__ import annotations

from marshmallow import fields, validate

from server.api.answers.kinds import Answer


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
    code = fields.String(metadata={"description": "a stable word to program against"})
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
