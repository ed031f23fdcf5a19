"""Bodies and queries made to cost: refused by their size, in few steps and with a short answer."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings, target
from hypothesis import strategies as st
from marshmallow import Schema, fields, validate

from server.api.openapi.operations import OPERATIONS
from server.api.requests import MAX_BODY_BYTES, MAX_VALUES, parse_json
from server.api.requests import validate as validate_input
from server.api.routes import ROUTES, Route
from server.errors import InvalidInput
from tests.api.conftest import Api, Course
from tests.support.properties import examples

# Calls of Python and C functions: for an object, and for each element that a list may have.
STEPS_OF_AN_OBJECT, STEPS_OF_AN_ELEMENT = 1000, 350
# Those of a whole request and of the client that sends it.
STEPS_OF_A_REQUEST = 20_000
MAX_ANSWER_BYTES = 16_000
MAX_ERRORS = 20
JSON = {"Content-Type": "application/json"}


def schema_of(route: Route) -> Schema | None:
    """The schema of a route's JSON body, if it takes one."""
    for content in OPERATIONS[route.handler].bodies:
        if isinstance(content.schema, Schema):
            return content.schema
    return None


ROUTES_WITH_BODY = [route for route in ROUTES if schema_of(route) is not None]


@contextmanager
def counted_steps() -> Iterator[list[int]]:
    """Counts the calls inside the block; `[0]` holds their number."""
    steps = [0]

    def count(_frame: object, event: str, _argument: object) -> None:
        if event in {"call", "c_call"}:
            steps[0] += 1

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        yield steps
    finally:
        sys.setprofile(before)


def steps_of(schema: Schema, body: bytes) -> int:
    """What it takes to read a body and to judge it."""
    with counted_steps() as steps, suppress(InvalidInput):
        validate_input(schema, parse_json(body))
    return steps[0]


