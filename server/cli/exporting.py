"""Writes the course into a tree of deck files, which `importing` reads as unchanged: the opposite of an import."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2.extras
from psycopg2.extensions import ISOLATION_LEVEL_REPEATABLE_READ

from server.cli.database import connected
from server.cli.importing import CLASS_FILE, DECK_NAMES, read_name
from server.domain.catalog.deck_files import DeckFormat
from server.domain.editing.imports import write_cards
from server.errors import CommandError
from server.stores.postgres.queries import load_queries

_HIGHEST_NUMBER = 999_999
_LONGEST_SLUG = 60
_ABOUT = ("description", "icon", "color")


class ExportFailed(CommandError):
    """Nothing, or not everything, was exported; the message says why."""


@dataclass(slots=True)
class ExportReport:
    """What an export wrote, and what of it an import would refuse."""

    classes: int = 0
    decks: int = 0
    cards: int = 0
    warnings: list[str] = field(default_factory=list)


def export_course(
    url: str, folder: Path, format_: DeckFormat = "tsv", *, class_name: str | None = None
) -> ExportReport:
    """Write every class as a folder, and each of its decks as a file; all as of one moment, drafts included.

    Args:
        url: the database, migrated.
        folder: where to; it must not exist, or be empty.
        format_: tsv, csv or json.
        class_name: only the classes of this name.

    Raises:
        ExportFailed: the folder holds something, can't be written, there is no such class, or no database.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ExportFailed(f"{folder}: is there already; name a new folder, or an empty one")
    queries, report = load_queries(), ExportReport()
    with connected(url, failed="not everything was exported", error=ExportFailed) as connection:
        connection.set_session(isolation_level=ISOLATION_LEVEL_REPEATABLE_READ, readonly=True)
        with connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
            cursor.execute(queries["list_course"].sql)
            rows = [row for row in cursor.fetchall() if class_name in {None, row["name"]}]
            if not rows:
                raise ExportFailed("there is no class to export")
            taken: set[str] = set()
            names: set[str] = set()
            for _, of_class in itertools.groupby(rows, key=lambda row: row["id"]):
                decks = list(of_class)
                class_, files = decks[0], _files_of(decks, format_)
                where = folder / _file_name(class_["sort_order"], class_["name"], "", taken)
                _warn_of_twins(class_["name"], "classes", names, report)
                try:
                    where.mkdir(parents=True)
                    (where / CLASS_FILE).write_text(_class_file(class_, files), encoding="utf-8")
                    for file, deck in files.items():
                        cursor.execute(queries["list_cards_of_deck"].sql, {"deck_id": deck["deck_id"]})
                        cards = cursor.fetchall()
                        if not cards:
                            report.warnings.append(f"{where / file}: the deck has no cards, and is left out")
                            continue
                        (where / file).write_bytes(write_cards(cards, format_))
                        report.decks += 1
                        report.cards += len(cards)
                        _warn_of_cards(where / file, cards, report)
                except OSError as error:
                    raise ExportFailed(f"not everything was exported: {error}") from error
                own: set[str] = set()
                for deck in files.values():
                    _warn_of_twins(deck["deck_name"], f"decks of {class_['name']!r}", own, report)
                report.classes += 1
    return report


def _files_of(decks: Iterable[Mapping[str, Any]], format_: str) -> dict[str, Mapping[str, Any]]:
    taken: set[str] = set()
    return {
        _file_name(deck["deck_order"], deck["deck_name"], f".{format_}", taken): deck
        for deck in decks
        if deck["deck_id"] is not None
    }


def _file_name(order: int, name: str, ending: str, taken: set[str]) -> str:
    """A name that every file system takes, unlike those that are taken; also where capitals do not count."""
    slug = re.sub(r"[\W_]+", "-", name.lower())[:_LONGEST_SLUG].strip("-") or "unnamed"
    while len(slug.encode()) > 2 * _LONGEST_SLUG:
        slug = slug[:-1]
    stem = f"{order:02}-{slug}" if order <= _HIGHEST_NUMBER else slug
    for number in itertools.count(2):
        if stem not in taken:
            break
        stem = f"{stem.removesuffix(f'-{number - 1}')}-{number}"
    taken.add(stem)
    return stem + ending


def _class_file(class_: Mapping[str, Any], files: Mapping[str, Mapping[str, Any]]) -> str:
    """The name of the class, what is said of it, and the names of decks that the files' names do not give."""
    lines = [f"name = {_toml(class_['name'])}"]
    lines += [f"{name} = {_toml(class_[name])}" for name in _ABOUT if class_[name] is not None]
    names = {
        file: deck["deck_name"]
        for file, deck in files.items()
        if read_name(Path(file).stem)[1] != deck["deck_name"]
    }
    if names:
        lines += ["", f"[{DECK_NAMES}]", *(f"{_toml(file)} = {_toml(name)}" for file, name in names.items())]
    return "\n".join(lines) + "\n"


def _toml(text: str) -> str:
    """A basic string of TOML: its escapes are those of JSON."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")


def _warn_of_twins(name: str, what: str, seen: set[str], report: ExportReport) -> None:
    if name in seen:
        report.warnings.append(f"two {what} are named {name!r}: rename one, or an import refuses them")
    seen.add(name)


def _warn_of_cards(file: Path, cards: list[Any], report: ExportReport) -> None:
    if len({card["question"] for card in cards}) < len(cards):
        report.warnings.append(
            f"{file}: cards share a question: an import refuses the file until they differ"
        )
