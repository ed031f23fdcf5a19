"""`python -m server import` beside a running service: its readers see the imported course at once."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from server.development import free_port
from server.settings import ROOT, Settings
from tests.api.conftest import Api, Course


async def import_beside(settings: Settings, path: Path, *, redis_url: str | None = None) -> tuple[str, str]:
    """Run the command, which must succeed: what it says on both outputs."""
    command = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "server", "import", str(path),
        cwd=ROOT,
        env={
            **os.environ,
            "DATABASE_URL": settings.database_url,
            "REDIS_URL": redis_url or settings.redis_url,
            "SECRET_KEY": settings.secret_key,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, errors = await command.communicate()
    assert 0 == command.returncode, errors.decode()
    return output.decode(), errors.decode()


async def seen(api: Api, course: Course) -> list[Any]:
    """What a student sees: numbers of cards in the list, on the page of the class, and the answers of a deck."""
    listed = (await (await api.get("/api/classes")).json())["classes"]
    shown = (await (await api.get(f"/api/classes/{course.classes['Risk']}")).json())["decks"]
    deck = (await (await api.get(f"/api/decks/{course.decks['Law']}/flashcards")).json())["flashcards"]
    return [
        {entry["name"]: entry["cardCount"] for entry in listed},
        {entry["name"]: entry["cardCount"] for entry in shown},
        sorted(card["answer"] for card in deck),
    ]


def write_deck(folder: Path, *cards: str) -> Path:
    """A folder that is the class Risk, with a file that is its deck Law."""
    file = folder / "Risk" / "law.tsv"
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(f"{card}\n" for card in cards), encoding="utf-8")
    return folder


async def test_readers_see_the_import_at_once(
    api: Api, course: Course, settings: Settings, tmp_path: Path
) -> None:
    """New and changed cards are on every page that shows them, although those had been cached."""
    await seen(api, course)

    await import_beside(settings, write_deck(tmp_path, "question l1\tchanged", "question l3\tnew"))

    assert [
        {"Risk": 6, "Assets": 1}, {"Analysis": 3, "Law": 3}, ["answer l2", "changed", "new"],
    ] == await seen(api, course)  # fmt: skip


async def test_an_import_without_changes_leaves_the_cache(
    api: Api, course: Course, settings: Settings, tmp_path: Path
) -> None:
    """What the second import of the same file finds unchanged stays cached."""
    folder = write_deck(tmp_path, "question l1\tchanged")
    await import_beside(settings, folder)
    await seen(api, course)

    await import_beside(settings, folder)

    for path in ("/api/classes", f"/api/decks/{course.decks['Law']}/flashcards"):
        assert "HIT" == (await api.get(path)).headers["X-Cache"]


async def test_without_redis_the_import_says_when_readers_see_it(
    course: Course, settings: Settings, tmp_path: Path
) -> None:
    """The import succeeds, and says how long readers may see the course as it was."""
    del course
    folder = write_deck(tmp_path, "question l3\tnew")

    output, errors = await import_beside(settings, folder, redis_url=f"redis://127.0.0.1:{free_port()}")

    assert "1 created" in output
    assert "Redis does not answer: readers may see the course as it was for 300 s" in errors