def filled(piece: str, size: int, opening: str, closing: str) -> bytes:
    """As many pieces between two brackets as make up about `size` bytes, each with its number in the place of %d."""
    count = max(1, size // (len(piece.replace("%d", "123456")) + 1))
    pieces = ",".join(piece.replace("%d", str(number)) for number in range(count))
    return (opening + pieces + closing).encode()[:MAX_BODY_BYTES]


def valid_object(schema: Schema) -> dict[str, Any]:
    """An object with every field of a schema, each of which is wrong."""
    return {field.data_key or name: {} for name, field in schema.load_fields.items()}


def lists_of(schema: Schema) -> Iterator[tuple[str, Schema | None, int]]:
    """The lists in a schema: their names, their elements' schemas, and how long they may be."""
    for name, field in schema.load_fields.items():
        if isinstance(field, fields.List):
            (length,) = [kind for kind in field.validators if isinstance(kind, validate.Length)]
            inner = field.inner.schema if isinstance(field.inner, fields.Nested) else None
            yield field.data_key or name, inner, length.max or 0


def hostile_bodies(schema: Schema, size: int, depth: int, letter: str) -> Iterator[bytes]:
    """Bodies of about `size` bytes that a validator may stumble over, made for a schema."""
    for value in ("0", "{}", "[]", '""', '{"a":{}}'):
        yield filled(f'"{letter}%d":{value}', size, "{", "}")
        yield filled(value, size, "[", "]")
        for name, _, _ in lists_of(schema):
            yield filled(value, size, f'{{"{name}":[', "]}")
    yield b"[" * min(size, MAX_BODY_BYTES)
    yield b'{"a":' * depth + b"0" + b"}" * depth
    yield json.dumps({letter * (size // 2): 0}).encode()
    for name in valid_object(schema):
        text = json.dumps(letter * (size // 2))
        yield f'{{"{name}":{text}}}'.encode()
        yield f'{{"{name}":{"9" * size}}}'.encode()
        yield f'{{"{name}":{"[" * depth}{"]" * depth}}}'.encode()
    for name, inner, longest in lists_of(schema):
        if inner is not None:
            wrong = valid_object(inner)
            few = {f"{letter}{number}": 0 for number in range(len(wrong))}
            many = {f"{letter}{number}": 0 for number in range(size // longest // 12)}
            for element in (wrong, few, many):
                yield json.dumps({name: [element] * longest}).encode()[:MAX_BODY_BYTES]


@pytest.mark.parametrize("route", ROUTES_WITH_BODY, ids=lambda route: f"{route.method} {route.path}")
def test_share_06_no_body_costs_many_steps(route: Route) -> None:
    """The costliest of the hostile bodies of each route takes a bounded number of steps, whatever its size."""
    schema = schema_of(route)
    assert schema is not None

    @given(
        size=st.sampled_from((2_000, 60_000, 300_000, MAX_BODY_BYTES)),
        depth=st.integers(1, 100_000),
        letter=st.sampled_from(("a", "\N{GRINNING FACE}", "\u0001", "\u0301", "@", ".")),
    )
    @settings(max_examples=examples(2))
    def costliest(size: int, depth: int, letter: str) -> None:
        steps = max(steps_of(schema, body) for body in hostile_bodies(schema, size, depth, letter))
        target(float(steps))
        elements = sum(longest for _, _, longest in lists_of(schema))
        assert steps <= STEPS_OF_AN_OBJECT + STEPS_OF_AN_ELEMENT * elements

    costliest()


def test_share_06_every_list_of_a_body_has_a_length() -> None:
    """A list without a length that is accepted could not be judged before its elements."""
    schemas = [schema for route in ROUTES_WITH_BODY if (schema := schema_of(route)) is not None]
    assert schemas
    for schema in schemas:
        for name, inner, longest in lists_of(schema):
            assert 0 < longest <= 1000, (schema, name)
            assert inner is None or not list(lists_of(inner)), "lists in lists multiply"


async def check_refusal(api: Api, method: str, path: str, **options: Any) -> dict[str, Any]:
    """Send what is refused: the problem, which is short."""
    response = await api.request(method, path, **options)
    body = await response.read()
    assert 400 <= response.status < 500, (method, path, response.status)
    assert len(body) <= MAX_ANSWER_BYTES, (method, path, len(body))
    problem: dict[str, Any] = json.loads(body)
    assert len(problem.get("errors", [])) <= MAX_ERRORS
    return problem


async def test_share_06_every_route_answers_hostile_bodies_shortly(api: Api, course: Course) -> None:
    """On each route the answer to 1 MB of unknown fields, to long lists and to long names is below 16 kB."""
    for route in ROUTES_WITH_BODY:
        path = route.path
        for place, value in (
            ("classId", course.classes["Risk"]),
            ("deckId", course.decks["Analysis"]),
            ("flashcardId", course.cards["r1"]),
        ):
            path = path.replace(f"{{{place}}}", str(value))
        schema = schema_of(route)
        assert schema is not None
        for body in (
            filled('"%d":0', MAX_BODY_BYTES - 100, "{", "}"),
            filled('"%d":0', 80_000, "{", "}"),
            *(
                filled("0", size, f'{{"{name}":[', "]}")
                for name, _, _ in lists_of(schema)
                for size in (MAX_BODY_BYTES - 100, 30_000)
            ),
            json.dumps({"\u0001" * 100_000: 0, "x" * 400_000: 0}).encode(),
            json.dumps({"\u0001" * 2000 + str(number): 0 for number in range(60)}).encode(),
            b"[" * 1_000_000,
        ):
            by = None if route.audience == "public" else route.audience
            await check_refusal(api, route.method, path, by=by, data=body, headers=JSON)


async def test_share_06_an_answer_says_how_many_more_errors_there_are(api: Api) -> None:
    """Of 500 unknown fields 20 are named and 480 counted; of 100 ratings, each wrong twice, the same holds."""
    unknown = await check_refusal(
        api,
        "POST",
        "/api/auth/logout",
        by=None,
        json={"refreshToken": "x", **{f"f{n}": 0 for n in range(500)}},
    )
    assert [f"f{number}" for number in range(20)] == [error["field"] for error in unknown["errors"]]
    assert 480 == unknown["moreErrors"]
    assert unknown["detail"].endswith(" 480 more errors are not listed.")

    ratings = await check_refusal(api, "POST", "/api/progress/cards", json={"ratings": [{}] * 100})
    assert {"ratings.0.flashcardId", "ratings.0.confidenceLevel"} == {
        error["field"] for error in ratings["errors"][:2]
    }
    assert (20, 180) == (len(ratings["errors"]), ratings["moreErrors"])

    few = await check_refusal(api, "POST", "/api/progress/cards", json={"ratings": [{}]})
    assert "moreErrors" not in few


async def test_share_06_a_list_that_is_too_long_is_one_error(api: Api) -> None:
    """The length is judged before the elements, which may be anything."""
    for path, name in (("/api/progress/cards", "ratings"), ("/api/sessions", "deckIds")):
        problem = await check_refusal(api, "POST", path, json={name: [0] * 9000})
        assert [name] == [error["field"] for error in problem["errors"]]


def test_a_body_may_hold_as_many_values_as_are_said() -> None:
    """A bracket and a comma count as a value each: 20,000 of them are parsed, one more is refused unparsed."""
    assert MAX_VALUES == len(parse_json(b"[" + b"0," * (MAX_VALUES - 1) + b"0]"))
    with pytest.raises(InvalidInput) as caught:
        parse_json(b"[" + b"0," * MAX_VALUES + b"0]")
    assert {"body": "It holds more than 20000 values."} == caught.value.errors


async def test_share_06_a_card_may_hold_as_many_commas_as_its_texts(api: Api, course: Course) -> None:
    """Values are counted by their commas and brackets; texts of the full length may consist of nothing else."""
    card = {"deckId": str(course.decks["Law"]), "question": "[" * 5000, "answer": "{" * 5000}
    response = await api.post(
        "/api/admin/flashcards",
        by="admin",
        json={**card, "explanation": "," * 2000, "category": "," * 2000},
    )
    assert 201 == response.status


async def test_share_06_queries_are_judged_by_their_size(api: Api, course: Course) -> None:
    """Thousands of parameters, the same one thousands of times, and long names and values: 400, in few steps."""
    study = f"/api/classes/{course.classes['Risk']}/study"
    for path in ("/api/classes", "/api/stats", study, "/api/admin/flashcards", "/api/admin/analytics/users"):
        for query in (
            "&".join("a=" for _ in range(2500)),
            "&".join("limit=1" for _ in range(60)),
            "&".join(f"{number:x}=" for number in range(1200)),
            "&".join(f"{number:x}=" for number in range(90)),
            "x" * 7000,
            f"{'%01' * 2000}=1",
            f"limit={'9' * 7000}",
        ):
            with counted_steps() as steps:
                await check_refusal(api, "GET", f"{path}?{query}", by="admin")
            assert steps[0] < STEPS_OF_A_REQUEST, (path, query[:20], steps)


async def test_share_06_a_long_path_leaves_nothing_in_memory(api: Api) -> None:
    """Ids of thousands of characters are refused without being remembered."""
    from server.api.requests import _uuid_of  # noqa: PLC0415 - its memory is what is looked at

    before = _uuid_of.cache_info().currsize
    for number in range(20):
        await check_refusal(api, "GET", f"/api/classes/{number}{'x' * 8000}")
    assert before == _uuid_of.cache_info().currsize
    assert 404 == (await api.get(f"/api/classes/{uuid4()}")).status
