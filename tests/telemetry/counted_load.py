"""Thousands of requests, each with an id of its own, and everything that their sender knows about them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import psycopg2
from psycopg2 import sql

from server.domain.identity.tokens import AccessTokens, Caller
from server.domain.identity.users import DEMO_IDS
from tests.support.service import SECRET_KEY, Service

TRUSTED_PROXIES = "127.0.0.0/8"
_SENDERS = 12
_USERS = 30
_INSERT_USER = "INSERT INTO users (id, email, password_hash, name) VALUES (%s::uuid, %s, 'none', 'Load')"
# Eight guesses at a password from one address: the limiter refuses the last three, whatever else it does.
_GUESSES = 8
_GUESSERS = ("203.0.113.1", "203.0.113.2")


@dataclass(frozen=True)
class Plan:
    """A request to be sent."""

    method: str
    route: str
    path: str
    who: str
    address: str
    token: str | None = None
    body: Any = None


@dataclass(frozen=True)
class Answered:
    """A request that was sent, and what the answer said."""

    request_id: str
    plan: Plan
    status: int
    duration_ms: float


def send_counted(service: Service, requests: int) -> list[Answered]:
    """Send so many requests by several connections, in an order that is the same each time.

    Args:
        service: started with TRUSTED_PROXIES as above, for every client has an address of its own.
        requests: how many.
    """
    plans = _plans(service, requests, random.Random(6))  # noqa: S311 - nobody has to be surprised
    return asyncio.run(_send_all(service, plans))


def _plans(service: Service, requests: int, dice: random.Random) -> Sequence[Plan]:
    with closing(psycopg2.connect(service.environment["DATABASE_URL"])) as connection, connection:
        users = _make_users(connection)
        classes, decks, cards = (_ids(connection, table) for table in ("classes", "decks", "flashcards"))
    tokens = AccessTokens(SECRET_KEY, lifetime_seconds=3600)
    signed_in = {
        str(user): (tokens.issue(Caller(user, "user")), f"198.51.100.{number}")
        for number, user in enumerate(users, 1)
    }

    def of_a_user() -> Plan:
        who = dice.choice(list(signed_in))
        token, address = signed_in[who]
        method, route, path, body = dice.choice(
            (
                ("GET", "/api/classes", "/api/classes", None),
                ("GET", "/api/classes/{classId}", f"/api/classes/{dice.choice(classes)}", None),
                (
                    "GET",
                    "/api/decks/{deckId}/flashcards",
                    f"/api/decks/{dice.choice(decks)}/flashcards",
                    None,
                ),
                ("GET", "/api/stats", "/api/stats?days=nonsense", None),
                ("GET", "unmatched", f"/nowhere/{dice.random()}", None),
                (
                    "PUT",
                    "/api/progress/cards/{flashcardId}",
                    f"/api/progress/cards/{dice.choice(cards)}",
                    {"confidenceLevel": dice.randint(1, 5)},
                ),
            )
        )
        return Plan(method, route, path, who, address, token, body)

    def of_a_stranger() -> Plan:
        address = f"192.0.2.{dice.randint(1, 9)}"
        return Plan("GET", "/api/classes", "/api/classes", address, address)

    guess = {"email": "nobody@example.com", "password": "a guess at it"}
    plans = [
        Plan("POST", "/api/auth/login", "/api/auth/login", address, address, None, guess)
        for address in _GUESSERS
        for _ in range(_GUESSES)
    ]
    admin, at = str(DEMO_IDS["admin"]), "198.51.100.200"
    for number in range(10):
        body = {"name": f"Of the load {number}"}
        plans.append(
            Plan("POST", "/api/admin/classes", "/api/admin/classes", admin, at, service.admin_token, body)
        )
    while len(plans) < requests:
        plans.append(of_a_stranger() if dice.random() < 0.1 else of_a_user())
    dice.shuffle(plans)
    return plans


def _make_users(connection: psycopg2.extensions.connection) -> list[UUID]:
    users = [uuid4() for _ in range(_USERS)]
    with connection.cursor() as cursor:
        for number, user in enumerate(users):
            cursor.execute(_INSERT_USER, (str(user), f"load-{number}@example.com"))
    return users


def _ids(connection: psycopg2.extensions.connection, table: str) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("SELECT id FROM {} ORDER BY id").format(sql.Identifier(table)))
        return [str(row_id) for (row_id,) in cursor]


async def _send_all(service: Service, plans: Sequence[Plan]) -> list[Answered]:
    answered: list[Answered] = []
    waiting, numbers = iter(plans), count()

    async def send_some(session: aiohttp.ClientSession) -> None:
        for plan in waiting:
            request_id = f"counted-request-{next(numbers):08}"
            headers = {"X-Request-ID": request_id, "X-Forwarded-For": plan.address}
            if plan.token is not None:
                headers["Authorization"] = f"Bearer {plan.token}"
            async with session.request(plan.method, plan.path, headers=headers, json=plan.body) as response:
                await response.read()
            duration_ms = float(response.headers["X-Response-Time"].removesuffix("ms"))
            answered.append(Answered(request_id, plan, response.status, duration_ms))

    timeout = aiohttp.ClientTimeout(total=60)
    async with (
        aiohttp.ClientSession(
            service.address, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()
        ) as session,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(_SENDERS):
            group.create_task(send_some(session))
    return answered
