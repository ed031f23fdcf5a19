"""Values at the edges of what JSON, Python and PostgreSQL take for the same thing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Self

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import ValidationError

from server.api import schemas
from server.api.requests import parse_json
from server.api.schemas import PastMoment, Text
from server.domain.catalog.deck_files import read_cards
from server.domain.catalog.deck_problems import DeckFileError
from tests.api.conftest import Api, Course, run_statement

BOM = b"\xef\xbb\xbf"
# What browsers and libraries send where they do not know better.
NO_ZONES = ["", "undefined", "null", "Etc/Unknown", "europe/berlin", "localtime", "Factory", "posixrules",
            "Mars/Olympus", "../etc/passwd", "UTC\t+1", "é", "+01:00", "GMT+1", "x" * 300]  # fmt: skip


async def rated_at(api: Api, course: Course, moment: str) -> tuple[int, Any]:
    """Record a rating of a moment: the status, and when the card was last seen."""
    rating = {"flashcardId": str(course.cards["r1"]), "confidenceLevel": 3, "ratedAt": moment}
    response = await api.post("/api/progress/cards", json={"ratings": [rating]})
    body = await response.json()
    return response.status, body["progress"][0]["lastSeenDate"] if response.status == 200 else body


@pytest.mark.parametrize("offset", ["+16:00", "-16:00", "+23:59", "-23:59", "+15:59:59.5", "+05:30:15"])
async def test_share_14_any_offset_is_converted_to_utc(api: Api, course: Course, offset: str) -> None:
    """Offsets that PostgreSQL does not know are moments like all others."""
    status, seen = await rated_at(api, course, f"2026-01-02T03:04:05.678{offset}")
    expected = datetime.fromisoformat(f"2026-01-02T03:04:05.678{offset}").astimezone(UTC)
    assert (200, expected.isoformat(timespec="milliseconds").replace("+00:00", "Z")) == (status, seen)


@given(
    st.datetimes(min_value=datetime(1, 1, 1), max_value=datetime(9999, 12, 31)),  # noqa: DTZ001 - the zone is added
    st.integers(-86_399, 86_399),
)
def test_share_14_a_moment_is_refused_or_in_utc(moment: datetime, offset_seconds: int) -> None:
    """Whatever year and offset: an error of validation, or a time in UTC between the year 2000 and now."""
    sign = "-" if offset_seconds < 0 else "+"
    try:
        taken = PastMoment().deserialize(
            f"{moment.isoformat()}{sign}{timedelta(seconds=abs(offset_seconds))!s:0>8}"
        )
    except ValidationError:
        return
    assert UTC is taken.tzinfo
    assert datetime(2000, 1, 1, tzinfo=UTC) <= taken <= datetime.now(UTC)


def test_a_clock_may_be_five_minutes_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """A moment of the next five minutes becomes now: nothing is stored in the future. A later one is refused."""
    now = datetime(2026, 3, 2, 11, 30, tzinfo=UTC)

    class FrozenTime(datetime):
        """A time of day that stands still."""

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            """Always the same moment."""
            del tz
            return now  # type: ignore[return-value]

    monkeypatch.setattr(schemas, "datetime", FrozenTime)

    def taken(ahead: timedelta) -> datetime:
        moment: datetime = PastMoment().deserialize((now + ahead).isoformat())
        return moment

    assert now - timedelta(seconds=1) == taken(-timedelta(seconds=1))
    assert [now] * 3 == [taken(timedelta(minutes=minutes)) for minutes in (0, 2, 5)]
    with pytest.raises(ValidationError, match="between the year 2000 and now"):
        taken(timedelta(minutes=5, microseconds=1))


@pytest.mark.parametrize("zone", NO_ZONES)
async def test_share_14_a_time_zone_that_is_none_loses_no_rating(api: Api, course: Course, zone: str) -> None:
    """The rating is recorded by the profile's zone, and the answer says by which."""
    await api.request("PATCH", "/api/profile", json={"timeZone": "Pacific/Kiritimati"})
    card = course.cards["r1"]
    one = await api.put(
        f"/api/progress/cards/{card}", json={"confidenceLevel": 3}, headers={"X-Time-Zone": zone}
    )
    rating = {"flashcardId": str(card), "confidenceLevel": 3, "ratedAt": "2026-03-02T11:30:00Z"}
    many = await api.post("/api/progress/cards", json={"ratings": [rating]}, headers={"X-Time-Zone": zone})
    assert [200, 200] == [one.status, many.status]
    assert ["Pacific/Kiritimati"] * 2 == [answer.headers.get("X-Time-Zone-Used") for answer in (one, many)]
    days = run_statement(api.services.settings.database_url, "SELECT day::text FROM user_active_days")
    assert ("2026-03-03",) in days, "11:30 in UTC is the next day there"


