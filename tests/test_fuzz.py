"""Schemathesis against the real service: it makes requests from the OpenAPI document, and holds the answers to it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import psycopg2
import pytest

from server.development import EmbeddedServer
from server.settings import ROOT
from tests.support.service import Service, running_service

# A status, a media type, a header or a body that the document does not have is a failure, as is any 5xx.
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
)
MOST_REQUESTS_AN_OPERATION = 2  # in `make test`, the same in every run
MOST_SECONDS = 100
# Ids of things that exist, in half of the requests: the others ask for what is not there.
TABLE_OF_PLACE = {
    "path.classId": "classes",
    "path.deckId": "decks",
    "path.flashcardId": "flashcards",
    "path.userId": "users",
    "query.decks": "decks",
    "query.classId": "classes",
    "query.deckId": "decks",
    "body.classId": "classes",
    "body.deckId": "decks",
    "body.flashcardId": "flashcards",
}


@pytest.fixture(scope="module")
def service(
    shared_postgres: EmbeddedServer, shared_redis: EmbeddedServer, database_template: str
) -> Iterator[Service]:
    """The service over the sample course, with limits out of the way."""
    limits = str(ROOT / "bench" / "ratelimits.toml")
    with running_service(
        shared_postgres, shared_redis, database_template, RATE_LIMITS_FILE=limits, WEB_CONCURRENCY="1"
    ) as service:
        yield service


def settings_of_the_fuzzer(service: Service) -> str:
    """What schemathesis.toml says: ids to take, from the service's database."""
    lines = []
    with psycopg2.connect(service.environment["DATABASE_URL"]) as connection, connection.cursor() as cursor:
        for table in sorted(set(TABLE_OF_PLACE.values())):
            cursor.execute(f"SELECT id::text FROM {table} ORDER BY id LIMIT 20")  # noqa: S608 - names from above
            ids = ", ".join(f'"{row[0]}"' for row in cursor.fetchall())
            lines += [f"[dictionaries.{table}]", f"values = [{ids}]"]
    connection.close()
    lines.append("[parameters]")
    lines += [
        f'"{place}" = {{ dictionary = "{table}", probability = 0.5 }}'
        for place, table in TABLE_OF_PLACE.items()
    ]
    return "\n".join(lines)


def test_a_long_query_is_answered_by_the_service_itself(service: Service) -> None:
    """A cursor of the longest accepted length, every character of it percent-encoded, is a problem like any other."""
    status, text = service.request(
        "GET", f"/api/classes?cursor={'%F0%9F%98%80' * 2000}", token=service.user_token
    )
    assert 400 == status
    assert [
        {"field": "cursor", "message": "This is not a cursor of this list; take nextCursor as it came."}
    ] == (json.loads(text)["errors"])


@pytest.mark.timeout(MOST_SECONDS + 80)
@pytest.mark.parametrize("role", ["user", "admin"])
def test_no_request_finds_a_5xx_or_an_undocumented_answer(
    service: Service, tmp_path: Path, role: Literal["user", "admin"]
) -> None:
    """Hundreds of requests, well made and not, as a student and as an administrator."""
    fuzz(service, tmp_path, role, "--generation-deterministic", requests=MOST_REQUESTS_AN_OPERATION)


@pytest.mark.long
@pytest.mark.timeout(10 * MOST_SECONDS)
@pytest.mark.parametrize("role", ["user", "admin"])
def test_no_random_request_finds_one_either(
    service: Service, tmp_path: Path, role: Literal["user", "admin"]
) -> None:
    """The same with more requests, which are others in every run; a failure has the seed and the request for curl."""
    fuzz(service, tmp_path, role, requests=15 * MOST_REQUESTS_AN_OPERATION)


def fuzz(service: Service, folder: Path, role: Literal["user", "admin"], *more: str, requests: int) -> None:
    """Run Schemathesis with so many requests an operation at most; its complaint fails the test."""
    (folder / "schemathesis.toml").write_text(settings_of_the_fuzzer(service))
    token = service.admin_token if role == "admin" else service.user_token
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{service.address}/api/openapi.json"]
    options = [
        *("--header", f"Authorization: Bearer {token}"),
        *("--checks", ",".join(CHECKS)),
        *("--phases", "examples,fuzzing"),
        *("--max-examples", str(requests)),
        *("--request-timeout", "30"),
        "--continue-on-failure",
        "--no-color",
        *more,
    ]
    run = subprocess.run(
        command + options,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=9 * MOST_SECONDS,
        check=False,
    )
    assert 0 == run.returncode, f"{run.stdout}\n{run.stderr}"
    assert "Tested:" in run.stdout
