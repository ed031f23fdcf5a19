"""Imports deck files, or a tree of them, into the database: all or nothing, and repeatable.

Classes and decks get their names and their order from the names of files: `01-risk-management.tsv` is Risk Management,
and comes first.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import psycopg2
import psycopg2.extras
import structlog
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - the driver names its class in lower case
from tqdm import tqdm

from server.cli.database import connected
from server.domain.catalog.deck_files import (
    ENCODINGS_ACCEPTED,
    USUAL,
    DeckFormat,
    PackedDeck,
    Reading,
    find_encoding,
    pack_deck,
)
from server.domain.catalog.deck_problems import MOST_PROBLEMS, DeckFileError, TooManyRows
from server.domain.catalog.deck_rows import Seen
from server.domain.editing.imports import Imported, merge_cards
from server.domain.values import find_forbidden
from server.errors import CommandError, InvalidInput, UnsupportedMediaType
from server.stores.postgres.queries import Query, load_queries

log = structlog.get_logger(__name__)

_NUMBERED = re.compile(r"(?P<number>\d{1,6})[-_. ]+(?P<words>.+)")
_SMALL_WORDS = frozenset(
    ("a", "an", "and", "as", "at", "by", "for", "from", "in", "of", "on", "or", "the", "to", "vs", "with")
)
_SPELLED = (
    "ABAC ACL AES AI API APIs ARP AWS BCP BIA CA CAP CI/CD CIA CISSP CPU CSS DAC DDoS DES DevOps DevSecOps DLP DNS "
    "DNSSEC DoS DR FTP GCP GDPR HIPAA HTML HTTP HTTPS IaaS IAM ICMP ICS IDS IoT IP IPS IPsec IPv4 IPv6 ISC2 ISO IT "
    "JSON JWT LAN LDAP MAC MFA ML NAC NAT NIST OAuth OIDC OSI OT OWASP PaaS PCI PII PKI PHI RAID RBAC REST RSA SaaS "
    "SAML SAN SCADA SDLC SDN SIEM SLA SOC SOX SQL SSH SSL SSO TCP TLS TOTP UDP UI UPS URL USB VLAN VM VPN WAF WAN "
    "XML XSS"
)
_SPELLING = {word.lower(): word for word in _SPELLED.split()}

CLASS_FILE = "class.toml"
# The table of a class.toml with names of decks by the names of their files.
DECK_NAMES = "decks"
_FORMAT_BY_ENDING: dict[str, DeckFormat] = {f".{format_}": format_ for format_ in get_args(DeckFormat)}
_CLASS_FIELDS = ("name", "description", "icon", "color")
_LONGEST_NAME = 255


def read_name(stem: str) -> tuple[int | None, str]:
    """The number and the name that a file's or folder's name stands for.

    Words in lower case get a capital (not the small ones between them), abbreviations their usual spelling; a name
    of nothing but abbreviations is joined by slashes: `bcp-dr` is BCP/DR. A word with a capital stays as it is.

    Args:
        stem: without an ending such as `.tsv`.

    Returns:
        The leading number, or None without one, and the name.
    """
    stem = unicodedata.normalize("NFC", stem).strip()
    numbered = _NUMBERED.fullmatch(stem)
    number = int(numbered["number"]) if numbered else None
    words = re.split(r"[-_\s]+", (numbered["words"] if numbered else stem).strip("-_ "))
    separator = "/" if all(word in _SPELLING for word in words) else " "
    return number, separator.join(_spell(word, first=at == 0) for at, word in enumerate(words))


def _spell(word: str, *, first: bool) -> str:
    if word in _SPELLING:
        return _SPELLING[word]
    if word != word.lower() or (word in _SMALL_WORDS and not first):
        return word
    return word[:1].upper() + word[1:]


class ImportFailed(CommandError):
    """Nothing was imported; the message says why, a line for each problem."""


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import did: classes, decks and cards that it found, and the files that are no decks."""

    classes: int
    decks: int
    created: int
    updated: int
    unchanged: int
    skipped: tuple[str, ...]
    # The cache keys of the pages that it changed, for `database.tell_readers`.
    stale: frozenset[str] = field(default=frozenset(), compare=False, repr=False)
    # How each file was read, by its name below the folder.
    seen: Mapping[str, Seen] = field(default_factory=dict, compare=False, repr=False)

    def lines(self, *, is_dry_run: bool) -> Iterator[str]:
        """What the command prints; of a dry run also how each file was read."""
        yield (
            f"{'nothing is stored; it would be: ' if is_dry_run else ''}"
            f"{self.classes} classes, {self.decks} decks; cards: {self.created} created, "
            f"{self.updated} updated, {self.unchanged} unchanged"
        )
        yield from (f"skipped, not a deck file: {name}" for name in self.skipped)
        if is_dry_run:
            yield from (f"{name}: {seen}" for name, seen in self.seen.items())