async def test_share_14_without_a_zone_in_the_profile_it_is_utc(api: Api, course: Course) -> None:
    """A profile that names nothing is in UTC; one that names what this machine does not have is taken for UTC."""
    path = f"/api/progress/cards/{course.cards['r1']}"
    for stored in ("UTC", "Mars/Olympus", "localtime"):
        run_statement(api.services.settings.database_url, "UPDATE users SET time_zone = %s", stored)
        answer = await api.put(path, json={"confidenceLevel": 3}, headers={"X-Time-Zone": "undefined"})
        assert (200, "UTC") == (answer.status, answer.headers.get("X-Time-Zone-Used"))
        assert 200 == (await api.put(path, json={"confidenceLevel": 3})).status


async def test_share_14_a_zone_that_is_one_needs_no_word(api: Api, course: Course) -> None:
    """The header is for what was replaced: not sent for a zone that counted, nor without one."""
    for headers in ({"X-Time-Zone": "Asia/Tokyo"}, {}):
        path = f"/api/progress/cards/{course.cards['r1']}"
        answer = await api.put(path, json={"confidenceLevel": 3}, headers=headers)
        assert (200, False) == (answer.status, "X-Time-Zone-Used" in answer.headers)


@pytest.mark.parametrize("zone", NO_ZONES)
async def test_share_14_a_profile_takes_zones_only(api: Api, zone: str) -> None:
    """There somebody can correct it: 422 with the field."""
    response = await api.request("PATCH", "/api/profile", json={"timeZone": zone})
    problem = await response.json()
    assert (422, "unknown_time_zone") == (response.status, problem["code"])
    assert ["timeZone"] == [error["field"] for error in problem["errors"]]


async def test_share_14_what_only_the_database_refuses_is_the_clients_mistake(
    api: Api,
) -> None:
    """A rule of the schema that validation has let through is 400 with its field, and a hole is logged."""
    run_statement(
        api.services.settings.database_url,
        "ALTER TABLE classes DROP CONSTRAINT classes_name_length, "
        "ADD CONSTRAINT classes_name_length CHECK (length(name) < 5) NOT VALID",
    )
    with structlog.testing.capture_logs() as events:
        response = await api.post("/api/admin/classes", by="admin", json={"name": "Long enough"})
    problem = await response.json()
    assert (400, ["name"]) == (response.status, [error["field"] for error in problem["errors"]])
    (hole,) = [event for event in events if event["event"] == "validation.hole"]
    assert ("classes_name_length", "name", "23514") == (hole["constraint"], hole["column"], hole["sqlstate"])


@pytest.mark.parametrize(
    "expression",
    ["'x'::integer", "99999999999::bigint::integer", "'2026-02-30'::date", "chr(0)", "1 / 0", "substring('a', 1, -1)",
     "'2026-01-01T00:00:00+16:00'::timestamptz",
     "now() AT TIME ZONE 'Mars/Olympus'", "'[1,'::jsonb", "sqrt(-1::float8)"],
)  # fmt: skip
async def test_share_14_every_value_that_postgresql_refuses_is_400(
    api: Api, monkeypatch: pytest.MonkeyPatch, expression: str
) -> None:
    """Classes 22 (data exceptions) and 54 (limits, as of an index) are the client's 400, logged with their query."""
    queries = api.services.database._runner.queries
    broken = queries["create_class"]
    sql = f"WITH refused AS MATERIALIZED (SELECT ({expression})::text AS value) {broken.sql}".replace(
        "VALUES (%(name)s", "VALUES (coalesce((SELECT value FROM refused), %(name)s)"
    )
    assert "refused)" in sql, "the query looks as expected"
    monkeypatch.setattr(
        api.services.database._runner,
        "queries",
        {**queries, "create_class": type(broken)(broken.name, sql, broken.parameters)},
    )
    with structlog.testing.capture_logs() as events:
        response = await api.post("/api/admin/classes", by="admin", json={"name": "A class"})
    assert 400 == response.status, await response.text()
    (hole,) = [event for event in events if event["event"] == "validation.hole"]
    assert "create_class" == hole["query"]
    assert hole["sqlstate"][:2] in {"22", "54"}


