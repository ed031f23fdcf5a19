"""Figures of administrators from a real streaming replica: while it works, is behind, hangs, is down, or is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import psutil
import pytest
import redis
from structlog.testing import capture_logs

from server.development import EmbeddedServer
from server.settings import Settings
from server.stores.postgres.database import Database
from server.stores.postgres.errors import DatabaseUnavailable
from server.stores.postgres.replica import Replica
from tests.api.conftest import Api, Course, StartApi
from tests.conftest import FAST_POSTGRES, replace_database, run_sql
from tests.stores.postgres.databases import ask
from tests.support.postgres_replica import ReplicaServer, replica_server
from tests.support.waiting import eventually, wait_until

USERS = "/api/admin/analytics/users"
FIGURES = {
    "list_users_by_recent",
    "list_users_by_studied",
    "list_users_by_streak",
    "get_user_figures",
    "list_user_classes",
}


@pytest.fixture(scope="module")
def standby(
    shared_postgres: EmbeddedServer, database_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ReplicaServer]:
    """A replica of the session's PostgreSQL."""
    del database_template  # what is there when the copy is made need not be replayed
    folder = tmp_path_factory.mktemp("replica") / "server"
    with replica_server(folder, shared_postgres, FAST_POSTGRES) as server:
        yield server


@pytest.fixture
def replica_url(standby: ReplicaServer, database_url: str, people: object, course: Course) -> str:
    """The test's database on the replica, which has replayed all of it."""
    del people, course  # they are put into the database before
    url = replace_database(standby.url, database_url.rpartition("/")[2])
    catch_up(database_url, standby)
    return url


@pytest.fixture
def replica_settings(settings: Settings, replica_url: str) -> Settings:
    """The settings of a service that has the replica, on a machine that may be slow."""
    return replace(settings, database_replica_url=replica_url)


@pytest.fixture
def freeze(standby: ReplicaServer) -> Iterator[Callable[[], None]]:
    """Make the replica replay nothing more until the test ends."""

    def pause() -> None:
        run_sql(standby.url, "SELECT pg_wal_replay_pause()")
        eventually(
            lambda: [("paused",)] == ask(standby.url, "SELECT pg_get_wal_replay_pause_state()"),
            "it stands still",
        )

    yield pause
    run_sql(standby.url, "SELECT pg_wal_replay_resume()")


def catch_up(primary_url: str, standby: ReplicaServer) -> None:
    """Wait until the replica has replayed what the primary has written by now."""
    ((position,),) = ask(primary_url, "SELECT pg_current_wal_insert_lsn()")
    eventually(
        lambda: [(True,)] == ask(standby.url, f"SELECT pg_last_wal_replay_lsn() >= '{position}'"),
        "the replica has it all",
    )


def replica_of(api: Api) -> Replica:
    """The watch of the service under test."""
    assert api.services.replica is not None
    return api.services.replica


def ran_on_replica(api: Api) -> set[str]:
    """The queries that were run on the replica."""
    api.services.metrics.flush()
    return {
        sample.labels["query"]
        for family in api.services.metrics.database_query_duration_seconds.collect()
        for sample in family.samples
        if sample.labels["target"] == "replica"
    }


async def figures(api: Api, name: str = "user") -> dict[str, Any]:
    """A user as administrators see them in the list."""
    response = await api.get(f"{USERS}?limit=100", by="admin")
    assert 200 == response.status
    listed: list[dict[str, Any]] = (await response.json())["users"]
    return next(user for user in listed if user["email"] == f"{name}@example.com")


async def health(api: Api) -> tuple[int, str, dict[str, tuple[str, str | None]]]:
    """What /api/health answers: its code, the overall status, and status and error of each part."""
    response = await api.get("/api/health", by=None)
    body = await response.json()
    return response.status, body["status"], {
        name: (part["status"], part["error"]) for name, part in body["services"].items()
    }  # fmt: skip


