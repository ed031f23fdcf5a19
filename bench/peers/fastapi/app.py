"""The service's most travelled route as FastAPI's users would write it.

The same features, each by the library of its kind, with the settings that its documentation recommends for production.

Environment:
    REDIS_URL: holds the limits, and the JSON of a class under CONTENT_PREFIX + its id.
    SECRET_KEY: signs the access tokens (HS256).
    LIMIT_PER_MINUTE, LIMIT_PER_HOUR: the two limits of a reader.
    DATABASE_URL: a PostgreSQL with the tables of ratings.sql, for ratings; without it there are none.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
import re
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import asyncpg
import jwt
import orjson
import redis.asyncio as aioredis
import structlog
from asgi_correlation_id import CorrelationIdMiddleware, correlation_id
from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from limits import RateLimitItem, RateLimitItemPerHour, RateLimitItemPerMinute
from limits.aio.storage import RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from prometheus_client import Counter
from prometheus_fastapi_instrumentator import Instrumentator
from pydantic import BaseModel, Field
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECRET_KEY = os.environ["SECRET_KEY"]
CONTENT_PREFIX = os.environ["CONTENT_PREFIX"]
LIMITS: dict[str, RateLimitItem] = {
    "generous": RateLimitItemPerMinute(int(os.environ["LIMIT_PER_MINUTE"])),
    "api": RateLimitItemPerHour(int(os.environ["LIMIT_PER_HOUR"])),
}
POLICY_HEADER = ", ".join(f'"{name}";q={item.amount};w={item.get_expiry()}' for name, item in LIMITS.items())
ACCEPTED_ID = re.compile(r"[A-Za-z0-9._:+/=-]{20,200}", re.ASCII)
TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII
)

# The fast configuration of structlog's documentation.
structlog.configure(
    cache_logger_on_first_use=True,
    wrapper_class=structlog.make_filtering_bound_logger(20),
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.format_exc_info,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.EventRenamer("message"),
        structlog.processors.JSONRenderer(serializer=orjson.dumps),
    ],
    logger_factory=structlog.BytesLoggerFactory(),
)
log = structlog.get_logger("access")

# Without a pool that waits, redis-py raises as soon as a hundred connections are in use.
pool = aioredis.BlockingConnectionPool.from_url(os.environ["REDIS_URL"], max_connections=64, timeout=5)
cache = aioredis.Redis(connection_pool=pool)
limiter = SlidingWindowCounterRateLimiter(
    RedisStorage(f"async+{os.environ['REDIS_URL']}", implementation="redispy", connection_pool=pool)
)
cache_hits = Counter("cache_hits_total", "Content found in Redis.")
cache_misses = Counter("cache_misses_total", "Content not found in Redis.")
decisions = Counter("rate_limit_decisions_total", "Decisions by policy and outcome.", ["policy", "outcome"])


@dataclass
class Story:
    """What one request leaves for its headers and its log line."""

    began: float = field(default_factory=time.perf_counter)
    parts: dict[str, float] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    user_id: str | None = None
    rate_limit: str = "unlimited"


class Tell:
    """Adds the headers of every response, and writes the access line; plain ASGI, as Starlette recommends."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        story = Story()
        scope["state"]["story"] = story
        seen = {"status": 500, "length": 0}

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                add_headers(scope, story, headers)
                seen["status"] = message["status"]
                seen["length"] = int(headers.get("content-length", 0))
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        finally:
            route = scope.get("route")
            log.info(
                "http.request",
                request_id=correlation_id.get(),
                user_id=story.user_id,
                client_ip=scope["client"][0],
                duration_ms=round((time.perf_counter() - story.began) * 1e3, 2),
                rate_limit=story.rate_limit,
                response_bytes=seen["length"],
                **{f"{part}_ms": round(ms, 2) for part, ms in story.parts.items()},
                **{
                    "http.method": scope["method"],
                    "http.route": "unmatched" if route is None else route.path_format,
                    "http.status": seen["status"],
                },
            )


