"""Queries by name, rows as dicts, and what is told about each query."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from server.stores.postgres.database import ConstraintViolated, Database, QueryFailed, ValueRefused
from server.stores.postgres.queries import load_queries
from server.telemetry.context import RequestContext, current_request
from server.telemetry.timings import Timings, current_timings
from tests.stores.postgres.databases import open_database

CURRENT_STATEMENT = "SELECT query FROM pg_stat_activity WHERE pid = pg_backend_pid()"


async def test_rows_are_dicts_of_python_values(database_url: str) -> None:
    """UUIDs, times with their zone, jsonb, bytes and arrays arrive as what they are in Python."""
    sql = """
        SELECT '7a0d6a8e-3b1c-4b7e-9f53-6d1a1e6f0c01'::uuid AS id,
               '2024-02-29 12:00:00+02'::timestamptz AS at,
               '{"a": [1, null]}'::jsonb AS document,
               '\\x00ff'::bytea AS digest,
               ARRAY['7a0d6a8e-3b1c-4b7e-9f53-6d1a1e6f0c01'::uuid] AS ids,
               NULL::bytea AS nothing
    """
    async with open_database(database_url, {"get_values": sql}) as database:
        row = await database.fetch_one("get_values")
    identity = uuid.UUID("7a0d6a8e-3b1c-4b7e-9f53-6d1a1e6f0c01")
    expected = {
        "id": identity,
        "at": datetime(2024, 2, 29, 10, tzinfo=UTC),
        "document": {"a": [1, None]},
        "digest": b"\x00\xff",
        "ids": [identity],
        "nothing": None,
    }
    assert expected == row
    assert row is not None
    assert UTC.utcoffset(None) == row["at"].utcoffset()


async def test_parameters_are_values_never_sql(database_url: str) -> None:
    """What a parameter holds comes back as it was: quotes, percent signs, dicts, lists and bytes."""
    sql = """
        SELECT %(text)s AS text, %(document)s::jsonb AS document, %(ids)s::uuid[] AS ids,
               %(digest)s::bytea AS digest, 5 %% 3 AS modulo
    """
    values = {
        "text": "'; DROP TABLE classes; -- %s %(text)s \\ \N{SNOWMAN}",
        "document": {"percent": "%"},
        "ids": [uuid.uuid4(), uuid.uuid4()],
        "digest": b"\x00'",
    }
    async with open_database(database_url, {"echo_values": sql}) as database:
        assert values | {"modulo": 2} == await database.fetch_one("echo_values", **values)


async def test_an_empty_result_is_no_row_and_a_write_tells_its_rows(database: Database) -> None:
    """fetch_all gives [], fetch_one None, and execute the number of rows that were written."""
    missing = uuid.uuid4()
    assert [] == await database.fetch_all("list_class_decks", class_id=missing)
    assert await database.fetch_one("find_user", user_id=missing) is None
    assert 0 == await database.execute("delete_bookmark", user_id=missing, flashcard_id=missing)


async def test_an_unknown_query_is_refused_at_once(database: Database) -> None:
    """A name without a file is a KeyError, before any connection is asked for."""
    with pytest.raises(KeyError, match="no_such_query"):
        await database.fetch_all("no_such_query")


@pytest.mark.parametrize("given", [{}, {"seconds": 0, "minutes": 0}])
async def test_parameters_have_to_fit_the_query(database_url: str, given: dict[str, int]) -> None:
    """A missing parameter and one too many are a TypeError that names it."""
    async with open_database(database_url) as database:
        with pytest.raises(TypeError, match=r"seconds|minutes"):
            await database.fetch_all("sleep", **given)


def test_comment_lines_are_not_sent(tmp_path: Path) -> None:
    """A percent sign or a parameter in a comment line is for the reader of the file alone."""
    (tmp_path / "get_x.sql").write_text("-- 100% of %(nothing)s.\nSELECT %(x)s\n  -- more %\n;\n")
    query = load_queries(tmp_path)["get_x"]
    assert "SELECT %(x)s" == query.sql
    assert {"x"} == query.parameters


def test_a_query_is_known_by_its_name_in_whichever_folder(tmp_path: Path) -> None:
    """A folder is for the reader: it is no part of the name, and no two folders have a query of one name."""
    for folder in ("identity", "study"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "get_x.sql").write_text("SELECT 1")
    assert {"get_x"} == load_queries(tmp_path / "study").keys()
    with pytest.raises(ValueError, match=r"^get_x\.sql is in two folders"):
        load_queries(tmp_path)


def test_a_doubled_percent_sign_begins_no_parameter(tmp_path: Path) -> None:
    """`%%(x)s` is a percent sign and text, as the driver reads it."""
    (tmp_path / "get_x.sql").write_text("SELECT '%%(x)s', %%%(y)s")
    assert {"y"} == load_queries(tmp_path)["get_x"].parameters


async def test_the_statement_carries_its_name_and_the_request(database_url: str) -> None:
    """PostgreSQL's log can be joined with ours: the statement ends in its name and the request id."""
    async with open_database(database_url, {"get_statement": CURRENT_STATEMENT}) as database:
        current_request.set(RequestContext("req_0123456789abcdef0123", "trace"))
        row = await database.fetch_one("get_statement")
    assert row is not None
    assert (
        f"{CURRENT_STATEMENT} /* query=get_statement request_id=req_0123456789abcdef0123 */" == row["query"]
    )