@dataclass(frozen=True, slots=True)
class _Deck:
    path: Path
    name: str
    sort_order: int | None
    packed: PackedDeck


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How an import differs from the usual one.

    Args:
        class_name: the class of all decks; by default that of each file's folder.
        is_draft: whether what is new stays unpublished.
        is_dry_run: whether nothing is stored.
        reading: what the files do not say themselves.
    """

    class_name: str | None = None
    is_draft: bool = False
    is_dry_run: bool = False
    reading: Reading = USUAL


@dataclass(slots=True)
class _Class:
    name: str
    sort_order: int | None
    about: dict[str, str]
    decks: list[_Deck] = field(default_factory=list)
    deck_names: dict[str, str] = field(default_factory=dict)


_USUAL = ImportOptions()


def options_of(arguments: argparse.Namespace) -> ImportOptions:
    """The options that a command line gives.

    Raises:
        ImportFailed: the charset is none that we read.
    """
    encoding = find_encoding(arguments.charset)
    if encoding is None:
        raise ImportFailed(f"--charset must be {ENCODINGS_ACCEPTED}")
    return ImportOptions(
        class_name=arguments.class_name,
        is_draft=arguments.draft,
        is_dry_run=arguments.dry_run,
        reading=Reading(
            encoding, arguments.dialect, escapes=arguments.escapes is None, header=arguments.header
        ),
    )


def has_classes(url: str) -> bool:
    """Whether a migrated database holds any course, drafts included.

    Raises:
        ImportFailed: there is no such database.
    """
    failed = "the database can't be asked"
    with connected(url, failed=failed, error=ImportFailed) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT FROM classes)")
        return cursor.fetchone() == (True,)


def import_path(
    url: str, path: Path, options: ImportOptions = _USUAL, *, progress: bool | None = None
) -> ImportReport:
    """Load a deck file, or every deck file below a folder, into the database: all of it or nothing.

    A folder with deck files is a class and each of its files a deck, named and numbered by their names; a single
    file belongs to the class of its folder. A `class.toml` in the folder may say `name`, `description`, `icon` and
    `color`, and in a table `decks` the names of decks by those of their files. Classes are known by their names,
    decks by their names in a class, cards by their questions in a deck: a second run changes nothing. What is new is
    published; cards that are gone from a file stay in the database.

    Args:
        url: the database, migrated.
        path: a .tsv, .csv, .txt, .json or .xlsx file, or a folder. There, other files are skipped, also
            `*.quiz.json`, and .txt files without a tab in their first line that are no exports of Anki.
        options: how it differs from the usual.
        progress: whether to show a progress bar; by default, if standard error is a terminal.

    Raises:
        ImportFailed: no deck files, a file that is none after all, or no database; nothing is imported then.
    """
    path = path.resolve()
    root = path if path.is_dir() else path.parent
    classes, skipped = _read(path, root, options)
    cards = sum(batch.count for class_ in classes for deck in class_.decks for batch in deck.packed.batches)
    hidden = not (sys.stderr.isatty() if progress is None else progress)
    counts = dict.fromkeys(("created", "updated", "unchanged"), 0)
    stale: set[str] = set()
    queries = load_queries()
    with (
        connected(url, failed="nothing was imported", error=ImportFailed) as connection,
        connection,
        connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor,
        tqdm(total=cards, unit=" cards", disable=hidden, leave=False) as bar,
    ):
        # No other import at the same time: what is known by its name must not come to exist twice.
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('mastery import'))")
        for class_ in classes:
            for imported, keys in _write(cursor, queries, class_, bar, is_published=not options.is_draft):
                for name in counts:
                    counts[name] += getattr(imported, name)
                stale |= keys
        if options.is_dry_run:
            connection.rollback()
            stale.clear()
    report = ImportReport(
        classes=len(classes),
        decks=sum(len(class_.decks) for class_ in classes),
        **counts,
        skipped=skipped,
        seen={
            str(deck.path.relative_to(root)): deck.packed.seen for class_ in classes for deck in class_.decks
        },
        stale=frozenset(stale),
    )
    if options.is_dry_run:
        return report
    log.info(
        "import.finished", classes=report.classes, decks=report.decks, **counts, skipped_files=len(skipped)
    )
    return report


def _write(
    cursor: Cursor, queries: Mapping[str, Query], class_: _Class, bar: tqdm[Any], *, is_published: bool
) -> Iterator[tuple[Imported, set[str]]]:
    """Write a class; of each deck, what became of its cards, and the cache keys that are stale."""

    def run(query: str, /, **parameters: Any) -> Mapping[str, Any]:
        cursor.execute(queries[query].sql, parameters)
        return dict(cursor.fetchone() or {})

    about = {name: class_.about.get(name) for name in ("description", "icon", "color")}
    known_class = run(
        "import_class", name=class_.name, sort_order=class_.sort_order, is_published=is_published, **about
    )
    for deck in class_.decks:
        known_deck = run(
            "import_deck",
            class_id=known_class["id"],
            name=deck.name,
            description=None,
            sort_order=deck.sort_order,
            is_published=is_published,
        )
        is_changed = known_class["is_changed"] or known_deck["is_changed"]
        merge = merge_cards(
            known_deck["id"], deck.packed, is_published=is_published, is_frame_changed=is_changed
        )
        row = None
        while True:
            try:
                query, parameters = merge.send(row)
            except StopIteration as done:
                yield done.value
                break
            row = run(query, **parameters)
            if query == "import_cards":
                bar.update(sum(row.values()))


def _read(path: Path, root: Path, options: ImportOptions) -> tuple[list[_Class], tuple[str, ...]]:
    """Everything that is to be imported, read and checked before the database is asked for anything."""
    if not path.exists():
        raise ImportFailed(f"{path}: there is no such file or folder")
    files = _list_files(path) if path.is_dir() else [path]
    deck_files = [file for file in files if _format(file) and (file == path or not _is_prose(file))]
    if not deck_files:
        raise ImportFailed(f"{path}: there is no deck file (.tsv, .csv, .txt, .json or .xlsx)")
    problems: list[str] = []
    classes: dict[Path | None, _Class] = {}
    bad_files: list[tuple[str, DeckFileError]] = []
    if options.class_name is not None:
        classes[None] = _Class(options.class_name.strip(), None, {})
    for file in deck_files:
        folder = None if options.class_name is not None else file.parent
        if folder is not None and folder not in classes:
            classes[folder] = _read_class(folder, problems)
        number, name = read_name(file.stem)
        name = classes[folder].deck_names.get(file.name, name)
        try:
            packed = _read_cards(file, options)
        except (TooManyRows, InvalidInput, UnsupportedMediaType) as error:
            packed = PackedDeck([], Seen(), b"")
            if isinstance(error, DeckFileError):
                bad_files.append((str(file.relative_to(root)), error))
            else:
                problems.append(f"{file.relative_to(root)}: {error.detail}")
        classes[folder].decks.append(_Deck(file, name, number, packed))
    problems += _bad_rows(bad_files)
    problems += _name_problems(list(classes.values()), root)
    if problems:
        more = f"\n… and {len(problems) - MOST_PROBLEMS} more" if len(problems) > MOST_PROBLEMS else ""
        raise ImportFailed("nothing was imported:\n" + "\n".join(problems[:MOST_PROBLEMS]) + more)
    skipped = [file for file in files if file not in set(deck_files) and file.name != CLASS_FILE]
    return list(classes.values()), tuple(str(file.relative_to(root)) for file in skipped)


def _list_files(folder: Path) -> list[Path]:
    """The files below a folder in the order of their names; hidden ones, and what Excel locks, are not looked at."""
    found = [file for file in folder.rglob("*") if file.is_file()]
    visible = [
        file
        for file in found
        if not any(part.startswith((".", "~$")) for part in file.relative_to(folder).parts)
    ]
    return sorted(visible)


def _format(file: Path) -> DeckFormat | None:
    ending = file.suffix.lower()
    if ending == ".json" and len(file.suffixes) > 1:
        return None
    return _FORMAT_BY_ENDING.get(ending)


def _is_prose(file: Path) -> bool:
    """Whether a .txt file in a folder is none with cards: no export of Anki, and no tab in its first line."""
    if file.suffix.lower() != ".txt":
        return False
    with file.open("rb") as opened:
        start = opened.read(4096)
    first = start.replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe").split(b"\n")[0].split(b"\r")[0]
    return b"\t" not in first and not first.startswith(b"#")


def _read_cards(file: Path, options: ImportOptions) -> PackedDeck:
    format_ = _format(file)
    if format_ is None:
        raise AssertionError("only deck files are read")
    return pack_deck(file.read_bytes(), format_, options.reading)


def _bad_rows(bad_files: list[tuple[str, DeckFileError]]) -> list[str]:
    """A line for each file, with its first problem; one bad file by itself has more of them."""
    lines: list[str] = []
    for name, error in bad_files:
        first, *others = error.problems
        if error.count == 1:
            lines.append(f"{name}: {first}")
        elif len(bad_files) == 1:
            rest = error.count - len(error.problems)
            more = [f"  … and {rest:,} more"] if rest else []
            listed = "\n".join([f"  {problem}" for problem in (first, *others)] + more)
            lines.append(f"{name}: {error.count:,} problems:\n{listed}")
        else:
            lines.append(f"{name}: {error.count:,} problems, the first in {first}")
    return lines


def _read_class(folder: Path, problems: list[str]) -> _Class:
    number, name = read_name(folder.name)
    file = folder / CLASS_FILE
    about: dict[str, Any] = {}
    deck_names: dict[str, str] = {}
    if file.is_file():
        try:
            about = tomllib.loads(file.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            problems.append(f"{file}: not TOML: {error}")
        deck_names = about.pop(DECK_NAMES, {})
        if not isinstance(deck_names, dict) or not all(
            isinstance(named, str) for named in deck_names.values()
        ):
            problems.append(f'{file}: [{DECK_NAMES}] takes lines such as "01-risk.tsv" = "Risk"')
            deck_names = {}
        accepted = f"{', '.join(_CLASS_FIELDS)}, each a text, and the table {DECK_NAMES}"
        problems += [
            f"{file}: {key} is not accepted; accepted: {accepted}"
            for key, value in about.items()
            if key not in _CLASS_FIELDS or not isinstance(value, str)
        ]
        problems += [
            f"{file}: {key} holds the control character {forbidden}; accepted: text with line breaks and tabs"
            for key, value in about.items()
            if isinstance(value, str) and (forbidden := find_forbidden(value)) is not None
        ]
    return _Class(str(about.get("name", name)), number, about, deck_names=deck_names)


def _name_problems(classes: list[_Class], root: Path) -> list[str]:
    """Names that are too long, and names that two files or folders share."""
    problems: list[str] = []
    places: dict[tuple[str, ...], Path] = {}
    for class_ in classes:
        named: list[tuple[tuple[str, ...], Path]] = [((class_.name,), class_.decks[0].path.parent)]
        named += [((class_.name, deck.name), deck.path) for deck in class_.decks]
        for names, place in named:
            if not 1 <= len(names[-1]) <= _LONGEST_NAME:
                problems.append(f"{place}: its name needs 1 to {_LONGEST_NAME} characters")
            forbidden = find_forbidden(names[-1])
            if forbidden is not None:
                problems.append(f"{str(place)!a}: its name holds the control character {forbidden}")
            other = places.setdefault(names, place)
            if other != place:
                both = " and ".join(sorted(str(path.relative_to(root)) for path in (other, place)))
                problems.append(f"{both} are both named {names[-1]!r}")
    return problems
