"""How many queries a route needs: always the same ones, however large the course and however many its students."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from typing import Any

import pytest
import redis
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - the driver names its class in lower case

from server.api.routes import ROUTES
from server.api.services import SERVICES
from server.cli.generating import generate
from server.stores.postgres.connection import Connection
from tests.api.conftest import Api, Course
from tests.conftest import run_sql

# Each read with an empty cache: its queries, each once. {name} is an id of `ids`.
READS: dict[str, set[str]] = {
    "/api/auth/me": {"find_user"},
    "/api/auth/me/export": {"export_user"},
    "/api/classes": {"list_published_classes"},
    "/api/classes/{class}": {"get_published_class", "list_class_decks", "list_class_mastery"},
    "/api/classes/{class}/study?mode=all": {
        "get_published_class", "list_class_decks", "list_class_progress", "find_published_decks", "list_deck_cards",
    },
    "/api/decks/{deck}/flashcards": {"find_published_decks", "list_deck_cards"},
    "/api/study/due": {"list_due_counts"},
    "/api/progress": {"list_changed_progress"},
    "/api/progress/class/{class}": {"get_published_class", "list_class_decks", "list_class_mastery"},
    "/api/progress/cards/{card}": {"get_card_progress"},
    "/api/stats": {"get_user_stats"},
    "/api/profile": {"get_profile"},
    "/api/bookmarks": {"list_bookmarks"},
    "/api/sessions": {"list_sessions"},
    "/api/sessions?deckId={deck}": {"list_deck_sessions"},
    "/api/admin/classes": {"list_classes"},
    "/api/admin/classes/{class}": {"get_class"},
    "/api/admin/decks": {"list_decks"},
    "/api/admin/decks/{deck}": {"get_deck"},
    "/api/admin/decks/{deck}/export": {"get_deck", "list_cards_of_deck"},
    "/api/admin/flashcards": {"list_flashcards"},
    "/api/admin/flashcards/{card}": {"get_flashcard"},
    "/api/admin/users": {"list_accounts"},
    "/api/admin/users/{user}": {"get_account"},
    "/api/admin/analytics/users?sort=recent": {"list_users_by_recent"},
    "/api/admin/analytics/users?sort=studied": {"list_users_by_studied"},
    "/api/admin/analytics/users?sort=streak": {"list_users_by_streak"},
    "/api/admin/analytics/users/{user}": {"get_user_figures", "list_user_classes"},
}  # fmt: skip
# These read nothing, or are not about data.
WITHOUT_QUERIES = {
    "/", "/api/health", "/livez", "/readyz", "/api/metrics", "/api/metrics/cache", "/api/admin/rate-limits/{subject}",
    "/api/openapi.json", "/api/docs", "/api/docs/{file}", "/dashboard", "/dashboard/{file}", "/api/dashboard",
}  # fmt: skip
# Asked now and then, apart from what the route asks.
WHETHER_THE_CALLER_EXISTS = Counter({"find_user": 2})


class Tally:
    """The queries that the service has run since the last look, by its own metric."""

    def __init__(self, api: Api) -> None:
        app = api.client.app
        assert app is not None
        self._metrics = app[SERVICES].metrics
        self._seen = self._read()

    def since(self) -> Counter[str]:
        """Names of queries, and how often each was run."""
        before, self._seen = self._seen, self._read()
        return self._seen - before

    def _read(self) -> Counter[str]:
        self._metrics.flush()
        return Counter(
            {
                sample.labels["query"]: int(sample.value)
                for family in self._metrics.database_query_duration_seconds.collect()
                for sample in family.samples
                if sample.name.endswith("_count")
            }
        )


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
async def test_a_read_needs_its_queries_and_no_more(
    api: Api, course: Course, database_url: str, redis_url: str, *, large: bool
) -> None:
    """Each once, with an empty cache, whether there are six cards and three users or a thousand and two hundred."""
    ids = {
        "class": course.classes["Risk"],
        "deck": course.decks["Analysis"],
        "card": course.cards["r1"],
        "user": api.people["user"].user_id,
    }
    if large:
        generate(database_url, users=200, cards=1100, ratings=2000, append=True, progress=False)
    await api.put(f"/api/progress/cards/{ids['card']}", json={"confidenceLevel": 3})
    counted = {}
    for path in READS:
        with closing(redis.Redis.from_url(redis_url)) as client:
            client.flushall()
        tally = Tally(api)
        response = await api.get(path.format(**ids), by="admin" if "/admin/" in path else "user")
        assert 200 == response.status
        counted[path] = tally.since() - WHETHER_THE_CALLER_EXISTS
    assert {path: Counter(queries) - WHETHER_THE_CALLER_EXISTS for path, queries in READS.items()} == counted


async def test_a_class_of_many_decks_is_studied_with_as_many_queries(api: Api, database_url: str) -> None:
    """Twenty decks that are not in the cache are two queries together, and none the next time."""
    generate(database_url, users=1, cards=1000, ratings=10, append=True, progress=False)
    classes = await (await api.get("/api/classes")).json()
    path = f"/api/classes/{classes['classes'][0]['id']}/study?mode=all"
    tally = Tally(api)
    study = await (await api.get(path)).json()
    assert (1000, 20) == (study["totalCards"], len({card["deckId"] for card in study["flashcards"]}))
    assert Counter(READS["/api/classes/{class}/study?mode=all"]) == tally.since() - WHETHER_THE_CALLER_EXISTS
    await api.get(path)
    assert Counter() == tally.since() - WHETHER_THE_CALLER_EXISTS


@pytest.mark.parametrize("cards", [1, 3])
async def test_a_rating_is_one_statement(api: Api, course: Course, database_url: str, cards: int) -> None:
    """However many cards, in a session and under a key; what it assumes is looked up when it is new."""
    started = await api.post("/api/sessions", json={"deckIds": [str(course.decks["Analysis"])]})
    session_id = (await started.json())["sessionId"]
    ratings = [
        {"flashcardId": str(course.cards[f"r{number + 1}"]), "confidenceLevel": 4, "sessionId": session_id}
        for number in range(cards)
    ]

    async def asked(**headers: str) -> Counter[str]:
        tally = Tally(api)
        response = await api.post("/api/progress/cards", json={"ratings": ratings}, headers=headers)
        assert 200 == response.status
        return tally.since() - WHETHER_THE_CALLER_EXISTS

    looks, records, reads_log = (
        Counter({"find_rating_facts"}),
        Counter({"record_ratings"}),
        Counter({"list_reviews"}),
    )
    keyed = {"Idempotency-Key": "a-batch"}
    assert looks + records == await asked()
    assert records == await asked()
    assert records == await asked(**keyed)
    assert records == await asked(**keyed), "a repeat"
    run_sql(database_url, "UPDATE classes SET scheduler = 'fsrs'")
    assert records + looks + reads_log + records == await asked(), "the class was not as it had been"
    assert looks + records == await asked(), "the memory is kept"


# By route: the most messages to PostgreSQL, each of which waits for its answer.
ROUND_TRIPS = {
    "rating": 1,
    "rating with a key": 1,
    "rating in a session": 1,
    "rating of a new card": 2,
    "rating with FSRS": 2,
    "batch": 1,
    "batch with FSRS": 2,
    "study page": 0,
    "start of a session": 3,
    "end of a session": 4,
    "bookmark": 4,
}


async def test_writes_need_few_round_trips(
    api: Api, course: Course, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted where the driver sends: BEGIN, COMMIT and everything else that waits for the server."""
    sent: list[str] = []
    run = Connection.run

    async def counted(connection: Connection, sql: str, *args: Any, **kwargs: Any) -> Cursor:
        sent.append(sql)
        return await run(connection, sql, *args, **kwargs)

    r1, r2, a1 = (course.cards[name] for name in ("r1", "r2", "a1"))
    deck = str(course.decks["Analysis"])
    study = f"/api/classes/{course.classes['Risk']}/study?mode=all"
    for card in (r1, a1):
        await api.put(f"/api/progress/cards/{card}", json={"confidenceLevel": 3})
    await api.get(study)
    monkeypatch.setattr(Connection, "run", counted)
    counts: dict[str, int] = {}

    async def count(what: str, method: str, path: str, **request: Any) -> Any:
        sent.clear()
        response = await getattr(api, method)(path, **request)
        assert response.status < 300, await response.text()
        counts[what] = len([text for text in sent if "query=find_user " not in text])
        return await response.json()

    path, batch = (
        f"/api/progress/cards/{r1}",
        [{"flashcardId": str(card), "confidenceLevel": 5} for card in (r1, a1)],
    )
    await count("rating", "put", path, json={"confidenceLevel": 4})
    await count(
        "rating with a key", "put", path, json={"confidenceLevel": 4}, headers={"Idempotency-Key": "k"}
    )
    await count("rating of a new card", "put", f"/api/progress/cards/{r2}", json={"confidenceLevel": 4})
    session = (await count("start of a session", "post", "/api/sessions", json={"deckIds": [deck]}))[
        "sessionId"
    ]
    await count("rating in a session", "put", path, json={"confidenceLevel": 4, "sessionId": session})
    await count("end of a session", "post", f"/api/sessions/{session}/end")
    await count("batch", "post", "/api/progress/cards", json={"ratings": batch})
    await count("study page", "get", study)
    await count("bookmark", "put", f"/api/bookmarks/{r1}")
    run_sql(database_url, "UPDATE classes SET scheduler = 'fsrs'")
    for _ in range(2):  # the first has to find out
        await count("rating with FSRS", "put", path, json={"confidenceLevel": 4})
        await count("batch with FSRS", "post", "/api/progress/cards", json={"ratings": batch})
    assert counts == ROUND_TRIPS


def test_every_read_has_its_line_here() -> None:
    """A new route says above what it asks the database for."""
    listed = {_shape(path.partition("?")[0]) for path in READS} | {_shape(path) for path in WITHOUT_QUERIES}
    reads = {_shape(route.path) for route in ROUTES if route.method == "GET"}
    assert set() == reads - listed


def _shape(path: str) -> str:
    return "/".join("{}" if part.startswith("{") else part for part in path.split("/"))