async def test_only_figures_of_administrators_are_read_from_the_replica(
    replica_settings: Settings, start_api: StartApi, course: Course, freeze: Callable[[], None]
) -> None:
    """They may be old; what a student reads after a rating is not, and no cache is filled from the replica."""
    api = await start_api(replica_settings)
    freeze()
    card, in_class = course.cards["r1"], f"/api/progress/class/{course.classes['Risk']}"
    assert 200 == (await api.put(f"/api/progress/cards/{card}", json={"confidenceLevel": 5})).status
    assert 1 == (await (await api.get("/api/stats")).json())["totalCardsStudied"]
    assert 1 == (await (await api.get(in_class)).json())["studiedCards"]
    for path in (
        "/api/classes",
        f"/api/classes/{course.classes['Risk']}/study",
        "/api/bookmarks",
        "/api/sessions",
    ):
        assert 200 == (await api.get(path)).status
    for path in ("/api/admin/users", "/api/admin/flashcards"):
        assert 200 == (await api.get(path, by="admin")).status
    assert set() == ran_on_replica(api)

    assert 0 == (await figures(api))["totalCardsStudied"]
    detail = await api.get(f"{USERS}/{api.people['user'].user_id}", by="admin")
    assert [0, 0] == [entry["studiedCards"] for entry in (await detail.json())["classes"]]
    for order in ("studied", "streak"):
        assert 200 == (await api.get(f"{USERS}?sort={order}", by="admin")).status
    assert ran_on_replica(api) == FIGURES

    run_sql(replica_settings.database_replica_url or "", "SELECT pg_wal_replay_resume()")

    async def is_there() -> bool:
        return bool(1 == (await figures(api))["totalCardsStudied"])

    await wait_until(is_there, "the replica has replayed the rating")


async def test_what_an_administrator_has_changed_is_never_stale(
    replica_settings: Settings, start_api: StartApi, freeze: Callable[[], None]
) -> None:
    """Every worker reads from the primary until the replica has the change for certain; so they do without Redis."""
    api, other = [await start_api(replica_settings) for _ in range(2)]
    freeze()
    user = f"/api/admin/users/{api.people['user'].user_id}"
    assert 200 == (await api.client.patch(
        user, json={"role": "admin"}, headers={"Authorization": f"Bearer {api.token_of('admin')}"}
    )).status  # fmt: skip
    assert ["admin", "admin"] == [(await figures(worker))["role"] for worker in (api, other)]
    assert set() == ran_on_replica(api) | ran_on_replica(other)
    with closing(redis.Redis.from_url(replica_settings.redis_url)) as client:
        left_ms = client.pttl("replica:changed")
        assert isinstance(left_ms, int)
        assert left_ms > 1000 * replica_settings.database_replica_max_lag_seconds
        client.flushall()
    # As if that time were over: what a frozen replica shows is what it had.
    assert "user" == (await figures(other))["role"]


async def test_without_redis_to_ask_the_primary_answers(
    replica_settings: Settings, start_api: StartApi, own_redis: EmbeddedServer
) -> None:
    """Nobody can say then whether an administrator has changed something."""
    api = await start_api(replace(replica_settings, redis_url=own_redis.url, cache_deadline_ms=50))
    own_redis.process.kill()
    assert "user" == (await figures(api))["role"]
    assert set() == ran_on_replica(api)


async def test_what_the_replica_does_not_have_yet_the_primary_has(
    replica_settings: Settings, start_api: StartApi, freeze: Callable[[], None]
) -> None:
    """A student has just registered: their figures are no 404."""
    api = await start_api(replica_settings)
    freeze()
    account = {"email": "new@example.com", "password": "a long password"}
    user_id = (await (await api.post("/api/auth/register", json=account, by=None)).json())["user"]["id"]
    assert 200 == (await api.get(f"{USERS}/{user_id}", by="admin")).status
    assert "get_user_figures" in ran_on_replica(api)


async def test_a_replica_that_goes_down_is_logged_once_and_comes_back(
    replica_settings: Settings, start_api: StartApi, standby: ReplicaServer
) -> None:
    """The primary answers; health is degraded and says why; the service stays ready."""
    api = await start_api(replica_settings)
    watch = replica_of(api)
    assert (200, "healthy") == (await health(api))[:2]
    with capture_logs() as lines:
        standby.stop()
        try:
            for _ in range(3):
                assert "user" == (await figures(api))["role"]
            await watch.once()
            code, status, parts = await health(api)
            assert (200, "degraded", ("healthy", None)) == (code, status, parts["database"])
            assert ("unhealthy", "refused") == parts["replica"]
            assert 200 == (await api.get("/readyz", by=None)).status
        finally:
            standby.start()
        watch._lost_at = 0.0  # the pause is over
        await watch.once()
        assert (200, "healthy") == (await health(api))[:2]
        assert set() == ran_on_replica(api)
        await figures(api)
        assert {"list_users_by_recent"} == ran_on_replica(api)
    events = [line["event"] for line in lines if str(line["event"]).startswith("database.")]
    assert ["database.replica_unused", "database.replica_used"] == events


