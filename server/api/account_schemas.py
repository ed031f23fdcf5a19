"""What may be sent about accounts: by administrators, and by their owners."""

from __future__ import annotations

from marshmallow import Schema, fields, validate

from server.api.fields import Flag, Text
from server.api.pagination import PageSchema
from server.domain.identity.passwords import LONGEST, SHORTEST
from server.domain.identity.tokens import ROLES
from server.domain.identity.users import PLAN_FORM

_ROLE = validate.OneOf(ROLES, error="Must be one of {choices}.")


class AccountsQuerySchema(PageSchema):
    """GET /api/admin/users; `q` is looked for in the address and the name, in capitals or not."""

    text = Text(load_default=None, data_key="q", validate=validate.Length(1, 200))
    role = fields.String(load_default=None, validate=_ROLE)


class AccountChangesSchema(Schema):
    """PATCH /api/admin/users/{userId}; what is left out stays as it was. `plan` null: everybody's limits."""

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
