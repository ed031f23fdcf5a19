"""What each handler takes and answers. The path, the role and the rate limits are in `routes.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from marshmallow import Schema

from server.api import assets, auth, operations, study
from server.api.admin import course, limits
from server.api.admin import imports as admin_import
from server.api.admin import users as admin_users
from server.api.admin.schemas import (
    ClassesQuerySchema,
    ClassSchema,
    DeckSchema,
    DecksQuerySchema,
    FlashcardSchema,
    FlashcardsQuerySchema,
    ImportQuerySchema,
    OverrideSchema,
)
from server.api.answers import operations as monitoring
from server.api.answers import study as studying
from server.api.answers.kinds import Answer
from server.api.openapi.components import BINARY, FILE_CARD, FILE_FORM
from server.api.responses import JSON
from server.api.routes import HandlerFunction
from server.api.schemas import (
    AccountChangesSchema,
    AccountsQuerySchema,
    ChangesQuerySchema,
    DashboardQuerySchema,
    DeckQuerySchema,
    DeletionSchema,
    LoginSchema,
    PageSchema,
    PasswordSchema,
    ProfileSchema,
    RatingSchema,
    RatingsSchema,
    RefreshSchema,
    RegisterSchema,
    ResetSchema,
    SessionSchema,
    SessionsQuerySchema,
    StudyQuerySchema,
    UsersQuerySchema,
)
from server.domain.catalog.deck_workbooks import XLSX_TYPE


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """A body: its media type, and its schema."""

    media_type: str = JSON
    schema: Schema | Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What comes with a status: bodies, and headers beyond those of every response (names of HEADERS)."""

    description: str
    contents: tuple[Content, ...] = ()
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A handler from outside.

    Args:
        results: by status; they go before the errors that the route implies.
        query: the parameters of the query.
        bodies: the request's body, in any of these media types.
        headers: the request's headers that mean something here (names of REQUEST_HEADERS).
        errors: statuses of problems that the route does not imply.
    """

    results: Mapping[int, Result]
    query: Schema | None = None
    bodies: tuple[Content, ...] = ()
    headers: tuple[str, ...] = ()
    errors: frozenset[int] = field(default_factory=frozenset)


def json(schema: Schema) -> tuple[Content, ...]:
    """A JSON body."""
    return (Content(schema=schema),)


def answers(answer: type[Answer], *, status: int = 200, headers: tuple[str, ...] = ()) -> dict[int, Result]:
    """An answer in JSON."""
    return {status: Result(description=_sentence(answer), contents=json(answer()), headers=headers)}


def tagged(answer: type[Answer], *, cached: bool = False) -> dict[int, Result]:
    """An answer with an entity tag; `cached`: the service asks its cache for it."""
    headers = ("ETag", "Vary", "X-Cache") if cached else ("ETag", "Vary")
    unchanged = Result(description="The body with the ETag of If-None-Match is still right.", headers=headers)
    return {**answers(answer, headers=headers), 304: unchanged}


def created(answer: type[Answer]) -> dict[int, Result]:
    """What a POST has made, and where it is from now on."""
    return answers(answer, status=201, headers=("Location",))


def done() -> dict[int, Result]:
    """Done, and nothing to say about it."""
    return {204: Result(description="Done.")}


def asset(*media_types: str) -> dict[int, Result]:
    """A public file."""
    contents = tuple(
        Content(media_type=one, schema={"type": "object" if one == JSON else "string"}) for one in media_types
    )
    headers = ("ETag", "Vary")
    unchanged = Result(description="The file with the ETag of If-None-Match is still right.", headers=headers)
    return {200: Result(description="The file.", contents=contents, headers=headers), 304: unchanged}


def _sentence(answer: type[Answer]) -> str:
    return (answer.__doc__ or "").strip().partition("\n")[0]


_TEXT = {"type": "string"}
_TIME_ZONE = (study.TIME_ZONE,)
_TIME_ZONE_USED = (study.TIME_ZONE_USED,)
_METRICS_TOKEN = frozenset({401})

_DECK_FILE = (
    Content(
        media_type="text/tab-separated-values", schema={**_TEXT, "example": "Question\tAnswer\n1 + 1?\t2\n"}
    ),
    Content(
        media_type="text/plain",
        schema={**_TEXT, "example": "#separator:tab\n#html:false\n1 + 1?\t2\n"},
    ),
    Content(media_type="text/csv", schema={**_TEXT, "example": "Question,Answer\n1 + 1?,2\n"}),
    Content(
        schema={"type": "array", "minItems": 1, "items": {"$ref": f"#/components/schemas/{FILE_CARD}"}},
    ),
    Content(media_type=XLSX_TYPE, schema=BINARY),
)
_FORM = Content(media_type=admin_import.FORM, schema={"$ref": f"#/components/schemas/{FILE_FORM}"})
OPERATIONS: Mapping[HandlerFunction, Operation] = MappingProxyType(
    {
        operations.health: Operation(
            results={
                **answers(monitoring.HealthReport),
                **answers(monitoring.HealthReport, status=503, headers=("Retry-After",)),
            }
        ),
        assets.show_home: Operation(
            results={
                200: Result(
                    description="What this is, and where to go on; a page, or JSON where Accept names it first.",
                    contents=(
                        Content(media_type="text/html", schema=_TEXT),
                        Content(schema=monitoring.Home()),
                    ),
                    headers=("ETag", "Vary"),
                ),
                304: asset(JSON)[304],
            }
        ),
        operations.livez: Operation(results=answers(monitoring.Alive)),
        operations.readyz: Operation(
            results={
                **answers(monitoring.Ready),
                **answers(monitoring.Unready, status=503, headers=("Retry-After",)),
            }
        ),
        operations.show_metrics: Operation(
            results={
                200: Result(
                    description="Prometheus text, or OpenMetrics where Accept prefers it.",
                    contents=(
                        Content(media_type="text/plain", schema=_TEXT),
                        Content(media_type="application/openmetrics-text", schema=_TEXT),
                    ),
                )
            },
            errors=_METRICS_TOKEN,
        ),
        operations.show_metrics_json: Operation(
            results=answers(monitoring.MetricList), errors=_METRICS_TOKEN
        ),
        operations.show_cache_metrics: Operation(
            results=answers(monitoring.CacheMetrics), errors=frozenset({401, 403, 503})
        ),
        operations.reset_cache_metrics: Operation(results=answers(monitoring.CacheMetricsReset)),
        operations.show_dashboard: Operation(
            query=DashboardQuerySchema(),
            results=answers(monitoring.Dashboard),
            errors=frozenset({400, 401, 403, 503}),
        ),
        operations.show_page: Operation(results=asset("text/html")),
        operations.show_file: Operation(
            results=asset("text/css", "text/javascript", "image/svg+xml"), errors=frozenset({503})
        ),
        assets.show_openapi: Operation(results=asset(JSON), errors=frozenset({503})),
        assets.show_documentation: Operation(results=asset("text/html")),
        assets.show_asset: Operation(results=asset("text/css", "text/javascript"), errors=frozenset({503})),
        auth.register: Operation(
            bodies=json(RegisterSchema()),
            results=answers(studying.SignedIn, status=201),
            errors=frozenset({409}),
        ),
        auth.login: Operation(
            bodies=json(LoginSchema()), results=answers(studying.SignedIn), errors=frozenset({401})
        ),
        auth.refresh: Operation(
            bodies=json(RefreshSchema()), results=answers(studying.SignedIn), errors=frozenset({401})
        ),
        auth.logout: Operation(bodies=json(RefreshSchema()), results=done()),
        auth.change_password: Operation(
            bodies=json(PasswordSchema()), results=done(), errors=frozenset({409})
        ),
        auth.reset_password: Operation(bodies=json(ResetSchema()), results=done()),
        auth.export_me: Operation(results=answers(studying.Export)),
        auth.delete_me: Operation(bodies=json(DeletionSchema()), results=done(), errors=frozenset({409})),
        auth.get_me: Operation(results=tagged(studying.Me)),
        auth.get_profile: Operation(results=tagged(studying.Profile)),
        auth.change_profile: Operation(
            bodies=json(ProfileSchema(partial=True)), results=answers(studying.Profile)
        ),
        study.list_classes: Operation(query=PageSchema(), results=tagged(studying.ClassList, cached=True)),
        study.get_class: Operation(results=tagged(studying.Class, cached=True)),
        study.study_class: Operation(query=StudyQuerySchema(), results=tagged(studying.Study, cached=True)),
        study.list_flashcards: Operation(query=DeckQuerySchema(), results=tagged(studying.Deck, cached=True)),
        study.get_due_counts: Operation(results=tagged(studying.DueCounts)),
        study.list_progress: Operation(query=ChangesQuerySchema(), results=tagged(studying.ChangedProgress)),
        study.get_class_progress: Operation(results=tagged(studying.ClassProgress, cached=True)),
        study.get_card_progress: Operation(results=tagged(studying.CardProgress)),
        study.get_stats: Operation(results=tagged(studying.Stats)),
        study.list_bookmarks: Operation(query=PageSchema(), results=tagged(studying.BookmarkList)),
        study.list_sessions: Operation(query=SessionsQuerySchema(), results=tagged(studying.SessionList)),
        study.rate_card: Operation(
            bodies=json(RatingSchema()),
            headers=_TIME_ZONE,
            results=answers(studying.CardProgress, headers=_TIME_ZONE_USED),
            errors=frozenset({409}),
        ),
        study.rate_cards: Operation(
            bodies=json(RatingsSchema()),
            headers=_TIME_ZONE,
            results=answers(studying.RecordedRatings, headers=_TIME_ZONE_USED),
            errors=frozenset({404, 409}),
        ),
        study.start_session: Operation(
            bodies=json(SessionSchema()),
            results=answers(studying.StartedSession, status=201),
            errors=frozenset({404}),
        ),
        study.end_session: Operation(results=answers(studying.EndedSession)),
        study.add_bookmark: Operation(
            results={**answers(studying.Bookmark), **answers(studying.Bookmark, status=201)}
        ),
        study.delete_bookmark: Operation(results=done()),
        course.list_classes: Operation(
            query=ClassesQuerySchema(), results=tagged(monitoring.EditableClassList)
        ),
        course.create_class: Operation(bodies=json(ClassSchema()), results=created(monitoring.EditableClass)),
        course.get_class: Operation(results=tagged(monitoring.EditableClass)),
        course.update_class: Operation(
            bodies=json(ClassSchema(partial=True)), results=answers(monitoring.EditableClass)
        ),
        course.delete_class: Operation(results=done()),
        course.list_decks: Operation(query=DecksQuerySchema(), results=tagged(monitoring.EditableDeckList)),
        course.create_deck: Operation(bodies=json(DeckSchema()), results=created(monitoring.EditableDeck)),
        course.get_deck: Operation(results=tagged(monitoring.EditableDeck)),
        course.update_deck: Operation(
            bodies=json(DeckSchema(partial=True)), results=answers(monitoring.EditableDeck)
        ),
        course.delete_deck: Operation(results=done()),
        admin_import.import_deck: Operation(
            query=ImportQuerySchema(), bodies=_DECK_FILE, results=answers(monitoring.Imported)
        ),
        admin_import.upload_deck: Operation(
            query=ImportQuerySchema(), bodies=(_FORM,), results=answers(monitoring.Imported)
        ),
        admin_import.export_deck: Operation(
            results={
                200: Result(
                    description="The deck's cards as a file.",
                    contents=tuple(one for one in _DECK_FILE if one.media_type != "text/plain"),
                    headers=("Vary",),
                )
            },
        ),
        course.list_flashcards: Operation(
            query=FlashcardsQuerySchema(), results=tagged(monitoring.EditableFlashcardList)
        ),
        course.create_flashcard: Operation(
            bodies=json(FlashcardSchema()), results=created(monitoring.EditableFlashcard)
        ),
        course.get_flashcard: Operation(results=tagged(monitoring.EditableFlashcard)),
        course.update_flashcard: Operation(
            bodies=json(FlashcardSchema(partial=True)), results=answers(monitoring.EditableFlashcard)
        ),
        course.delete_flashcard: Operation(results=done()),
        admin_users.list_accounts: Operation(
            query=AccountsQuerySchema(), results=tagged(monitoring.AccountList)
        ),
        admin_users.get_account: Operation(results=tagged(monitoring.Account)),
        admin_users.update_account: Operation(
            bodies=json(AccountChangesSchema()),
            results=answers(monitoring.Account),
            errors=frozenset({409}),
        ),
        admin_users.reset_password: Operation(
            results=answers(monitoring.PasswordReset, status=201), errors=frozenset({409})
        ),
        admin_users.list_users: Operation(query=UsersQuerySchema(), results=answers(monitoring.UserList)),
        admin_users.get_user: Operation(results=answers(monitoring.UserFigures)),
        limits.show_rate_limits: Operation(
            results=answers(monitoring.RateLimitState), errors=frozenset({409})
        ),
        limits.reset_rate_limits: Operation(results=done(), errors=frozenset({409})),
        limits.override_rate_limit: Operation(
            bodies=json(OverrideSchema()), results=answers(monitoring.Override), errors=frozenset({409})
        ),
        limits.end_override: Operation(results=done(), errors=frozenset({409})),
    }
)
