"""A little of everything that clients do, right and wrong."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import closing

import redis

from tests.support.service import Service

PAGES = 12


def mixed_load(service: Service) -> Counter[int]:
    """Send some dozens of requests: hits and misses, ratings, strangers, lost paths, and guesses at a password.

    It begins with an empty Redis: every first read is a miss, and no limit is used up yet but that of the guesses.

    Returns:
        How many answers had each status.
    """
    seen: Counter[int] = Counter()
    with closing(redis.Redis.from_url(service.environment["REDIS_URL"])) as client:
        client.flushall()

    def send(method: str, path: str, *, token: str | None = service.user_token, body: object = None) -> str:
        status, text = service.request(method, path, token=token, body=body)
        seen[status] += 1
        return text

    classes = json.loads(send("GET", "/api/classes"))["classes"]
    for number in range(PAGES):
        send("GET", "/api/classes")
        page = json.loads(send("GET", f"/api/classes/{classes[number % len(classes)]['id']}"))
        deck = page["decks"][0]["id"]
        cards = json.loads(send("GET", f"/api/decks/{deck}/flashcards"))["flashcards"]
        send("PUT", f"/api/progress/cards/{cards[0]['id']}", body={"confidenceLevel": 1 + number % 5})
    for path in ("/api/stats", "/api/nothing", "/elsewhere"):
        send("GET", path)
    send("GET", "/api/classes", token=None)
    send("PUT", "/api/progress/cards/none", body={})
    guess = {"email": "nobody@example.com", "password": "a wrong password"}
    for _ in range(6):
        send("POST", "/api/auth/login", token=None, body=guess)
    return seen