async def test_share_15_whole_numbers_may_be_written_as_floats(api: Api, course: Course) -> None:
    """4.0 is 4, as JavaScript has it; 4.5, a text and true are not."""
    path = f"/api/progress/cards/{course.cards['r1']}"
    for value, status in ((4.0, 200), (4, 200), (4.5, 400), ("4", 400), (True, 400), (1e300, 400)):
        assert status == (await api.put(path, json={"confidenceLevel": value})).status, value
    assert 4 == (await (await api.get(path)).json())["confidenceLevel"]
    made = await api.post("/api/admin/classes", by="admin", json={"name": "A class", "order": 7.0})
    assert (201, 7) == (made.status, (await made.json())["order"])


async def test_share_15_a_byte_order_mark_before_json_is_skipped(api: Api, course: Course) -> None:
    """What some editors and .NET write before UTF-8 is no part of the body."""
    path = f"/api/progress/cards/{course.cards['r1']}"
    headers = {"Content-Type": "application/json"}
    response = await api.put(path, data=BOM + b'{"confidenceLevel": 4}', headers=headers)
    assert 200 == response.status
    assert {} == parse_json(BOM + b"{}")


async def test_share_15_the_charset_is_part_of_the_idempotency_fingerprint(api: Api, course: Course) -> None:
    """The same bytes in another charset are another file, and get no replay; UTF-8 is the same said or not."""
    path = f"/api/admin/decks/{course.decks['Law']}/import"

    async def load(charset: str) -> int:
        headers = {"Content-Type": f"text/csv{charset}", "Idempotency-Key": "one file"}
        response = await api.post(path, by="admin", data="Was?,Mühe\n".encode(), headers=headers)
        return response.status

    assert [200, 200, 200, 422, 422] == [
        await load(charset)
        for charset in (
            "",
            ";charset=utf-8",
            "; charset=UTF-8",
            ";charset=iso-8859-1",
            ";charset=windows-1252",
        )
    ]


@given(st.text(st.characters(), min_size=1, max_size=5))
def test_share_15_a_form_takes_the_characters_that_an_import_takes(text: str) -> None:
    """Text of a form and text of a JSON deck are refused for the same characters, and read as the same."""
    import orjson  # noqa: PLC0415

    try:
        taken = Text().deserialize(f"a{text}b")
    except ValidationError:
        taken = None
    try:
        content = orjson.dumps([{"question": f"a{text}b", "answer": "A"}])
    except TypeError:  # a lone surrogate
        assert taken is None
        return
    try:
        (card,) = read_cards(content, "json")[1]
        imported = card.question
    except DeckFileError:
        imported = None
    assert imported == taken


@pytest.mark.parametrize("character", ["\x00", "\x07", "\x1b", "\x7f", "\x85", "\x9f", "\r"])
async def test_share_15_every_text_of_an_administrator_refuses_control_characters(
    api: Api, course: Course, character: str
) -> None:
    """In the middle of any text of a class, a deck or a card: 400 with its field."""
    text = f"a{character}b"
    deck, class_ = str(course.decks["Law"]), str(course.classes["Risk"])
    bodies: list[tuple[str, dict[str, Any], list[str]]] = [
        ("classes", {"name": "N"}, ["name", "description", "icon", "color"]),
        ("decks", {"classId": class_, "name": "N"}, ["name", "description"]),
        (
            "flashcards",
            {"deckId": deck, "question": "Q", "answer": "A"},
            ["question", "answer", "explanation", "category"],
        ),
    ]
    for kind, body, names in bodies:
        for name in names:
            response = await api.post(f"/api/admin/{kind}", by="admin", json={**body, name: text})
            problem = await response.json()
            assert (400, [name]) == (response.status, [error["field"] for error in problem.get("errors", [])])


async def test_share_15_windows_line_breaks_are_line_breaks(api: Api, course: Course) -> None:
    """CRLF of a form becomes LF, as in an import."""
    body = {"deckId": str(course.decks["Law"]), "question": "a\r\nb", "answer": "c\td\n"}
    made = await (await api.post("/api/admin/flashcards", by="admin", json=body)).json()
    assert ("a\nb", "c\td") == (made["question"], made["answer"])
