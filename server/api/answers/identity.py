"""Who somebody is."""

from __future__ import annotations

from marshmallow import fields, validate

from server.api.answers.kinds import Answer, count, maybe_text
from server.domain.identity.tokens import ROLES


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