def add_headers(scope: Scope, story: Story, headers: MutableHeaders) -> None:
    """The headers of every response."""
    total = (time.perf_counter() - story.began) * 1e3
    parts = "".join(f", {part};dur={ms:.2f}" for part, ms in story.parts.items())
    sent = next((value for name, value in scope["headers"] if name == b"traceparent"), b"").decode("latin-1")
    trace = TRACEPARENT.fullmatch(sent)
    headers["X-Trace-ID"] = trace[1] if trace else correlation_id.get() or ""
    headers["Server-Timing"] = f"total;dur={total:.2f}{parts}"
    headers["X-Response-Time"] = f"{total:.2f}ms"
    headers["X-Performance-Rating"] = (
        "Good" if total < 200 else "Needs Improvement" if total < 500 else "Poor"
    )
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Referrer-Policy"] = "no-referrer"
    headers["X-Frame-Options"] = "DENY"
    headers.update(story.headers)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Connections end with the process."""
    await cache.ping()
    if url := os.environ.get("DATABASE_URL"):
        app.state.database = await asyncpg.create_pool(url, min_size=10, max_size=10)
    yield
    await pool.aclose()
    if url:
        await app.state.database.close()


app = FastAPI(lifespan=lifespan, openapi_url=None)
app.add_middleware(Tell)
# Added last, so it is the outermost one and the line has its id.
app.add_middleware(
    CorrelationIdMiddleware,
    generator=lambda: f"req_{uuid.uuid4().hex}",
    validator=lambda offered: ACCEPTED_ID.fullmatch(offered) is not None,
)
Instrumentator().instrument(app).expose(app, endpoint="/api/metrics")


def story_of(request: Request) -> Story:
    """What the request has left so far."""
    story: Story = request.state.story
    return story


async def current_user(
    request: Request,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))],
) -> str:
    """Who a valid token says is calling."""
    if credentials is None:
        raise HTTPException(401, "There is no access token.", {"WWW-Authenticate": "Bearer"})
    try:
        claims = jwt.decode(
            credentials.credentials,
            SECRET_KEY,
            algorithms=["HS256"],
            issuer="mastery",
            options={"require": ["sub", "role", "exp", "iat"]},
        )
    except jwt.InvalidTokenError as error:
        raise HTTPException(401, "The access token is not valid.", {"WWW-Authenticate": "Bearer"}) from error
    user_id: str = claims["sub"]
    story_of(request).user_id = user_id
    return user_id


async def rate_limited(request: Request, user_id: Annotated[str, Depends(current_user)]) -> None:
    """Both limits: charged at once, then looked at, for the headers."""
    story, began = story_of(request), time.perf_counter()
    allowed = await asyncio.gather(*(limiter.hit(item, name, user_id) for name, item in LIMITS.items()))
    stats = await asyncio.gather(
        *(limiter.get_window_stats(item, name, user_id) for name, item in LIMITS.items())
    )
    story.parts["limit"] = (time.perf_counter() - began) * 1e3
    now = time.time()
    waits = [max(1, math.ceil(window.reset_time - now)) for window in stats]
    closest = min(range(len(stats)), key=lambda index: stats[index].remaining)
    names, items = list(LIMITS), list(LIMITS.values())
    story.headers |= {
        "X-RateLimit-Limit": str(items[closest].amount),
        "X-RateLimit-Remaining": str(stats[closest].remaining),
        "X-RateLimit-Reset": datetime.fromtimestamp(stats[closest].reset_time, UTC).isoformat(
            timespec="milliseconds"
        ),
        "RateLimit-Policy": POLICY_HEADER,
        "RateLimit": ", ".join(
            f'"{name}";r={window.remaining};t={wait}'
            for name, window, wait in zip(names, stats, waits, strict=True)
        ),
    }
    for name, passed in zip(names, allowed, strict=True):
        decisions.labels(name, "allowed" if passed else "denied").inc()
    story.rate_limit = "allowed" if all(allowed) else "denied"
    if not all(allowed):
        wait = max(wait for wait, passed in zip(waits, allowed, strict=True) if not passed)
        raise HTTPException(429, "Too many requests.", {"Retry-After": str(wait)})


@app.exception_handler(StarletteHTTPException)
async def problem(_request: Request, error: Exception) -> Response:
    """Errors as application/problem+json."""
    assert isinstance(error, StarletteHTTPException)
    content: dict[str, Any] = {
        "type": "about:blank",
        "title": "Error",
        "status": error.status_code,
        "detail": error.detail,
        "requestId": correlation_id.get(),
    }
    headers = {"Cache-Control": "no-store", **(error.headers or {})}
    return Response(orjson.dumps(content), error.status_code, headers, "application/problem+json")


@app.get("/api/classes/{class_id}", dependencies=[Depends(rate_limited)])
async def get_class(class_id: uuid.UUID, request: Request) -> Response:
    """The class as Redis has it."""
    story, began = story_of(request), time.perf_counter()
    body = await cache.get(f"{CONTENT_PREFIX}{class_id}")
    story.parts["cache"] = (time.perf_counter() - began) * 1e3
    if body is None:
        cache_misses.inc()
        raise HTTPException(404, "There is no such class.")
    cache_hits.inc()
    tag = f'W/"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
    headers = {"Cache-Control": "private, no-cache", "ETag": tag, "Vary": "Authorization", "X-Cache": "HIT"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(body, media_type="application/json", headers=headers)


class Rating(BaseModel):
    """The body of a rating."""

    confidence: Annotated[int, Field(alias="confidenceLevel", ge=1, le=5)]
    response_time_ms: Annotated[int | None, Field(alias="responseTime", ge=0)] = None


REVIEW_AFTER = {
    1: timedelta(hours=12),
    2: timedelta(hours=12),
    3: timedelta(days=1),
    4: timedelta(days=3),
    5: timedelta(days=7),
}


def mastery_of(confidence: int) -> str:
    """How well a card is known."""
    return "mastered" if confidence >= 4 else "learning" if confidence == 3 else "new"


@app.put("/api/progress/cards/{card_id}", dependencies=[Depends(rate_limited)])
async def rate_card(
    card_id: uuid.UUID,
    rating: Rating,
    request: Request,
    key: Annotated[str | None, Header(alias="Idempotency-Key", max_length=255)] = None,
) -> Response:
    """One rating, in a transaction; the answer is the card's progress."""
    story, began = story_of(request), time.perf_counter()
    assert story.user_id is not None
    user_id = uuid.UUID(story.user_id)
    fingerprint = hashlib.sha256(f"{card_id}".encode() + await request.body()).hexdigest()
    async with request.app.state.database.acquire() as connection, connection.transaction():
        if key is not None:
            taken = await connection.fetchval(
                "INSERT INTO peer.idempotency_keys (user_id, key, fingerprint) VALUES ($1, $2, $3)"
                " ON CONFLICT DO NOTHING RETURNING true",
                user_id, key, fingerprint,
            )  # fmt: skip
            if not taken:
                kept = await connection.fetchrow(
                    "SELECT fingerprint, body FROM peer.idempotency_keys WHERE user_id = $1 AND key = $2",
                    user_id,
                    key,
                )
                if kept["fingerprint"] != fingerprint:
                    raise HTTPException(422, "This key belongs to another request.")
                return Response(kept["body"], media_type="application/json")
        body = await record(connection, user_id, card_id, rating)
        if key is not None:
            await connection.execute(
                "UPDATE peer.idempotency_keys SET body = $3 WHERE user_id = $1 AND key = $2",
                user_id,
                key,
                body.decode(),
            )
    story.parts["db"] = (time.perf_counter() - began) * 1e3
    return Response(body, media_type="application/json", headers={"Cache-Control": "no-store"})


