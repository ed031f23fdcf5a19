"""The course and its students as administrators see them."""

from __future__ import annotations

from typing import get_args

from marshmallow import fields, validate

from server.api.answers.kinds import Answer, count, maybe_text, next_cursor
from server.api.answers.study import ClassProgress, Stats, User
from server.domain.study.repetition import SCHEDULERS
from server.ratelimit.calendar import PERIODS
from server.ratelimit.limits import CHARGINGS
from server.ratelimit.overrides import OverrideSource
from server.ratelimit.policies import Source


class EditableClass(Answer):
    """A class, published or not."""

    id = fields.UUID()
    name = fields.String()
    description = maybe_text()
    icon = maybe_text()
    color = maybe_text()
    order = count()
    is_published = fields.Boolean()
    scheduler = fields.String(validate=validate.OneOf(SCHEDULERS))
    created_at = fields.DateTime()
    updated_at = fields.DateTime()


class EditableClassList(Answer):
    """A page of classes, by order, then name."""

    classes = fields.List(fields.Nested(EditableClass))
    next_cursor = next_cursor()


class EditableDeck(Answer):
    """A deck, published or not."""

    id = fields.UUID()
    class_id = fields.UUID()
    name = fields.String()
    description = maybe_text()
    order = count()
    is_published = fields.Boolean()
    created_at = fields.DateTime()
    updated_at = fields.DateTime()


class EditableDeckList(Answer):
    """A page of decks; those of a class by order, then name."""

    decks = fields.List(fields.Nested(EditableDeck))
    next_cursor = next_cursor()


class EditableFlashcard(Answer):
    """A card, published or not."""

    id = fields.UUID()
    deck_id = fields.UUID()
    question = fields.String()
    answer = fields.String()
    explanation = maybe_text()
    category = maybe_text()
    order = count()
    is_published = fields.Boolean()
    created_at = fields.DateTime()
    updated_at = fields.DateTime()


class EditableFlashcardList(Answer):
    """A page of cards; those of a deck by order."""

    flashcards = fields.List(fields.Nested(EditableFlashcard))
    next_cursor = next_cursor()


class Imported(Answer):
    """How many cards of a file are new, were changed, and were there already."""

    created = count()
    updated = count()
    unchanged = count()
    dialect = fields.String(
        validate=validate.OneOf(["tab", "comma", "semicolon", "pipe", "colon", "space", "json"]),
        metadata={"description": "How the file was read: what divides its columns."},
    )


class Account(User):
    """An account, and what it may do."""

    plan = maybe_text()
    has_password = fields.Boolean()
    issuer = fields.String(
        allow_none=True, metadata={"description": "of the tokens that it signs in with; null for our own"}
    )
    deactivated = fields.Boolean()
    deactivated_at = fields.DateTime(allow_none=True)
    updated_at = fields.DateTime()


class AccountList(Answer):
    """A page of accounts, newest first."""

    users = fields.List(fields.Nested(Account))
    next_cursor = next_cursor()


class PasswordReset(Answer):
    """A one-time token for POST /api/auth/reset."""

    token = fields.String()
    expires_at = fields.DateTime()


class MasteryBreakdown(Answer):
    """How many cards a student has in each state."""

    new = count()
    learning = count()
    mastered = count()


class ListedUser(User, Stats):
    """A student with figures."""

    mastery_breakdown = fields.Nested(MasteryBreakdown)
    total_cards_in_progress = count()


class UserList(Answer):
    """A page of students."""

    users = fields.List(fields.Nested(ListedUser))
    next_cursor = next_cursor()


class UserClassProgress(ClassProgress):
    """A student's progress in a class."""

    class_name = fields.String()


class UserFigures(ListedUser):
    """A student with figures, class by class."""

    classes = fields.List(fields.Nested(UserClassProgress))


class CalendarPeriod(Answer):
    """The periods that a quota is for."""

    period = fields.String(
        validate=validate.OneOf(PERIODS),
        metadata={"description": "Of the calendar, from its first instant on."},
    )
    zone = fields.String(
        metadata={"description": "A name of the time zone database, such as `Europe/Berlin`."}
    )


class PolicyState(Answer):
    """What a client has left of a rate limit policy; times in milliseconds."""

    policy = fields.String()
    group = fields.String()
    limit = count()
    window_ms = count()
    calendar = fields.Nested(
        CalendarPeriod,
        allow_none=True,
        metadata={"description": "whose turns end the window; null: it slides"},
    )
    charge = fields.String(validate=validate.OneOf(CHARGINGS))
    cost = count(unit="units of a request")
    route_costs = fields.Dict(
        keys=fields.String(), values=count(), metadata={"description": "of routes whose cost is their own"}
    )
    remaining = count()
    next_release_ms = count()
    allowed = fields.Boolean()


class Override(Answer):
    """What holds for a client instead of a policy's limit, until it ends."""

    policy = fields.String(metadata={"description": "its name, or * for all"})
    limit = fields.Integer(allow_none=True, metadata={"description": "null: not limited"})
    ends_at = fields.DateTime()
    source = fields.String(validate=validate.OneOf(get_args(OverrideSource)))


class Block(Answer):
    """Why everything of a client is refused, and until when."""

    ends_at = fields.DateTime(allow_none=True, metadata={"description": "null: the file blocks its network"})
    network = maybe_text()


class RateLimitState(Answer):
    """What a client has left of each policy, and the source of the figures."""

    subject = fields.String()
    block = fields.Nested(Block, allow_none=True)
    allowed_network = fields.String(
        allow_none=True, metadata={"description": "in which the file limits nobody, if the client is in one"}
    )
    overrides = fields.List(fields.Nested(Override))
    source = fields.String(validate=validate.OneOf(get_args(Source)))
    policies = fields.List(fields.Nested(PolicyState))
