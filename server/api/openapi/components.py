"""What many operations share: headers of requests and responses, and problems; components that they refer to."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, get_args

from server.api.answers.error_codes import ERROR_CODES
from server.api.answers.kinds import MASTERY_STATUSES
from server.api.answers.operations import HEALTH_STATES
from server.api.openapi.texts import EXAMPLES, PROPERTIES
from server.domain.catalog.deck_files import LONGEST_NOTE, LONGEST_TEXT
from server.domain.catalog.deck_tables import SEPARATORS
from server.domain.identity.tokens import ROLES
from server.domain.study.activity import USER_ORDERS
from server.domain.study.repetition import SCHEDULERS
from server.domain.study.study_order import STUDY_MODES
from server.ratelimit.limits import CHARGINGS
from server.ratelimit.policies import Source
from server.telemetry.metrics.value_files import FAULTS

# Values with names of their own, so that generated clients have one type for each: the values, and what they are.
ENUMS: Mapping[str, tuple[tuple[str, ...], str]] = MappingProxyType(
    {
        "ErrorCode": (
            tuple(code.code for code in ERROR_CODES),
            "What went wrong, in a stable word; docs/errors.md says what to do. Later versions may add some.",
        ),
        "Role": (ROLES, "What an account may do."),
        "StudyMode": (STUDY_MODES, "Which cards are studied, in which order."),
        "MasteryStatus": (MASTERY_STATUSES, "How well a card is known, by its newest rating."),
        "Scheduler": (SCHEDULERS, "How the next review of a card is chosen."),
        "UserOrder": (USER_ORDERS, "How students are ranked."),
        "Charging": (CHARGINGS, "Which requests stay charged to a rate limit."),
        "LimitSource": (get_args(Source), "What has decided a rate limit."),
        "Dialect": (tuple(SEPARATORS), "What divides the columns of a table."),
        "MetricsFault": (FAULTS, "Why a process can't share its metrics."),
        "Health": (HEALTH_STATES, "How a part of the service is."),
    }
)

FILE_CARD = "FileCard"
FILE_FORM = "FileForm"
BINARY = {"type": "string", "format": "binary"}


def _text(longest: int, description: str, *, may_be_null: bool = False) -> dict[str, Any]:
    kind: Any = ["string", "null"] if may_be_null else "string"
    shortest = {} if may_be_null else {"minLength": 1}
    return {"type": kind, **shortest, "maxLength": longest, "description": description}


# What no marshmallow schema describes: the reader of files checks it.
SCHEMAS: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        FILE_FORM: {
            "type": "object",
            "description": "A course file as a browser uploads it.",
            "required": ["file"],
            "properties": {
                "file": {
                    **BINARY,
                    "description": "The end of its name (.csv, .tsv, .txt, .json, .xlsx) says what it is, or its type.",
                }
            },
        },
        FILE_CARD: {
            "type": "object",
            "description": "A card of a JSON file.",
            "properties": {
                "question": _text(LONGEST_TEXT, PROPERTIES["question"]),
                "answer": _text(LONGEST_TEXT, PROPERTIES["answer"]),
                "category": _text(LONGEST_NOTE, PROPERTIES["category"], may_be_null=True),
                "explanation": _text(LONGEST_NOTE, PROPERTIES["explanation"], may_be_null=True),
            },
            "required": ["answer", "question"],
            "additionalProperties": False,
            "examples": [EXAMPLES[FILE_CARD]],
        },
        **{
            name: {"type": "string", "enum": list(choices), "description": description}
            for name, (choices, description) in ENUMS.items()
        },
    }
)

_NUMBER = {"type": "string", "pattern": "^[0-9]+$"}


def _header(
    description: str, schema: dict[str, Any] | None = None, *, always: bool = False
) -> dict[str, Any]:
    header: dict[str, Any] = {
        "description": description,
        "schema": schema or {"type": "string", "minLength": 1},
    }
    return {**header, "required": True} if always else header


# Of a response, by name.
HEADERS: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        "X-Request-ID": _header(
            "The caller's, if it is one that we take; else a new one.",
            {"type": "string", "pattern": "^[A-Za-z0-9._:+/=-]{20,200}$"},
            always=True,
        ),
        "X-Trace-ID": _header("The trace-id of a valid traceparent; else the request id.", always=True),
        "Server-Timing": _header(
            "Wall time in milliseconds, of the whole and of its parts (db, cache, limit) where they happened.",
            {
                "type": "string",
                "pattern": r"^total;dur=[0-9]+\.[0-9]{2}(, (db|cache|limit);dur=[0-9]+\.[0-9]{2})*$",
            },
            always=True,
        ),
        "X-Response-Time": _header(
            "The whole again.", {"type": "string", "pattern": r"^[0-9]+\.[0-9]{2}ms$"}, always=True
        ),
        "X-Performance-Rating": _header(
            "By thresholds of the settings.",
            {"type": "string", "enum": ["Good", "Needs Improvement", "Poor"]},
            always=True,
        ),
        "Cache-Control": _header("Which caches may store the response; none stores an error.", always=True),
        "X-RateLimit-Limit": _header("Of the policy closest to exhaustion, as are the next two.", _NUMBER),
        "X-RateLimit-Remaining": _header("How many more requests.", _NUMBER),
        "X-RateLimit-Reset": _header("When there is room again.", {"type": "string", "format": "date-time"}),
        "RateLimit-Policy": _header("draft-ietf-httpapi-ratelimit-headers-11: every policy that counted."),
        "RateLimit": _header("draft-ietf-httpapi-ratelimit-headers-11: what is left of each."),
        "Retry-After": _header("Whole seconds.", _NUMBER),
        "WWW-Authenticate": _header("How to sign in.", {"type": "string", "const": "Bearer"}, always=True),
        "ETag": _header("A weak entity tag, for If-None-Match.", always=True),
        "Vary": _header("Which request headers the response depends on.", always=True),
        "X-Cache": _header(
            "What the service's cache gave.", {"type": "string", "enum": ["HIT", "MISS", "STALE", "BYPASS"]}
        ),
        "Idempotency-Replayed": _header(
            "This is the answer to an earlier request with the same Idempotency-Key.",
            {"type": "string", "const": "true"},
        ),
        "X-Time-Zone-Used": _header(
            "Where the student's day began: sent where the request's X-Time-Zone is not an IANA name.",
        ),
        "Location": _header(
            "Where the new one is.", {"type": "string", "format": "uri-reference"}, always=True
        ),
    }
)
ON_EVERY_RESPONSE = (
    "X-Request-ID",
    "X-Trace-ID",
    "Server-Timing",
    "X-Response-Time",
    "X-Performance-Rating",
    "Cache-Control",
)
ON_LIMITED_ROUTES = (
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
    "RateLimit-Policy",
    "RateLimit",
)

# Of a request, by the names of their components.
REQUEST_HEADERS: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        "If-None-Match": {
            "description": "The ETag of the body that the client has; 304 if it is still right.",
            "schema": {"type": "string"},
        },
        "Idempotency-Key": {
            "description": "A repeat within 24 hours gets the first answer and changes nothing.",
            "schema": {"type": "string", "pattern": "^[!-~]([ -~]{0,253}[!-~])?$"},
            "example": "8e03978e-40d5-43e8-bc93-6894a57f9324",
        },
        "X-Time-Zone": {
            "description": "Where the student's day begins, an IANA name; else it begins in the profile's zone.",
            "schema": {"type": "string"},
            "example": "Europe/Berlin",
        },
    }
)

# Errors by status: the component's name, when it happens, and headers of its own.
PROBLEMS: Mapping[int, tuple[str, str, tuple[str, ...]]] = MappingProxyType(
    {
        400: (
            "BadRequest",
            "Something in the request is not valid; `errors` names up to 20 of what is wrong.",
            (),
        ),
        401: ("Unauthorized", "Nobody that the service knows is asking.", ("WWW-Authenticate",)),
        403: (
            "Forbidden",
            "The caller's role does not allow this, or its network is blocked: see `code`.",
            (),
        ),
        404: ("NotFound", "There is nothing here, or nothing that the caller may see.", ()),
        408: ("RequestTimeout", "The body did not arrive in time; the connection is closed.", ()),
        409: ("Conflict", "The request contradicts what is stored.", ()),
        413: (
            "ContentTooLarge",
            "The body is larger than 1 MiB; an import's, than 10 MiB or 100,000 rows: see `code`.",
            (),
        ),
        415: (
            "UnsupportedMediaType",
            "The Content-Type or Content-Encoding is not one of this operation's.",
            (),
        ),
        422: (
            "UnprocessableContent",
            "The Idempotency-Key belongs to another request, or there is no such time zone: see `code`.",
            (),
        ),
        429: ("TooManyRequests", "A rate limit has no room for this request.", ("Retry-After",)),
        503: ("ServiceUnavailable", "A part that this needs is unavailable; try again.", ("Retry-After",)),
    }
)
