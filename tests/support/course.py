"""People and a course for a test's database: copied from one that has them, which is less work than to add them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psycopg2
import pytest

from server.development import EmbeddedServer
from server.domain.identity.tokens import Caller, Role


@dataclass(frozen=True)
class Course:
    """What the `course` fixture put into the database: ids by the names used in tests."""

    classes: dict[str, UUID] = field(default_factory=dict)
    decks: dict[str, UUID] = field(default_factory=dict)
    cards: dict[str, UUID] = field(default_factory=dict)


# class -> deck -> cards; a name that starts with "draft" is not published.
COURSE = {
    "Risk": {"Analysis": ["r1", "r2", "r3"], "Law": ["l1", "l2"], "draft deck": ["d1"]},
    "Assets": {"Data": ["a1", "draft a2"]},
    "draft class": {"Hidden": ["h1"]},
}


@dataclass(frozen=True)
class Filled:
    """A database with people, and with a course if it has one, to be copied."""

    name: str
    people: dict[str, Caller]
    course: Course | None


@pytest.fixture
def people(request: pytest.FixtureRequest, database_url: str) -> dict[str, Caller]:
    """Two students, `user` and `other`, and an `admin`."""
    filled = _template_of(request)
    return add_people(database_url) if filled is None else filled.people


@pytest.fixture
def course(request: pytest.FixtureRequest, database_url: str) -> Course:
    """COURSE, in the database."""
    filled = _template_of(request)
    return add_course(database_url) if filled is None or filled.course is None else filled.course


@pytest.fixture(scope="session")
def filled_templates(
    shared_postgres: EmbeddedServer, administer: Callable[[str], None], database_template: str
) -> dict[bool, Filled]:
    """The databases with people, by whether they have the course."""

    def fill(name: str, *, with_course: bool) -> Filled:
        administer(f"CREATE DATABASE {name} TEMPLATE {database_template} STRATEGY file_copy")
        url = f"{shared_postgres.url.rpartition('/')[0]}/{name}"
        return Filled(name, add_people(url), add_course(url) if with_course else None)

    return {False: fill("with_people", with_course=False), True: fill("with_course", with_course=True)}


@pytest.fixture
def template(request: pytest.FixtureRequest, database_template: str) -> str:
    """What the test's database is a copy of: it has the people and the course of tests that ask for them."""
    filled = _template_of(request)
    return database_template if filled is None else filled.name


def _template_of(request: pytest.FixtureRequest) -> Filled | None:
    """The filled database that a test's own is a copy of; None for one with nothing, or on a server of the test's."""
    names = request.fixturenames
    if "people" not in names or "template" not in names:
        return None
    filled: dict[bool, Filled] = request.getfixturevalue("filled_templates")
    return filled["course" in names]


def add_people(url: str) -> dict[str, Caller]:
    """Put the people into a database."""
    roles: dict[str, Role] = {"user": "user", "other": "user", "admin": "admin"}
    people = {}
    for name, role in roles.items():
        ((user_id,),) = run_statement(
            url,
            "INSERT INTO users (email, name, role) VALUES (%s, %s, %s) RETURNING id::text",
            f"{name}@example.com",
            name.title(),
            role,
        )
        people[name] = Caller(UUID(user_id), role)
    return people


def add_course(url: str) -> Course:
    """Put the course into a database."""
    made = Course()

    def insert(statement: str, *values: object) -> UUID:
        ((made_id,),) = run_statement(url, f"{statement} RETURNING id::text", *values)
        return UUID(made_id)

    for class_order, (class_name, decks) in enumerate(COURSE.items()):
        made.classes[class_name] = class_id = insert(
            "INSERT INTO classes (name, sort_order, is_published) VALUES (%s, %s, %s)",
            class_name,
            class_order,
            not class_name.startswith("draft"),
        )
        for deck_order, (deck_name, cards) in enumerate(decks.items()):
            made.decks[deck_name] = deck_id = insert(
                "INSERT INTO decks (class_id, name, sort_order, is_published) VALUES (%s, %s, %s, %s)",
                str(class_id),
                deck_name,
                deck_order,
                not deck_name.startswith("draft"),
            )
            for card_order, card in enumerate(cards):
                made.cards[card] = insert(
                    "INSERT INTO flashcards (deck_id, question, answer, explanation, sort_order, is_published)"
                    " VALUES (%s, %s, %s, %s, %s, %s)",
                    str(deck_id),
                    f"question {card}",
                    f"answer {card}",
                    f"explanation {card}",
                    card_order,
                    not card.startswith("draft"),
                )
    return made


def run_statement(url: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Run one statement beside the service, committed, and give its rows if it has any."""
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement, values)
        return cursor.fetchall() if cursor.description else []
