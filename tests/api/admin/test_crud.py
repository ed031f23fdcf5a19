"""/api/admin/classes, decks, flashcards: what each of them takes, answers and refuses."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.api.conftest import Api, Course


@dataclass(frozen=True)
class Kind:
    """What the three resources have in common, and where they differ."""

    name: str
    plural: str
    parent: str | None
    minimal: dict[str, Any]
    complete: dict[str, Any]
    defaults: dict[str, Any]

    @property
    def path(self) -> str:
        """Where they are listed and made."""
        return f"/api/admin/{self.plural}"

    def of(self, course: Course, body: dict[str, Any]) -> dict[str, Any]:
        """A body with the id of its parent, one of the course's."""
        if self.parent == "classId":
            return {"classId": str(course.classes["Risk"]), **body}
        return {"deckId": str(course.decks["Analysis"]), **body} if self.parent else body


CLASSES = Kind(
    name="class",
    plural="classes",
    parent=None,
    minimal={"name": "Cryptography"},
    complete={
        "name": "Cryptography", "description": "Ciphers", "icon": "🔑", "color": "#aabbcc", "order": 7,
        "isPublished": True, "scheduler": "fsrs",
    },
    defaults={
        "description": None, "icon": None, "color": None, "order": 0, "isPublished": False, "scheduler": "fixed",
    },
)  # fmt: skip
DECKS = Kind(
    name="deck",
    plural="decks",
    parent="classId",
    minimal={"name": "Ciphers"},
    complete={"name": "Ciphers", "description": "Old ones", "order": 7, "isPublished": True},
    defaults={"description": None, "order": 0, "isPublished": False},
)
CARDS = Kind(
    name="flashcard",
    plural="flashcards",
    parent="deckId",
    minimal={"question": "What is a nonce?", "answer": "A number used once."},
    complete={
        "question": "What is a nonce?", "answer": "A number used once.", "explanation": "Line\nbreak",
        "category": "a, b", "order": 7, "isPublished": True,
    },
    defaults={"explanation": None, "category": None, "order": 0, "isPublished": False},
)  # fmt: skip
KINDS = (CLASSES, DECKS, CARDS)
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.plural)


async def create(api: Api, kind: Kind, course: Course, **fields: Any) -> dict[str, Any]:
    """Make one, published unless `fields` say otherwise."""
    body = kind.of(course, {**kind.minimal, "isPublished": True, **fields})
    response = await api.post(kind.path, by="admin", json=body)
    assert 201 == response.status, await response.text()
    made: dict[str, Any] = await response.json()
    return made


async def patch(api: Api, path: str, **fields: Any) -> dict[str, Any]:
    """Change fields, which must succeed: the answer."""
    response = await api.request("PATCH", path, by="admin", json=fields)
    assert 200 == response.status, await response.text()
    changed: dict[str, Any] = await response.json()
    return changed


async def refusal(response: Any, status: int) -> dict[str, str]:
    """A refused request: its message by field."""
    assert status == response.status, await response.text()
    problem = await response.json()
    return {error["field"]: error["message"] for error in problem.get("errors", [])}


@every_kind
async def test_what_is_made_is_answered_and_found_at_its_location(
    api: Api, course: Course, kind: Kind
) -> None:
    """POST answers 201 with every field and the path, where GET answers the same."""
    body = kind.of(course, kind.complete)

    made = await api.post(kind.path, by="admin", json=body)

    assert 201 == made.status
    answer = await made.json()
    UUID(answer["id"])
    assert f"{kind.path}/{answer['id']}" == made.headers["Location"]
    assert body == {
        key: value for key, value in answer.items() if key not in {"id", "createdAt", "updatedAt"}
    }
    assert answer["createdAt"] == answer["updatedAt"]
    found = await api.get(made.headers["Location"], by="admin")
    assert (200, answer) == (found.status, await found.json())
    assert (
        304
        == (
            await api.get(
                made.headers["Location"], by="admin", headers={"If-None-Match": found.headers["ETag"]}
            )
        ).status
    )


