"""What clients send by mistake or on purpose: refused with the field named, never a 500."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from io import BytesIO
from typing import Any
from uuid import uuid4

import structlog

from tests.api.conftest import Api, Course
from tests.support.waiting import wait_until

ID = str(uuid4())
MEBIBYTE = 1 << 20

# For each body: the route, a body that is valid in its form, and by field the values that are not.
NO_TEXT: list[Any] = [None, 1, 1.5, True, [], {}]
NO_UUID: list[Any] = [
    "",
    "x",
    ID[:-1],
    ID + "0",
    "{" + ID + "}",
    "urn:uuid:" + ID,
    ID.replace("-", ""),
    7,
    True,
    [],
]
NO_RATING: list[Any] = [None, 0, 6, -1, 6.0, 3.5, "3", "", True, [], {}, 10**18, 10**30]
NO_DURATION: list[Any] = [-1, 1.5, -2.0, 1e300, "1", True, [], 24 * 3600 * 1000 + 1, 2**31, 2**63, 10**30]
NO_TIME: list[Any] = [
    "", "now", "2026-01-01", "2026-01-01T00:00:00", "2999-01-01T00:00:00Z", "1999-12-31T23:59:59Z",
    "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", "2026-02-30T00:00:00Z", 0, 1767225600, True, [],
]  # fmt: skip
PASSWORD, EMAIL = "long enough to be one", "ada@example.com"
BODIES: list[tuple[str, dict[str, Any], dict[str, list[Any]]]] = [
    (
        "POST /api/auth/register",
        {"email": EMAIL, "password": PASSWORD, "name": "Ada"},
        {
            "email": [*NO_TEXT, "", "ada", "ada@", "@example.com", "a b@example.com", "a\0@example.com",
                      f"{'a' * 250}@example.com", "ada\n@example.com", "ada@example.com\n"],
            "password": [*NO_TEXT, "", "x" * 11, "x" * 129],
            "name": [1, True, [], {}, "", "   ", "x" * 256, "a\0b"],
        },
    ),
    (
        "POST /api/auth/login",
        {"email": EMAIL, "password": PASSWORD},
        {"email": [*NO_TEXT, "", "a\0b", "x" * 255], "password": [*NO_TEXT, "", "x" * 129]},
    ),
    ("POST /api/auth/refresh", {"refreshToken": "x"}, {"refreshToken": [*NO_TEXT, "", "x" * 513]}),
    ("POST /api/auth/logout", {"refreshToken": "x"}, {"refreshToken": [*NO_TEXT, "", "x" * 513]}),
    (
        f"PUT /api/progress/cards/{ID}",
        {"confidenceLevel": 3},
        {"confidenceLevel": NO_RATING, "sessionId": NO_UUID, "responseTime": NO_DURATION},
    ),
    (
        "POST /api/progress/cards",
        {"ratings": [{"flashcardId": ID, "confidenceLevel": 3}]},
        {
            "ratings": [None, 1, "x", {}, [], [{"flashcardId": ID, "confidenceLevel": 3}] * 101],
            "ratings.0": [None, 1, "x", [], True],
            "ratings.0.flashcardId": [None, *NO_UUID],
            "ratings.0.confidenceLevel": NO_RATING,
            "ratings.0.sessionId": NO_UUID,
            "ratings.0.responseTime": NO_DURATION,
            "ratings.0.ratedAt": NO_TIME,
            "ratings.0.unknown": [1],
        },
    ),
    (
        "POST /api/sessions",
        {"deckIds": [ID]},
        {"deckIds": [None, 1, "x", {}, [], [ID] * 51, ID], "deckIds.0": [None, *NO_UUID]},
    ),
]  # fmt: skip
ROUTES_WITH_BODY = [route for route, _, _ in BODIES]


def put(body: dict[str, Any], field: str, value: Any) -> dict[str, Any]:
    """A copy of a body with another value at a dotted path."""
    copy: Any = json.loads(json.dumps(body))
    *way, last = field.split(".")
    place = copy
    for step in way:
        place = place[int(step) if isinstance(place, list) else step]
    place[int(last) if isinstance(place, list) else last] = value
    return copy  # type: ignore[no-any-return]


async def send(api: Api, route: str, **options: Any) -> tuple[int, list[str]]:
    """The status and the fields that are named in the answer."""
    method, _, path = route.partition(" ")
    response = await api.request(method, path, **options)
    problem = await response.json(content_type=None) if response.status >= 400 else {}
    if response.status >= 400:
        assert "application/problem+json" == response.content_type, (route, options)
        assert problem["status"] == response.status, (route, options)
        assert problem["requestId"] == response.headers["X-Request-ID"], (route, options)
        assert "no-store" == response.headers["Cache-Control"], (route, options)
    return response.status, [error["field"] for error in problem.get("errors", [])]


async def test_every_wrong_value_is_named(api: Api) -> None:
    """Each field of each body refuses what it is not, and says which field it was."""
    wrong = {}
    for route, body, fields in BODIES:
        for field, values in fields.items():
            for value in values:
                status, named = await send(api, route, json=put(body, field, value))
                if (status, named) != (400, [field]):
                    wrong[f"{route} {field}={str(value)[:60]!r}"] = (status, named)
    assert {} == wrong


async def test_missing_and_unknown_fields_are_named(api: Api) -> None:
    """A required field that is not there and a field that nobody knows are both errors."""
    wrong = {}
    for route, body, _ in BODIES:
        for field in body:
            if field == "name":
                continue
            status, named = await send(api, route, json={key: body[key] for key in body if key != field})
            if (status, named) != (400, [field]):
                wrong[f"{route} without {field}"] = (status, named)
        for unknown in ("unknown", "Password", "__proto__", "a.b", "", "x" * 300):
            status, named = await send(api, route, json={**body, unknown: 1})
            if (status, len(named)) != (400, 1):
                wrong[f"{route} with {unknown[:20]!r}"] = (status, named)
    assert {} == wrong


MALFORMED: dict[str, bytes] = {
    "empty": b"",
    "cut": b'{"email": "a',
    "single quotes": b"{'a': 1}",
    "NaN": b'{"confidenceLevel": NaN}',
    "comment": b"{} // x",
    "two values": b"{}{}",
    "two byte order marks": b"\xef\xbb\xbf\xef\xbb\xbf{}",
    "not UTF-8": b'{"email": "\xff"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "lone surrogate": b'{"email": "\\ud800@example.com"}',
    "reversed surrogates": b'{"email": "\\udc00\\ud800"}',
    "raw control character": b'{"email": "a\nb"}',
    "deep lists": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "huge number": b'{"confidenceLevel": ' + b"9" * 5000 + b"x}",
    "list": b"[]",
    "text": b'"text"',
    "number": b"7",
    "null": b"null",
    "true": b"true",
}


async def test_a_body_that_is_no_json_object_is_refused(api: Api) -> None:
    """Whatever is not an object of JSON is 400 and named as the body."""
    wrong = {}
    for route in ROUTES_WITH_BODY:
        for name, body in MALFORMED.items():
            status, named = await send(api, route, data=body, headers={"Content-Type": "application/json"})
            if (status, named) != (400, ["body"]):
                wrong[f"{route}: {name}"] = (status, named)
    assert {} == wrong


async def test_a_huge_number_is_a_wrong_value(api: Api) -> None:
    """Five thousand digits are refused like any number out of bounds."""
    body = b'{"confidenceLevel": ' + b"9" * 5000 + b"}"
    status, _ = await send(
        api, f"PUT /api/progress/cards/{ID}", data=body, headers={"Content-Type": "application/json"}
    )
    assert 400 == status


async def test_a_body_that_does_not_claim_to_be_json_is_refused(api: Api) -> None:
    """The content type decides, with its parameters and in any case."""
    wrong = {}
    types: dict[str | None, int] = {
        "text/plain": 415, "application/x-www-form-urlencoded": 415, "text/json": 415, "application/jsonp": 415,
        "multipart/form-data; boundary=x": 415, "nonsense": 415, "application/xml": 415,
        "application/json": 400, "application/json; charset=utf-8": 400, "Application/JSON": 400,
        "application/vnd.api+json": 400,
    }  # fmt: skip
    for route in ROUTES_WITH_BODY:
        for content_type, expected in types.items():
            headers = {"Content-Type": content_type} if content_type else {}
            status, _ = await send(api, route, data=b"[]", headers=headers)
            if status != expected:
                wrong[f"{route} {content_type}"] = status
        status, _ = await send(api, route)
        if status != 415:
            wrong[f"{route} without a body"] = status
    assert {} == wrong


async def stream(size: int) -> AsyncIterator[bytes]:
    """A body that comes in chunks, without its length."""
    yield b'{"a": "'
    while size > 0:
        yield b"x" * min(size, 65536)
        size -= 65536
    yield b'"}'


async def test_a_body_above_one_mebibyte_is_413(api: Api) -> None:
    """One byte above the limit is too much, with a length, without and compressed; the limit itself is not."""
    json_type = {"Content-Type": "application/json"}
    fitting = b'"' + b"x" * (MEBIBYTE - 2) + b'"'
    wrong = {}
    for route in ROUTES_WITH_BODY:
        for name, expected, options in (
            ("at the limit", 400, {"data": BytesIO(fitting), "headers": json_type}),
            ("one byte above", 413, {"data": BytesIO(fitting + b" "), "headers": json_type}),
            (
                "above, of another type",
                413,
                {"data": BytesIO(fitting + b" "), "headers": {"Content-Type": "text/plain"}},
            ),
            ("in chunks", 413, {"data": stream(MEBIBYTE), "headers": json_type}),
            (
                "compressed",
                413,
                {"data": gzip.compress(fitting + b" "), "headers": {**json_type, "Content-Encoding": "gzip"}},
            ),
        ):
            status, _ = await send(api, route, **options)
            if status != expected:
                wrong[f"{route}: {name}"] = status
    assert {} == wrong


async def test_compression_that_is_none_is_400(api: Api) -> None:
    """A body that is not compressed as it says is the client's mistake."""
    for encoding in ("gzip", "deflate"):
        for route in ("POST /api/auth/login", "POST /api/progress/cards"):
            headers = {
                "Content-Type": "application/json",
                "Content-Encoding": encoding,
                "Connection": "close",
            }
            assert (400, ["body"]) == await send(api, route, data=b"not compressed", headers=headers)


