"""What the OpenAPI document says in words: of the API as a whole, of each property and parameter, and by examples."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

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
# Generated clients name their methods by these, so they stay whatever a handler's module is called. The first that a
# path begins with counts.
CLIENT_GROUPS: Mapping[str, str] = MappingProxyType(
    {
        "/api/admin/decks/{deckId}/": "adminImports",
        "/api/admin/classes": "adminClasses",
        "/api/admin/decks": "adminDecks",
        "/api/admin/flashcards": "adminFlashcards",
        "/api/admin/users": "adminUsers",
        "/api/admin": "admin",
        "/api/auth": "auth",
        "/api/profile": "profile",
        "/api/classes": "classes",
        "/api/decks": "classes",
        "/api/study": "study",
        "/api/progress": "study",
        "/api/sessions": "study",
        "/api/bookmarks": "study",
        "/api/stats": "study",
        "/api/dashboard": "dashboard",
        "/dashboard": "dashboard",
        "/api/docs": "assets",
        "/api/openapi.json": "assets",
        "/api/": "operations",
        "/livez": "operations",
        "/readyz": "operations",
        "/": "home",
    }
)
PROPERTIES: Mapping[str, str] = MappingProxyType(
    {
        "Dashboard.machine": "Which machine answers: Heroku's dyno, or the name of the host or container.",
        "Dashboard.process": "The process id of the worker that answers.",
        "Dashboard.blocks": "The clients that are blocked, those first that are free first.",
        "Dashboard.overrides": "The limits that are overridden for single clients, those first that end first.",
        "BlockedClient.client": "The client, masked.",
        "BlockedClient.endsAt": "When the block ends.",
        "OverriddenLimit.client": "The client, masked.",
        "OverriddenLimit.policy": "The name of the policy; `*` for all.",
        "OverriddenLimit.limit": "What holds in the place of the policy's limit; null where the client is exempt.",
        "OverriddenLimit.endsAt": "When the policy's own limit holds again.",
        "OverriddenLimit.source": "Who has set it: an operator, or the rate limits file.",
        "Home.demoAccounts": "Only where `make run` has made them.",
        "Links.documentation": "The page to read the API.",
        "Links.openapi": "The OpenAPI document.",
        "Links.dashboard": "The page for administrators.",
        "Links.health": "Whether the services answer.",
        "Home.links": "Where to go on, relative to this service.",
        "Home.description": "What this is, in a sentence.",
        "Home.name": "The name of the service.",
        "Home.version": "The version of the service.",
        "DemoAccount.password": "The public password.",
        "ChangedProgress.progress": "The changed cards, the oldest change first.",
        "Class.decks": "Its published decks, by order, then name.",
        "DeckOfClass.classId": "The class that the deck belongs to.",
        "DueCounts.classes": "The classes with due cards, by order, then name.",
        "DueCounts.dueCards": "How many cards are due in all.",
        "ExportedAccount.subject": "The name of the account at its issuer; null for an account of our own.",
        "ExportedKey.status": "The HTTP status of the answer that is kept.",
        "ExportedKey.answer": "The body of the answer that is kept; null where it had none.",
        "ExportedSession.ratings": "The ratings that named this session.",
        "ExportedProgress.lastSeen": "When the card was last rated.",
        "KeyMetric.name": "A stable word for the metric.",
        "KeyMetric.title": "The metric's name for people.",
        "Metric.name": "The name of the metric family.",
        "Metric.type": "counter, gauge, histogram, summary or unknown.",
        "Metric.help": "What is counted.",
        "MasteryBreakdown.new": "Cards whose newest rating is 1 or 2.",
        "Problem.errors": "What is wrong with which field: at most 20, and none for errors that are about no field.",
        "Problem.status": "The HTTP status.",
        "Problem.title": "The HTTP status in words.",
        "Problem.type": "Always about:blank: `code` is what to program against.",
        "RateLimitState.subject": "The client: `user:` and an id, or `ip:` and an address.",
        "RecordedRatings.progress": "One entry a rating, in the order of the ratings.",
        "RegisterRequest.email": "The address to sign in with.",
        "LoginRequest.email": "The address that the account signs in with.",
        "Study.progress": "The reader's progress.",
        "Study.totalCards": "How many cards there are to choose from.",
        "StudyCard.progress": "What the reader last said of the card; null for one that was never rated.",
        "UserFigures.classes": "The student's progress class by class, by order, then name.",
        "accessToken": "A JWT for the Authorization header: `Bearer` and a blank before it.",
        "account": "The account itself.",
        "Override.endsAt": "Until when it holds.",
        "Override.policy": "The name of the policy, or * for all.",
        "Override.source": "Where it was made.",
        "OverrideRequest.limit": "How much the client has in the policy's window instead; null: it is not limited.",
        "OverrideRequest.seconds": "In how many seconds that ends: up to 366 days.",
        "Block.network": "The network that the file blocks; null where the client alone is blocked.",
        "block": "Why everything of the client is refused; null where it is not.",
        "overrides": "What holds for the client instead of policies' limits.",
        "expiresIn": "How long the access token holds.",
        "latency": "How long Redis took to answer.",
        "mean": "The mean duration.",
        "p95": "The duration that 95 % of the requests did not exceed.",
        "stability": "How long it takes until the probability of recall has fallen to 90 %.",
        "studyDuration": "From the session's start to its end; null while it runs.",
        "totalResponseTime": "How long all checks took together.",
        "totalStudyTime": "In ended sessions.",
        "uptime": "How long the process that answers has been running.",
        "windowSeconds": "How much time the key metrics are about.",
        "ClassDeck.progress": "How much of it the reader has rated.",
        "ClassProgress.progress": "How much of it the student has rated.",
        "UserClassProgress.progress": "How much of it the student has rated.",
        "action": "What to do about it.",
        "activeDays": "The days on which at least one card was rated.",
        "allowed": "Whether a request that costs 1 would be let through.",
        "answer": "The back of the card.",
        "averageConfidence": "The mean of all ratings of the session; null while it runs or where there were none.",
        "bookmarks": "The bookmarks, newest first.",
        "cache": "Redis.",
        "cardCount": "How many published cards there are.",
        "cardsStudied": "How many different cards were rated; null while the session runs.",
        "category": "Tags, separated by commas.",
        "charge": "Which requests stay charged.",
        "class": "The class that is studied.",
        "classId": "The class.",
        "className": "The name of the class.",
        "classes": "The classes of this page.",
        "client": "The client, masked.",
        "color": "A colour for the client to understand.",
        "confidenceLevel": "How well the card was known: 1 (not at all) to 5 (easily).",
        "connectionStatus": "Whether there is a connection to Redis.",
        "created": "Cards that are new.",
        "createdAt": "When it was made.",
        "currentPassword": "The password that is to be replaced.",
        "database": "PostgreSQL.",
        "day": "The date where the student was.",
        "deactivated": "Whether the account can't sign in.",
        "deactivatedAt": "Since when it can't; null where it can.",
        "deck": "The deck.",
        "deckCount": "How many published decks there are.",
        "deckId": "The deck.",
        "deckIds": "The decks that are studied.",
        "deckName": "The name of the deck.",
        "decks": "The decks of this page.",
        "deletes": "Values that were removed.",
        "description": "A text about it.",
        "detail": "What is wrong, in a sentence for people.",
        "difficulty": "How hard the card is for this student: 1 to 10.",
        "dueAt": "When the card should be seen again.",
        "dueCards": "How many of its cards are due.",
        "email": "The address that the account signs in with; null where an external issuer gave none.",
        "endedAt": "When the session ended; null while it runs.",
        "errors": "Calls of the cache that failed.",
        "expiresAt": "Until when it can be used.",
        "explanation": "More about the answer.",
        "family": "The login that the token descends from.",
        "firstAt": "The first rating of the day.",
        "flashcardId": "The card.",
        "flashcards": "The cards.",
        "group": "The group of routes that the policy counts.",
        "hasPassword": "Whether it has a password of ours; false for one of an external issuer.",
        "health": "Whether Redis answers now.",
        "healthy": "Whether it has answered in time.",
        "history": "One column a figure, all of the same length as the column of times.",
        "hitRate": "Hits among hits and misses, in percent.",
        "hitRateFormatted": "The same with a percent sign.",
        "hits": "Values that were found.",
        "icon": "An icon for the client to understand.",
        "id": "Its id, which never changes.",
        "idempotencyKeys": "The keys of the last 24 hours, with the answers that are kept.",
        "isPublished": "Whether students see it.",
        "issuer": "The external issuer that the account signs in with; null for our own.",
        "key": "The Idempotency-Key.",
        "keyMetrics": "The six figures to look at first.",
        "labels": "The labels of the sample.",
        "lastActiveDate": "The date of the last rating where the student was; null before the first.",
        "lastError": "The last failure in a word; null where there was none.",
        "lastErrorTime": "When that was.",
        "lastReviewAt": "The newest review that this is computed from.",
        "lastSeenDate": "When the card was last rated.",
        "latencyFormatted": "The same as a text with its unit.",
        "learning": "Cards whose newest rating is 3.",
        "learningCards": "Cards whose newest rating is 3.",
        "limit": "How much the policy admits in its window.",
        "machines": "How many machines report.",
        "mastered": "Cards whose newest rating is 4 or 5.",
        "masteredCards": "Cards whose newest rating is 4 or 5.",
        "masteryBreakdown": "The student's cards by mastery.",
        "masteryStatus": "What follows from the newest rating: 1 and 2 new, 3 learning, 4 and 5 mastered.",
        "memory": "What FSRS has computed, in classes that are set to it.",
        "message": "What has happened, or is wrong, in a sentence for people.",
        "method": "The HTTP method.",
        "metrics": "The metrics.",
        "misses": "Values that were not found.",
        "mode": "The mode that was asked for.",
        "name": "A name for people.",
        "newCards": "Rated cards whose newest rating is 1 or 2.",
        "newPassword": "The new password.",
        "nextReleaseMs": "In how many milliseconds room is made for one more; 0 where there is some.",
        "nextReviewDate": "When the card should be seen again.",
        "order": "Its place among those beside it, the lowest first.",
        "password": "The password.",
        "passwordReset": "The token that was issued for a new password; null where there is none.",
        "plan": "The plan, which may have rate limits of its own; null for the usual ones.",
        "policies": "One entry a policy and group.",
        "policy": "The name of the policy.",
        "progress": "The progress on each rated card.",
        "FirstCard.row": "The row of the file that it is in, from 1.",
        "question": "The front of the card.",
        "ratedAt": "When it was rated; of a request: now where it is left out.",
        "ratings": "The ratings.",
        "reason": "Why not, in a word.",
        "refreshToken": "A token for one exchange at POST /api/auth/refresh.",
        "refusals": "How often it was refused.",
        "refusedClients": "The clients that the rate limiter refused most.",
        "remaining": "How much is left of the limit.",
        "requestId": "The request's id, as in X-Request-ID: finds it in the logs.",
        "requests": "How many requests there were.",
        "ServiceHealth.responseTime": "How long it took to answer.",
        "ExportedRating.responseTime": "How long the student took; null where it is not known.",
        "responseTime": "How long the student took, in milliseconds.",
        "reviews": "How many reviews this is computed from.",
        "revokedAt": "When its sign-in was ended; null where it was not.",
        "role": "What the account may do.",
        "route": "The template of the path.",
        "samples": "Its values.",
        "scheduler": "How the next review is chosen: `fixed`, a table, or `fsrs`, spaced repetition.",
        "services": "The parts that the service needs.",
        "session": "The session.",
        "sessionId": "The study session.",
        "sessions": "The sessions, newest first.",
        "sets": "Values that were stored.",
        "signIns": "The refresh tokens.",
        "slowestRoutes": "The routes with the highest 95th percentile lately.",
        "source": "What has decided: Redis, or the process alone.",
        "startedAt": "When the session began.",
        "state": "Where the card is in FSRS.",
        "stats": "The figures.",
        "status": "How it is, in a word.",
        "step": "The step of learning or relearning; null in review.",
        "studiedCards": "Cards that were rated at least once.",
        "studiedCount": "How many of its cards the reader has rated.",
        "studyStreakDays": "Days in a row with at least one rating.",
        "timeZone": "Where the student's day begins, an IANA name.",
        "timesSeen": "How many ratings there were.",
        "timestamp": "When this was the case.",
        "token": "The one-time token.",
        "tokenType": "How to use the access token.",
        "total": "How many cards there are.",
        "totalCards": "How many published cards there are.",
        "totalCardsInProgress": "Cards that were rated and are not mastered.",
        "totalCardsStudied": "Cards that were rated at least once.",
        "totalOperations": "All calls of the cache.",
        "unchanged": "Cards that are in the deck already, as they are in the file.",
        "unit": "Of the value and its thresholds.",
        "updated": "Cards that were in the deck, and have changed.",
        "updatedAt": "When it was last changed.",
        "usedAt": "When it was exchanged; null where it was not.",
        "user": "The account.",
        "users": "The accounts of this page.",
        "value": "The value; null for one that is not a number.",
        "version": "The version of the service.",
        "windowMs": "The window of the policy, in milliseconds.",
        "workers": "The processes of the machine that answers.",
    }
)
# Of the path and the query.
PARAMETERS: Mapping[str, str] = MappingProxyType(
    {
        "after": "Only points of the history after this time, in whole seconds since 1970.",
        "classId": "The id of a class.",
        "deckId": "The id of a deck.",
        "decks": "Only the cards of these decks of the class: separated by commas, repeated, or both.",
        "file": "A file of the page; its name changes with its content.",
        "flashcardId": "The id of a card.",
        "limit": "At most so many entries.",
        "mode": "`progressive`: what is unseen, weak or due, the most urgent first; `random`: all, shuffled; `all`:"
        " all, in the order of the course.",
        "policy": "The name of a rate limit policy, or * for all.",
        "published": "true: only what is published; false: only drafts.",
        "q": "Only those with this text, in capitals or not.",
        "role": "Only accounts with this role.",
        "sessionId": "The id of a study session of the caller's.",
        "since": "Only what has changed after this moment, with a zone: `until` of the last answer.",
        "sort": "What comes first: the latest activity, the most cards, or the longest streak.",
        "subject": "The client: `user:` and an id, or `ip:` and an address or prefix.",
        "userId": "The id of an account.",
    }
)
_CARD = "7b1f4a52-0c1e-4f4e-9d3a-5a8f3f1c2b60"
_DECK = "2f0f0a1e-6f0b-4a53-8b0f-0d9f4c7f6a11"
_CLASS = "b3a7a1d2-52c4-4f0e-8a57-3f3f7d0b9c22"
_SESSION = "e1c9d6b4-77b1-4d0c-9a6e-1b2c3d4e5f60"
_PASSWORD = "correct horse battery"  # noqa: S105 - an example
# By the names of the schemas.
EXAMPLES: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        "RegisterRequest": {"email": "ada@example.com", "password": _PASSWORD, "name": "Ada"},
        "LoginRequest": {"email": "ada@example.com", "password": _PASSWORD},
        "RefreshRequest": {"refreshToken": "a refresh token of a login"},
        "ProfileChanges": {"name": "Ada", "timeZone": "Europe/Berlin"},
        "SessionRequest": {"deckIds": [_DECK]},
        "RatingRequest": {"confidenceLevel": 4, "sessionId": _SESSION, "responseTime": 1500},
        "RatingsRequest": {
            "ratings": [
                {"flashcardId": _CARD, "confidenceLevel": 2, "ratedAt": "2026-03-02T08:15:00+01:00"},
                {"flashcardId": _CARD, "confidenceLevel": 5},
            ]
        },
        "ClassRequest": {"name": "Asset Security", "description": "What is worth protecting.", "order": 2},
        "ClassChanges": {"isPublished": True, "scheduler": "fsrs"},
        "DeckRequest": {"classId": _CLASS, "name": "Data Lifecycle", "order": 1},
        "DeckChanges": {"isPublished": True},
        "FlashcardRequest": {
            "deckId": _DECK,
            "question": "What is remanence?",
            "answer": "Data that is left on a medium after it was erased.",
            "category": "storage",
            "isPublished": True,
        },
        "FlashcardChanges": {"explanation": "Overwriting, degaussing and destruction remove it."},
        "OverrideRequest": {"limit": 500, "seconds": 3600},
        "AccountChangesRequest": {"plan": "team"},
        "ResetRequest": {"token": "a one-time token", "newPassword": f"{_PASSWORD} staple"},
        "PasswordRequest": {"currentPassword": _PASSWORD, "newPassword": f"{_PASSWORD} staple"},
        "DeletionRequest": {"password": _PASSWORD},
        "FileCard": {"question": "What is remanence?", "answer": "What is left.", "category": "storage"},
    }
)
