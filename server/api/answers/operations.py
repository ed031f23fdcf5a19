"""Answers to administrators and operators: the course and its students, health, the dashboard's figures, problems."""

from __future__ import annotations

from typing import get_args

from marshmallow import fields, validate

from server.api.answers.kinds import SHARES, Answer, count, maybe_text, milliseconds, next_cursor
from server.api.answers.study import ClassProgress, Stats, User
from server.domain.identity.tokens import ROLES
from server.domain.study.repetition import SCHEDULERS
from server.ratelimit.calendar import PERIODS
from server.ratelimit.limits import CHARGINGS
from server.ratelimit.overrides import OverrideSource
from server.ratelimit.policies import Source
from server.telemetry.metrics.value_files import FAULTS

HEALTH_STATES = ("healthy", "degraded", "unhealthy")


class EditableClass(Answer):
    """A class, published or not."""

    id = fields.UUID()
    name = fields.String()
    description = maybe_text()
    icon = maybe_text()
    color = maybe_text()
    order = count(column="sort_order")
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
    order = count(column="sort_order")
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
    order = count(column="sort_order")
    is_published = fields.Boolean()
    created_at = fields.DateTime()
    updated_at = fields.DateTime()


class EditableFlashcardList(Answer):
    """A page of cards; those of a deck by order."""

    flashcards = fields.List(fields.Nested(EditableFlashcard))
    next_cursor = next_cursor()


class FirstCard(Answer):
    """The first card of a file; its texts are cut after 60 characters."""

    row = count()
    question = fields.String()
    answer = fields.String()


class Imported(Answer):
    """How many cards of a file are new, were changed, and were there already; and how the file was read."""

    created = count()
    updated = count()
    unchanged = count()
    dialect = fields.String(
        validate=validate.OneOf(["tab", "comma", "semicolon", "pipe", "colon", "space", "json", "xlsx"]),
        metadata={"description": "How the file was read: what divides its columns."},
    )
    header = fields.List(
        fields.String(),
        allow_none=True,
        metadata={
            "description": "The cells of the row that was taken for the header; null if there is none."
        },
    )
    first_card = fields.Nested(
        FirstCard, metadata={"description": "What was taken for the first card: look at it before you go on."}
    )
    warnings = fields.List(
        fields.String(),
        metadata={
            "description": "What else is worth a look, such as columns that were passed over; mostly empty."
        },
    )