PATHS = [
    "GET /api/classes/{}", "GET /api/classes/{}/study", "GET /api/decks/{}/flashcards", "GET /api/progress/class/{}",
    "GET /api/progress/cards/{}", "PUT /api/progress/cards/{}", "POST /api/sessions/{}/end", "PUT /api/bookmarks/{}",
    "DELETE /api/bookmarks/{}", "GET /api/admin/analytics/users/{}", "GET /api/admin/rate-limits/{}",
    "DELETE /api/admin/rate-limits/{}",
]  # fmt: skip


async def test_a_path_without_a_uuid_is_400(api: Api) -> None:
    """An id in a path is a UUID in its usual form, or the field is named."""
    bad = ["x", "0", "null", ID[:-1], ID + "0", ID.replace("-", ""), "urn:uuid:" + ID, "%00", "%ff", "é", ID + "%0A",
           "%F0%9F%8E%93", "'--", "..%2f"]  # fmt: skip
    wrong = {}
    for path in PATHS:
        for text in bad:
            status, named = await send(api, path.format(text), by="admin", json={"confidenceLevel": 3})
            if (status, len(named)) != (400, 1):
                wrong[f"{path} {text}"] = (status, named)
    assert {} == wrong


QUERIES: dict[str, dict[str, list[str]]] = {
    "GET /api/classes": {"limit": [], "cursor": []},
    "GET /api/bookmarks": {"limit": [], "cursor": []},
    "GET /api/sessions": {"limit": [], "cursor": [], "deckId": ["", "x", ID + "0"]},
    "GET /api/admin/analytics/users": {
        "limit": [],
        "cursor": [],
        "sort": ["", "name", "RECENT", "recent,streak"],
    },
    "GET /api/classes/{class}/study": {
        "limit": ["1001"],
        "mode": ["", "Random", "fast", "%00", "%ff"],
        "decks": ["", "x", ",", f"{ID},", f"{ID},x"],
    },
}
BAD_LIMITS = [
    "",
    "0",
    "-1",
    "x",
    "1.0",
    "1e1",
    "1_0",
    "%2B5",
    "%205",
    "0x5",
    "%D9%A3",
    "9" * 20,
    "9" * 5000,
    "true",
]
BAD_CURSORS = ["", "x", "null", "AAAA", "A" * 5000, "%00", "%ff", "é", "====", "-_-_"]