async def test_a_request_id_can_not_end_its_comment(database_url: str) -> None:
    """Whatever a request id holds, it adds no SQL, no parameter and no line to the statement."""
    hostile = "*/ ; DROP TABLE classes; --\n%(x)s %s /*" + "a" * 400
    async with open_database(database_url, {"get_statement": CURRENT_STATEMENT}) as database:
        current_request.set(RequestContext(hostile, "trace"))
        row = await database.fetch_one("get_statement")
    assert row is not None
    comment = row["query"].removeprefix(CURRENT_STATEMENT)
    assert comment.startswith(" /* query=get_statement request_id=/DROPTABLEclasses--xss/aaa")
    assert 1 == comment.count("*/")
    assert "%" not in comment
    assert len(comment) < 300


async def test_every_query_is_measured(database_url: str) -> None:
    """A query counts as time of the database in its request, and is told by name, well or failed."""
    seen: list[tuple[str, float]] = []
    timings = Timings()
    current_timings.set(timings)
    async with open_database(
        database_url,
        {"divide": "SELECT 1 / %(by)s AS quotient"},
        on_query=lambda name, seconds: seen.append((name, seconds)),
    ) as database:
        seen.clear()
        await database.fetch_one("divide", by=1)
        with pytest.raises(ValueRefused):
            await database.fetch_one("divide", by=0)
        async with database.transaction() as transaction:
            await transaction.fetch_one("divide", by=1)
    assert ["divide", "divide", "divide"] == [name for name, _ in seen]
    assert all(seconds > 0 for _, seconds in seen)
    assert (
        4 == timings.counts["db"] - 1
    )  # three queries, one with its BEGIN, and COMMIT; and the ping of the start
    assert timings.seconds["db"] > 0


async def test_a_slow_query_is_warned_of_without_its_parameters(database_url: str) -> None:
    """The warning has the query's name and its milliseconds, and nothing that a user sent."""
    slow = {"find_secret": "SELECT pg_sleep(0.03), %(secret)s AS secret"}
    async with open_database(database_url, slow, slow_query_ms=20) as database:
        with capture_logs() as logs:
            await database.fetch_all("find_secret", secret="hunter2")
    (warning,) = [entry for entry in logs if entry["event"] == "database.slow_query"]
    assert {"event", "log_level", "query", "duration_ms"} == warning.keys()
    assert "find_secret" == warning["query"]
    assert warning["duration_ms"] >= 30