async def record(connection: Any, user_id: uuid.UUID, card_id: uuid.UUID, rating: Rating) -> bytes:
    """Write progress, log, counters and streak; give the progress as JSON."""
    found = await connection.fetchval(
        "SELECT true FROM flashcards AS f JOIN decks AS d ON d.id = f.deck_id AND d.is_published"
        " JOIN classes AS c ON c.id = d.class_id AND c.is_published WHERE f.id = $1 AND f.is_published",
        card_id,
    )
    if not found:
        raise HTTPException(404, "There is no such card.")
    stats = await connection.fetchrow(
        "SELECT streak_days, last_day FROM peer.stats WHERE user_id = $1 FOR UPDATE", user_id
    )
    before = await connection.fetchval(
        "SELECT mastery FROM peer.progress WHERE user_id = $1 AND card_id = $2", user_id, card_id
    )
    now = datetime.now(UTC)
    mastery = mastery_of(rating.confidence)
    await connection.execute(
        "INSERT INTO peer.reviews (user_id, card_id, confidence, response_time_ms, rated_at)"
        " VALUES ($1, $2, $3, $4, $5)",
        user_id, card_id, rating.confidence, rating.response_time_ms, now,
    )  # fmt: skip
    row = await connection.fetchrow(
        "INSERT INTO peer.progress AS p (user_id, card_id, confidence, mastery, times_seen, last_seen, next_review)"
        " VALUES ($1, $2, $3, $4, 1, $5, $6)"
        " ON CONFLICT (user_id, card_id) DO UPDATE SET confidence = excluded.confidence,"
        " mastery = excluded.mastery, times_seen = p.times_seen + 1, last_seen = excluded.last_seen,"
        " next_review = excluded.next_review RETURNING *",
        user_id, card_id, rating.confidence, mastery, now, now + REVIEW_AFTER[rating.confidence],
    )  # fmt: skip
    today = now.date()
    days = stats["streak_days"]
    if stats["last_day"] != today:
        days = days + 1 if stats["last_day"] == today - timedelta(days=1) else 1
    changes = [(mastery == status) - (before == status) for status in ("new", "learning", "mastered")]
    await connection.execute(
        "UPDATE peer.stats SET new = new + $2, learning = learning + $3, mastered = mastered + $4, streak_days = $5,"
        " last_day = $6, last_active = $7 WHERE user_id = $1",
        user_id, *changes, days, today, now,
    )  # fmt: skip
    return orjson.dumps(
        {
            "flashcardId": str(row["card_id"]),
            "confidenceLevel": row["confidence"],
            "masteryStatus": row["mastery"],
            "timesSeen": row["times_seen"],
            "lastSeenDate": row["last_seen"].isoformat(timespec="milliseconds"),
            "nextReviewDate": row["next_review"].isoformat(timespec="milliseconds"),
        }
    )