class Account(User):
    """An account, and what it may do."""

    plan = maybe_text()
    has_password = fields.Boolean()
    issuer = fields.String(
        allow_none=True,
        attribute="external_issuer",
        metadata={"description": "of the tokens that it signs in with; null for our own"},
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


class Links(Answer):
    """Where to go on, relative to this service."""

    documentation = fields.String()
    openapi = fields.String()
    dashboard = fields.String()
    health = fields.String()


class DemoAccount(Answer):
    """An account of a development server."""

    role = fields.String(validate=validate.OneOf(ROLES))
    email = fields.String()
    password = fields.String()


class Home(Answer):
    """What this service is."""

    name = fields.String()
    description = fields.String()
    version = fields.String()
    links = fields.Nested(Links)
    demo_accounts = fields.List(
        fields.Nested(DemoAccount),
        load_default=list,
    )


class Alive(Answer):
    """The process turns."""

    status = fields.String(validate=validate.Equal("ok"))
    timestamp = fields.DateTime()


class Ready(Answer):
    """Requests are welcome."""

    status = fields.String(validate=validate.Equal("ready"))
    timestamp = fields.DateTime()


class Unready(Answer):
    """Requests are not welcome here now."""

    status = fields.String(validate=validate.Equal("unready"))
    reason = fields.String(validate=validate.OneOf(("starting", "draining", "database", "schema")))


class ServiceHealth(Answer):
    """One part that the service needs."""

    status = fields.String(validate=validate.OneOf(HEALTH_STATES))
    response_time = milliseconds()
    error = fields.String(
        allow_none=True, metadata={"description": "a short word, such as timeout or read_only"}
    )


class ServicesHealth(Answer):
    """The parts that the service needs."""

    database = fields.Nested(ServiceHealth)
    cache = fields.Nested(ServiceHealth)
    replica = fields.Nested(
        ServiceHealth, metadata={"description": "where DATABASE_REPLICA_URL is set"}, load_default=dict
    )


class HealthReport(Answer):
    """Degraded without the cache or where the database takes no writes, unhealthy without the database."""

    status = fields.String(validate=validate.OneOf(HEALTH_STATES))
    timestamp = fields.DateTime()
    services = fields.Nested(ServicesHealth)
    uptime = fields.Float(metadata={"description": "seconds"})
    total_response_time = milliseconds()


class MetricSample(Answer):
    """One value of a metric."""

    labels = fields.Dict(keys=fields.String(), values=fields.String())
    value = fields.Float(allow_none=True)


class Metric(Answer):
    """A metric with its samples."""

    name = fields.String()
    type = fields.String()
    help = fields.String()
    samples = fields.List(fields.Nested(MetricSample))


class MetricList(Answer):
    """All metrics, over all workers."""

    metrics = fields.List(fields.Nested(Metric))
    timestamp = fields.DateTime()


class CacheNumbers(Answer):
    """The cache's numbers since the last reset, over all workers."""

    hits = count()
    misses = count()
    sets = count()
    deletes = count()
    errors = count()
    hit_rate = fields.Float(validate=SHARES)
    hit_rate_formatted = fields.String()
    total_operations = count()
    connection_status = fields.String(validate=validate.OneOf(("connected", "disconnected")))
    last_error = maybe_text()
    last_error_time = fields.DateTime(allow_none=True)


class CacheHealth(Answer):
    """Whether Redis answers now."""

    healthy = fields.Boolean()
    latency = milliseconds()
    latency_formatted = fields.String()


class CacheMetrics(Answer):
    """How the cache does."""

    metrics = fields.Nested(CacheNumbers)
    health = fields.Nested(CacheHealth)
    timestamp = fields.DateTime()


class CacheMetricsReset(Answer):
    """The numbers start from zero."""

    message = fields.String()
    timestamp = fields.DateTime()


class KeyMetric(Answer):
    """One of the six, with its thresholds and what to do about it."""

    name = fields.String()
    title = fields.String()
    value = fields.Float(allow_none=True, metadata={"description": "null where nothing was measured"})
    unit = fields.String(validate=validate.OneOf(("ms", "%")))
    state = fields.String(
        validate=validate.OneOf(("good", "warning", "critical", "unknown")),
        metadata={"description": "unknown: measured too little to judge"},
    )
    warning = fields.Float(metadata={"description": "the value from which it is a warning"})
    critical = fields.Float(metadata={"description": "the value from which it is critical"})
    basis = fields.String(metadata={"description": "how much was measured"})
    action = fields.String()
    runbook = fields.String(metadata={"description": "a section of docs/performance-monitoring.md"})


class SlowRoute(Answer):
    """What one route did lately."""

    method = fields.String()
    route = fields.String()
    requests = count()
    mean = milliseconds()
    p95 = milliseconds()


class RefusedClient(Answer):
    """A client that the rate limiter refused, masked."""

    client = fields.String()
    refusals = count()


class BlockedClient(Answer):
    """A client of which everything is refused for a time, masked."""

    client = fields.String()
    ends_at = fields.DateTime()


class OverriddenLimit(Answer):
    """What holds for a client, masked, in the place of a policy's limit."""

    client = fields.String()
    policy = fields.String()
    limit = fields.Integer(allow_none=True)
    ends_at = fields.DateTime()
    source = fields.String(validate=validate.OneOf(("operator", "file")))


class Worker(Answer):
    """How one worker process of the machine that answers decides rate limits."""

    worker = fields.String(metadata={"description": "its process id; empty where it is the only one"})
    alone = fields.Boolean(metadata={"description": "it decides without Redis: its breaker is open"})
    decisions = fields.Dict(
        keys=fields.String(), values=count(), metadata={"description": "since it started, by source"}
    )


class Dashboard(Answer):
    """How the service is: the key metrics, each part's health, and the last hours as columns of one length."""

    timestamp = fields.DateTime()
    version = fields.String()
    status = fields.String(validate=validate.OneOf(HEALTH_STATES))
    machine = fields.String()
    process = count()
    machines = count()
    window_seconds = count(unit="seconds")
    key_metrics = fields.List(fields.Nested(KeyMetric))
    services = fields.Nested(ServicesHealth)
    uptime = fields.Float(metadata={"description": "seconds, of the worker that answers"})
    history = fields.Dict(keys=fields.String(), values=fields.List(fields.Float(allow_none=True)))
    slowest_routes = fields.List(fields.Nested(SlowRoute))
    refused_clients = fields.List(fields.Nested(RefusedClient))
    blocks = fields.List(fields.Nested(BlockedClient))
    overrides = fields.List(fields.Nested(OverriddenLimit))
    workers = fields.List(fields.Nested(Worker))
    metrics_fault = fields.String(
        allow_none=True,
        validate=validate.OneOf((*FAULTS, None)),
        metadata={
            "description": "why the other workers can't read the metrics of the one that answers; null if they can"
        },
    )