@every_kind
async def test_what_is_left_out_takes_its_default(api: Api, course: Course, kind: Kind) -> None:
    """The required fields are enough; nothing is published unless it is said."""
    made = await api.post(kind.path, by="admin", json=kind.of(course, kind.minimal))

    answer = await made.json()
    assert kind.defaults == {key: answer[key] for key in kind.defaults}


@every_kind
async def test_a_patch_changes_what_it_names_and_nothing_else(api: Api, course: Course, kind: Kind) -> None:
    """Each field alone: an omitted field stays as it was, and null clears one that may be null."""
    made = await create(api, kind, course, **kind.complete)
    path = f"{kind.path}/{made['id']}"
    expected = {key: value for key, value in made.items() if key != "updatedAt"}
    changes: dict[str, Any] = {
        key: ("changed" if isinstance(value, str) else not value if isinstance(value, bool) else value + 1)
        for key, value in kind.complete.items()
    }
    if "scheduler" in changes:
        changes["scheduler"] = "fixed"
    nullable = {key: None for key, value in kind.defaults.items() if value is None}

    for field, value in [*changes.items(), *nullable.items()]:
        expected[field] = value
        answer = await patch(api, path, **{field: value})
        assert expected == {key: answer[key] for key in expected}
        assert answer == await (await api.get(path, by="admin")).json()
        assert answer["updatedAt"] > made["updatedAt"]


@every_kind
async def test_a_patch_that_changes_nothing_is_no_change(api: Api, course: Course, kind: Kind) -> None:
    """An empty PATCH, and one with the values that are there, leave even the time of the last change."""
    made = await create(api, kind, course)

    assert made == await patch(api, f"{kind.path}/{made['id']}")
    assert made == await patch(api, f"{kind.path}/{made['id']}", **kind.minimal)


@every_kind
async def test_what_is_deleted_is_gone(api: Api, course: Course, kind: Kind) -> None:
    """DELETE answers 204 without a body, and then there is nothing there to read, change or delete."""
    path = f"{kind.path}/{(await create(api, kind, course))['id']}"

    deleted = await api.delete(path, by="admin")

    assert (204, b"") == (deleted.status, await deleted.read())
    for method in ("GET", "PATCH", "DELETE"):
        response = await api.request(method, path, by="admin", json={} if method == "PATCH" else None)
        assert 404 == response.status


TOO_LONG = {
    "name": 255, "description": 2000, "icon": 64, "color": 32, "question": 5000, "answer": 5000, "explanation": 2000,
    "category": 2000,
}  # fmt: skip
NOT_A_TEXT = (5, True, ["a"], {"a": "b"}, "a\0b")
NOT_AN_ORDER = (-1, 2**31, "3", 1.5, True, None)
NOT_A_FLAG = ("true", 1, None)
NOT_AN_ID = ("", "risk", 5, None, str(uuid4()).replace("-", ""))


def bad_values(kind: Kind) -> list[tuple[str, Any]]:
    """Every field with every kind of value that it refuses."""
    bad: list[tuple[str, Any]] = [(kind.parent, value) for value in NOT_AN_ID] if kind.parent else []
    bad += [("order", value) for value in NOT_AN_ORDER] + [("isPublished", value) for value in NOT_A_FLAG]
    for field, longest in TOO_LONG.items():
        if field in kind.complete:
            bad += [(field, value) for value in (*NOT_A_TEXT, "x" * (longest + 1))]
        if field in kind.minimal:
            bad += [(field, value) for value in (None, "", " \t\n ")]
    return [*bad, ("unknown", 1), ("id", str(uuid4()))]


@every_kind
async def test_bad_values_are_refused_by_name(api: Api, course: Course, kind: Kind) -> None:
    """POST and PATCH answer 400 with exactly the field that is wrong, and keep what was there."""
    made = await create(api, kind, course)
    path = f"{kind.path}/{made['id']}"

    for field, value in bad_values(kind):
        body = {**kind.of(course, kind.minimal), field: value}
        messages = await refusal(await api.post(kind.path, by="admin", json=body), 400)
        assert [field] == list(messages), (field, value)
        messages = await refusal(await api.request("PATCH", path, by="admin", json={field: value}), 400)
        assert [field] == list(messages), (field, value)

    assert made == await (await api.get(path, by="admin")).json()