async def test_every_wrong_parameter_is_named(api: Api, course: Course) -> None:
    """Each query parameter refuses what it is not; twice, or unknown, it is refused as well."""
    wrong = {}
    for route, parameters in QUERIES.items():
        url = route.replace("{class}", str(course.classes["Risk"]))
        for name, values in parameters.items():
            bad = values + {"limit": BAD_LIMITS, "cursor": BAD_CURSORS}.get(name, [])
            if name == "limit" and not values:
                bad = [*bad, "101"]
            good = {"limit": "1", "cursor": "x", "mode": "all", "sort": "recent"}.get(name, ID)
            for query in (*(f"{name}={value}" for value in bad), f"{name}={good}&{name}={good}"):
                status, named = await send(api, f"{url}?{query}", by="admin")
                if (status, named) != (400, [name]):
                    wrong[f"{route}?{query[:40]}"] = (status, named)
    assert {} == wrong


async def test_a_hundred_parameters_are_judged_one_by_one(api: Api) -> None:
    """One more is too many, and is said of the query as a whole."""
    for count, named in ((100, "0"), (101, "query")):
        query = "&".join(f"{number}=" for number in range(count))
        status, fields = await send(api, f"GET /api/classes?{query}")
        assert (400, named) == (status, fields[0])


async def test_parameters_that_nobody_knows_are_refused(api: Api, course: Course) -> None:
    """A misspelt parameter is an error on every route that reads, not silently without effect."""
    risk, deck, user = course.classes["Risk"], course.decks["Analysis"], api.people["user"].user_id
    routes = [
        *(route.replace("{class}", str(risk)) for route in QUERIES), f"GET /api/classes/{risk}",
        f"GET /api/decks/{deck}/flashcards", f"GET /api/progress/class/{risk}", f"GET /api/progress/cards/{deck}",
        "GET /api/stats", "GET /api/auth/me", f"GET /api/admin/analytics/users/{user}",
        f"GET /api/admin/rate-limits/user:{user}",
    ]  # fmt: skip
    answers = {route: await send(api, f"{route}?limits=1", by="admin") for route in routes}
    assert dict.fromkeys(routes, (400, ["limits"])) == answers


