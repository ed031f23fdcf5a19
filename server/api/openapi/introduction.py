"""What the OpenAPI document says about the API as a whole, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

INTRODUCTION = """\
Flashcards to study, with what each student has learnt of them: classes hold decks, decks hold cards.

## Signing in

`POST /api/auth/register` or `/api/auth/login` answers with an access token and a refresh token. Send the access token
as `Authorization: Bearer …`. When it has expired (`expiresIn` seconds, or a 401 with the code `invalid_token`),
exchange the refresh token at `POST /api/auth/refresh` for new ones: it works once, and its reuse ends the sign-in.
Two tabs that exchange it within ten seconds of each other are both served. `POST /api/auth/logout` ends the sign-in.
Tokens of the OIDC issuer that the service is set up with are accepted too. There are two roles, `user` and `admin`.

## Pages

Lists answer with at most `limit` entries and a `nextCursor`. Send it as `cursor`, with the same other parameters, for
the next page; it is null at the end. A cursor is opaque: one that was changed, or is of another list, is a 400.

## Errors

Every error is `application/problem+json` (RFC 9457). Program against its `code`: docs/errors.md lists each code with
its cause and what to do. `errors` names what is wrong by field, such as `ratings.0.flashcardId`. `requestId` finds
the request in the logs. A client should treat a code that it does not know by its status.

## Repeating a request

Every write but those of `/api/auth` takes an `Idempotency-Key`, for example a random UUID. A repetition within 24
hours under the same key gets the first answer and changes nothing; another request under the key is a 422. After a
503, a timeout or a lost connection, send the same request again under the same key.

## Rate limits

Reads are limited to 100 a minute, ratings and other writes and an administrator's routes to 60, deletes and imports
to 10, and everything of a user together to 1000 an hour, unless the service is set up otherwise. `RateLimit` and
`RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-11) say what is left; `X-RateLimit-Limit`, `-Remaining` and
`-Reset` say it for the policy closest to exhaustion. A 429 has a `Retry-After` in seconds.

## Times and days

Times are ISO 8601 in UTC with milliseconds, such as `2026-01-31T09:30:00.000Z`. A time in a request has a UTC offset,
any one. A student's day, which streaks count, begins at midnight in the zone of the `X-Time-Zone` header (an IANA
name), else of the profile, else in UTC.

## Caching and compression

Reads have a weak `ETag`: `If-None-Match` saves the body (304). Answers of 1 kB and more are compressed where
`Accept-Encoding` allows gzip. A body of a request may be compressed with gzip or deflate.

## Sizes

A body holds at most 1 MiB, an import 10 MiB and 100,000 rows. Unknown fields and parameters are refused. Later
versions may add fields to answers, codes and values: ignore what you do not know.
"""

# In the order of the page; what the paths of each begin with, and what they are about.
TAGS: Mapping[str, tuple[tuple[str, ...], str]] = MappingProxyType(
    {
        "Reading": (("/api/classes", "/api/decks"), "The course as a student reads it: published only."),
        "Studying": (
            ("/api/study", "/api/progress", "/api/sessions", "/api/bookmarks", "/api/stats"),
            "What a student does with the course: ratings, sessions, bookmarks and figures.",
        ),
        "Identity": (("/api/auth", "/api/profile"), "Accounts, tokens and the caller's own data."),
        "Administration": (
            ("/api/admin",),
            "The course and its students, drafts included, for administrators.",
        ),
        "Operations": (
            ("/api/health", "/api/metrics", "/api/dashboard", "/dashboard", "/livez", "/readyz"),
            "How the service is. Never rate limited.",
        ),
        # The last one, because every path begins with a slash.
        "Documentation": (
            ("/api/openapi.json", "/api/docs", "/"),
            "Where to begin, this document, and a page to read it.",
        ),
    }
)