@every_kind
async def test_lengths_are_counted_in_characters_after_trimming(api: Api, course: Course, kind: Kind) -> None:
    """The longest text of four-byte characters fits, with space around it that does not count."""
    longest = {field: "🔑" * length for field, length in TOO_LONG.items() if field in kind.complete}

    answer = await create(
        api, kind, course, order=2**31 - 1, **{field: f" {text}\n" for field, text in longest.items()}
    )

    assert longest == {field: answer[field] for field in longest}


@every_kind
async def test_required_fields_are_required(api: Api, kind: Kind) -> None:
    """An empty object names every field that is missing, and something else than an object is refused."""
    required = {*kind.minimal, *([kind.parent] if kind.parent else [])}

    assert required == set(await refusal(await api.post(kind.path, by="admin", json={}), 400))
    no_objects: tuple[Any, ...] = ([], "text", 5, False)
    for body in no_objects:
        assert 400 == (await api.post(kind.path, by="admin", json=body)).status


@every_kind
async def test_bodies_that_are_not_json_are_refused(api: Api, course: Course, kind: Kind) -> None:
    """Broken JSON is 400, another type 415, more than 1 MiB 413."""
    path = f"{kind.path}/{(await create(api, kind, course))['id']}"
    json_type = {"Content-Type": "application/json"}

    for method, target in (("POST", kind.path), ("PATCH", path)):
        for status, body, headers in (
            (400, b'{"name": ', json_type),
            (400, b'{"name": "\\ud800"}', json_type),
            (415, b"name=x", {"Content-Type": "application/x-www-form-urlencoded"}),
            (413, b" " * (1 << 20) + b"{}", json_type),
        ):
            response = await api.request(method, target, by="admin", data=io.BytesIO(body), headers=headers)
            assert status == response.status


@every_kind
async def test_unknown_and_malformed_ids(api: Api, kind: Kind) -> None:
    """What is not there is 404; what is not a UUID is 400 with the parameter's name."""
    for method in ("GET", "PATCH", "DELETE"):
        body: dict[str, Any] | None = {} if method == "PATCH" else None
        response = await api.request(method, f"{kind.path}/{uuid4()}", by="admin", json=body)
        assert 404 == response.status
        malformed = await api.request(method, f"{kind.path}/none", by="admin", json=body)
        assert [f"{kind.name}Id"] == list(await refusal(malformed, 400))


@pytest.mark.parametrize("kind", [DECKS, CARDS], ids=lambda kind: kind.plural)
async def test_a_parent_that_is_not_there_is_refused(api: Api, course: Course, kind: Kind) -> None:
    """Neither made in nor moved into a class or deck that does not exist: 400, with the field."""
    assert kind.parent
    made = await create(api, kind, course)
    nowhere = {kind.parent: str(uuid4())}

    posted = await api.post(kind.path, by="admin", json={**kind.minimal, **nowhere})
    moved = await api.request("PATCH", f"{kind.path}/{made['id']}", by="admin", json=nowhere)

    noun = "class" if kind is DECKS else "deck"
    expected = {kind.parent: f"There is no such {noun}."}
    assert (expected, expected) == (await refusal(posted, 400), await refusal(moved, 400))


@every_kind
async def test_only_administrators_may(api: Api, course: Course, kind: Kind) -> None:
    """A stranger gets 401 and a student 403 on each route, whatever the body; nothing happens."""
    made = await create(api, kind, course)
    path = f"{kind.path}/{made['id']}"
    routes = [("GET", kind.path), ("POST", kind.path), ("GET", path), ("PATCH", path), ("DELETE", path)]
    if kind is DECKS:
        routes.append(("POST", f"{path}/import"))

    for method, target in routes:
        assert 401 == (await api.request(method, target, by=None)).status
        assert 403 == (await api.request(method, target, by="user")).status

    assert made == await (await api.get(path, by="admin")).json()