async def test_a_replica_that_hangs_costs_one_read_its_deadline(
    replica_settings: Settings, start_api: StartApi, standby: ReplicaServer
) -> None:
    """That read is answered by the primary, and those after it do not wait."""
    api = await start_api(replace(replica_settings, database_query_timeout_ms=1000))
    await figures(api)
    assert standby.process is not None
    server = psutil.Process(standby.process.pid)
    processes = [server, *server.children(recursive=True)]
    for process in processes:
        process.suspend()
    try:
        assert "user" == (await figures(api))["role"]
        assert not replica_of(api).is_usable
        ran = count_on_replica(api)
        assert "user" == (await figures(api))["role"]
        assert count_on_replica(api) == ran
    finally:
        for process in processes:
            process.resume()


def count_on_replica(api: Api) -> float:
    """How many queries were run on the replica."""
    api.services.metrics.flush()
    return sum(
        sample.value
        for family in api.services.metrics.database_query_duration_seconds.collect()
        for sample in family.samples
        if sample.labels["target"] == "replica" and sample.name.endswith("_count")
    )


async def test_a_replica_too_far_behind_is_not_read_from(
    replica_url: str, database_url: str, database: Database, freeze: Callable[[], None]
) -> None:
    """It is used again when it has caught up; how far it was behind is measured meanwhile."""
    replica = Replica(
        Database(replica_url, logs_outages=False), database, max_lag_seconds=0.1, interval_seconds=0.01
    )
    await replica.start()
    try:
        assert replica.is_usable
        freeze()
        run_sql(database_url, "INSERT INTO classes (name) VALUES ('new')")
        with capture_logs() as lines:
            await wait_until(lambda: not replica.is_usable, "it is too far behind")
            with pytest.raises(DatabaseUnavailable, match="lagging"):
                await replica.check()
            assert replica.lag_seconds > 0.1
            run_sql(replica_url, "SELECT pg_wal_replay_resume()")
            await wait_until(lambda: replica.is_usable, "it has caught up")
        assert ["database.replica_unused", "database.replica_used"] == [line["event"] for line in lines]
        assert "lagging" == lines[0]["error"]
    finally:
        await replica.close()


@pytest.mark.parametrize("what", ["primary", "nothing"])
async def test_what_is_no_replica_is_not_read_from(
    settings: Settings, start_api: StartApi, database_url: str, what: str
) -> None:
    """The service starts and answers, and its health says what is wrong with the address."""
    url = f"{database_url}?application_name=x" if what == "primary" else "postgresql://h:p@127.0.0.1:1/x"
    api = await start_api(replace(settings, database_replica_url=url))
    assert "user" == (await figures(api))["role"]
    reason = {"primary": "not_a_replica", "nothing": "refused"}[what]
    assert ("unhealthy", reason) == (await health(api))[2]["replica"]
    assert set() == ran_on_replica(api)


async def test_pools_and_lag_are_measured_by_server(replica_settings: Settings, start_api: StartApi) -> None:
    """The metrics name the primary and the replica apart."""
    api = await start_api(replica_settings)
    await figures(api)

    async def shown() -> bool:
        text = await (await api.get("/api/metrics", by=None)).text()
        return all(
            line in text
            for line in (
                'mastery_database_pool_size{target="replica"} 1.0',
                'mastery_database_pool_in_use{target="primary"}',
                'mastery_database_query_duration_seconds_count{query="list_users_by_recent",target="replica"} 1.0',
                "mastery_database_replica_lag_seconds ",
                'mastery_service_up{service="replica"} 1.0',
            )
        )

    await wait_until(shown, "the metrics have it all")