async def test_what_the_server_remarks_is_logged(database_url: str) -> None:
    """A notice and a warning are events, each once, also where the statement fails; an answer alone is none."""
    remarks = "DO $$ BEGIN RAISE NOTICE 'by the way: 7 rows'; RAISE WARNING 'low on space'; {} END $$"
    queries = {"remark": remarks.format(""), "fail": remarks.format("RAISE EXCEPTION 'no';")}
    async with open_database(database_url, queries, pool_size=1) as database:
        with capture_logs() as logs:
            await database.execute("remark")
            await database.fetch_all("ping")
            with pytest.raises(QueryFailed):
                await database.execute("fail")
    notices = [entry for entry in logs if entry["event"] == "database.notice"]
    told = [("info", "NOTICE", "by the way: 7 rows"), ("warning", "WARNING", "low on space")]
    expected = [(query, *each) for query in ("remark", "fail") for each in told]
    assert expected == [
        (each["query"], each["log_level"], each["severity"], each["detail"]) for each in notices
    ]


async def test_a_violated_constraint_is_told_by_its_name(database_url: str) -> None:
    """The domain maps the name to an error of its own; no value of the row is told."""
    add = {"add_user": "INSERT INTO users (email) VALUES (%(email)s)"}
    async with open_database(database_url, add) as database:
        await database.execute("add_user", email="ada@example.org")
        with pytest.raises(ConstraintViolated) as caught:
            await database.execute("add_user", email="ada@example.org")
    assert "users_email_unique" == caught.value.constraint_name
    assert "23505" == caught.value.sqlstate
    assert "ada" not in str(caught.value) + caught.value.detail
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("text", ["nul \0 byte", "lone surrogate \ud800"])
async def test_text_that_can_not_be_stored_is_invalid_input(database_url: str, text: str) -> None:
    """NUL and lone surrogates are what JSON can say and PostgreSQL can't hold: the client's fault."""
    async with open_database(database_url) as database:
        with pytest.raises(ValueRefused) as caught:
            await database.execute("add_class", name=text)
        assert 400 == caught.value.status
        assert 1 == await database.execute("add_class", name="fine")


@pytest.mark.parametrize(
    ("sql", "value"),
    [("SELECT %(x)s::uuid", "no-uuid"), ("SELECT %(x)s::jsonb", {"a": "\0"}), ("SELECT %(x)s::int2", 99999)],
)
async def test_a_value_that_its_type_refuses_is_invalid_input(
    database_url: str, sql: str, value: object
) -> None:
    """A value that the server can't read as its type is refused without being quoted."""
    async with open_database(database_url, {"get_x": sql}) as database:
        with pytest.raises(ValueRefused) as caught:
            await database.fetch_one("get_x", x=value)
    assert str(value) not in str(caught.value)


async def test_a_broken_query_is_told_by_name_without_data(database_url: str) -> None:
    """A mistake in the SQL says what is wrong with it; a mistake with data says no more than its code."""
    broken = {
        "get_nothing": "SELECT nothing FRO classes",
        "choose": "SELECT (SELECT generate_series(1, %(last)s))",
    }
    async with open_database(database_url, broken) as database:
        with pytest.raises(QueryFailed, match=r'get_nothing: syntax error at or near "classes" \(42601\)'):
            await database.fetch_all("get_nothing")
        with pytest.raises(QueryFailed, match=r"choose: CardinalityViolation \(21000\)"):
            await database.fetch_all("choose", last=41)


def test_a_url_of_another_kind_is_refused_without_being_quoted() -> None:
    """A wrong DATABASE_URL ends the start with a message that holds no password."""
    with pytest.raises(ValueError, match="postgresql://user:password@host:port/name") as caught:
        Database("mysql://root:hunter2@localhost/x")
    assert "hunter2" not in str(caught.value)


async def test_both_schemes_of_the_url_are_accepted(database_url: str) -> None:
    """`postgres://`, as platforms say it, is the same as `postgresql://`."""
    async with open_database(database_url.replace("postgresql://", "postgres://")) as database:
        assert {"answer": 1} == await database.fetch_one("ping")