RAW_HEADERS = ["Authorization", "X-Request-ID", "traceparent", "Origin", "If-None-Match", "X-Time-Zone",
               "X-Forwarded-For", "Forwarded", "Accept", "Cookie", "User-Agent"]  # fmt: skip


async def raw(api: Api, request: bytes) -> bytes:
    """What the server answers to a request made of these bytes, after which it closes the connection."""
    reader, writer = await asyncio.open_connection(api.client.host, api.client.port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_headers_of_any_bytes_are_no_error_of_ours(api: Api) -> None:
    """Bytes that are no UTF-8, in any header that we look at, never make a 500."""
    wrong = {}
    for name in RAW_HEADERS:
        for path in ("/api/classes", "/api/metrics", "/nowhere"):
            head = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{name}: Bearer ".encode()
            status = (await raw(api, head + b"\xff\xfe\xed\xa0\x80\r\n\r\n")).split(b" ")[1]
            if status not in {b"200", b"401", b"404"}:
                wrong[f"{name} {path}"] = status
    assert {} == wrong


async def test_broken_chunks_are_400(api: Api) -> None:
    """A body whose chunks are broken off or wrong is the client's mistake."""
    head = b"POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    for body in (b"zz\r\n", b"-1\r\n", b"2\r\n{}nonsense"):
        answer = await raw(api, head + b"Transfer-Encoding: chunked\r\n\r\n" + body)
        assert b"400" == answer.split(b" ")[1]
    assert 200 == (await api.get("/livez")).status


async def test_a_client_that_hangs_up_is_no_error_of_ours(api: Api) -> None:
    """A body that breaks off with its connection is logged as a request, not as a failure."""
    head = b"POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n"
    with structlog.testing.capture_logs() as events:
        _, writer = await asyncio.open_connection(api.client.host, api.client.port)
        writer.write(head + b'{"email": ')
        await writer.drain()
        in_flight = api.services.metrics.http_requests_in_flight
        await wait_until(lambda: in_flight._value.get() == 1, "the request arrives")
        writer.close()
        await writer.wait_closed()
        await wait_until(lambda: in_flight._value.get() == 0, "the request ends")
    assert [] == [event for event in events if event["log_level"] == "error"]
    assert "http.request" in [event["event"] for event in events]
