"""How long a client waits while migrations run: each file in turn on a large database in use.

The database is filled under the schema of the first three files, which is the oldest with progress to count. From then
on clients rate, read and sign up without a break; at the start of each file a reader such as pg_dump holds every table.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from threading import Event, Thread

import psycopg2
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - the driver names its class in lower case

from bench.harness.table import as_text
from server.cli.migration_files import MIGRATIONS_FOLDER, MigrationError
from server.cli.migrations import migrate
from server.development import postgres_server
from server.errors import CommandError

HEADINGS = ("file", "seconds", "rating, ms", "reading, ms", "sign-up, ms", "refused")
_OLDEST = 3
_CARDS_A_USER = 200
_POSTGRES = ("shared_buffers=512MB", "max_wal_size=4GB")
_BETWEEN_SECONDS = 0.002
_AS_THE_SERVICE = "-c statement_timeout=5000"
_WAIT_SECONDS = 60
_FILL = """
    INSERT INTO classes (name, is_published) SELECT 'Class ' || n, true FROM generate_series(1, 10) AS n;
    INSERT INTO decks (class_id, name, is_published)
    SELECT id, 'Deck ' || n, true FROM classes, generate_series(1, 10) AS n;
    INSERT INTO flashcards (deck_id, question, answer, is_published)
    SELECT id, repeat('question ', 9) || n, repeat('answer ', 30), true FROM decks, generate_series(1, 20) AS n;
    INSERT INTO users (email) SELECT 'user' || n || '@example.org' FROM generate_series(1, {users}) AS n;
    WITH cards AS (SELECT id, row_number() OVER () AS n FROM flashcards),
         people AS (SELECT id, row_number() OVER () AS n FROM users)
    INSERT INTO user_card_progress (
           user_id, flashcard_id, confidence_level, mastery_status, last_seen_at, next_review_at)
    SELECT p.id, c.id, 3, (ARRAY['new', 'learning', 'mastered'])[1 + c.n % 3], now() - c.n * interval '1 hour', now()
      FROM people AS p JOIN cards AS c ON c.n % 10 = p.n % 10;
    UPDATE user_stats
       SET study_streak_days = 9, last_active_date = current_date, streak_lapses_at = current_date + interval '2 days'
     WHERE user_id IN (SELECT id FROM users WHERE email < 'user3');
"""
# What a rating writes, where the schema has it by then.
_RATING = {
    "user_stats": "UPDATE user_stats SET last_active_at = now() WHERE user_id = %(user)s",
    "idempotency_keys": "INSERT INTO idempotency_keys (user_id, key, fingerprint)"
    " VALUES (%(user)s, gen_random_uuid()::text, sha256('x'))",
    "review_log": "INSERT INTO review_log (user_id, flashcard_id, confidence_level, rated_at)"
    " VALUES (%(user)s, %(card)s, 3, now())",
    "user_card_progress": "INSERT INTO user_card_progress (user_id, flashcard_id, confidence_level, mastery_status,"
    " last_seen_at, next_review_at) VALUES (%(user)s, %(card)s, 3, %(status)s, now(), now())"
    " ON CONFLICT (user_id, flashcard_id) DO UPDATE"
    " SET mastery_status = excluded.mastery_status, last_seen_at = excluded.last_seen_at",
}
_TABLES = """
    SELECT string_agg(format('%I', relname), ', ')
      FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
"""


@dataclass(slots=True)
class _Client:
    """Does one thing over and over as the service does, and remembers its longest wait, and what was refused."""

    work: Callable[[Cursor, Random], None]
    longest: float = 0.0
    refused: int = 0
    failure: str = ""
    begun: Event = field(default_factory=Event)

    def run(self, url: str, stop: Event) -> None:
        random = Random(1)
        try:
            with closing(psycopg2.connect(url, options=_AS_THE_SERVICE)) as connection:
                connection.autocommit = True
                while not stop.is_set():
                    since = time.monotonic()
                    try:
                        with connection.cursor() as cursor:
                            self.work(cursor, random)
                    except (psycopg2.errors.QueryCanceled, psycopg2.errors.DeadlockDetected):
                        self.refused += 1
                    self.longest = max(self.longest, time.monotonic() - since)
                    self.begun.set()
                    stop.wait(_BETWEEN_SECONDS)
        except psycopg2.Error as error:
            self.failure = str(error).strip()
        finally:
            self.begun.set()


@dataclass(frozen=True, slots=True)
class Waits:
    """One file: how long it took, and the longest wait of each kind of client meanwhile, in seconds.

    `refused` are the requests that a deadline or a deadlock ended; a file that `failed` found no gap in the load:
    it was applied without.
    """

    name: str
    seconds: float
    rating: float
    reading: float
    signing_up: float
    refused: int
    failed: bool


def measure_migrations(rows: int, reader_seconds: float) -> list[Waits]:
    """Apply every migration from the fourth on under load, one by one.

    Args:
        rows: how many cards are rated, about.
        reader_seconds: how long a reader holds every table from the start of each file; 0 for no reader.

    Raises:
        CommandError: a client's statement failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "files").mkdir()
        with postgres_server(Path(folder) / "postgres", options=_POSTGRES) as server:
            return list(_measure(server.url, Path(folder) / "files", rows, reader_seconds))


def print_migrations(rows: int, reader_seconds: float) -> None:
    """Measure and print the table, and the longest wait of all."""
    waits = measure_migrations(rows, reader_seconds)
    lines = [
        (
            one.name,
            "not under load" if one.failed else f"{one.seconds:.1f}",
            *(f"{1000 * seconds:,.0f}" for seconds in (one.rating, one.reading, one.signing_up)),
            f"{one.refused:,}",
        )
        for one in waits
    ]
    print(as_text(HEADINGS, lines))
    longest = max(max(one.rating, one.reading, one.signing_up) for one in waits)
    print(f"the longest wait of a client: {longest:.2f} s ({rows:,} rated cards)")


def _measure(url: str, folder: Path, rows: int, reader_seconds: float) -> Iterator[Waits]:
    files = sorted(MIGRATIONS_FOLDER.rglob("*.sql"), key=lambda file: file.name)
    for file in files[:_OLDEST]:
        _copy(file, folder)
    migrate(url, folder)
    _fill(url, rows)
    for file in files[_OLDEST:]:
        _copy(file, folder)
        if file.read_text().startswith("-- baseline"):  # such a database has it already
            continue
        with _clients(url) as (rating, reading, signing_up), _reader(url, reader_seconds):
            started = time.monotonic()
            try:
                migrate(url, folder, wait_seconds=_WAIT_SECONDS)
                failed = False
            except MigrationError:
                failed = True
            seconds = time.monotonic() - started
        if failed:
            migrate(url, folder)
        yield Waits(
            file.name,
            seconds,
            rating.longest,
            reading.longest,
            signing_up.longest,
            refused=rating.refused + reading.refused + signing_up.refused,
            failed=failed,
        )


def _copy(file: Path, folder: Path) -> None:
    target = folder / file.relative_to(MIGRATIONS_FOLDER)
    target.parent.mkdir(exist_ok=True)
    shutil.copy(file, target)


def _fill(url: str, rows: int) -> None:
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(_FILL.format(users=max(1, rows // _CARDS_A_USER)))
        connection.commit()
        connection.autocommit = True
        cursor.execute("VACUUM ANALYZE")


@contextmanager
def _clients(url: str) -> Iterator[tuple[_Client, _Client, _Client]]:
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id::text FROM users LIMIT 500")
        users = [row[0] for row in cursor.fetchall()]
        cursor.execute("SELECT id::text FROM flashcards LIMIT 500")
        cards = [row[0] for row in cursor.fetchall()]
        cursor.execute("SELECT relname FROM pg_class WHERE relkind = 'r'")
        tables = {row[0] for row in cursor.fetchall()}
    rating = ";".join(statement for table, statement in _RATING.items() if table in tables)

    def rate(cursor: Cursor, random: Random) -> None:
        user_id, card_id = random.choice(users), random.choice(cards)
        parameters = {"user": user_id, "card": card_id, "status": random.choice(("new", "learning"))}
        cursor.execute(rating, parameters)  # one transaction

    def read(cursor: Cursor, random: Random) -> None:
        cursor.execute(
            "SELECT count(*) FROM user_card_progress JOIN user_stats USING (user_id) WHERE user_id = %s",
            (random.choice(users),),
        )

    def sign_up(cursor: Cursor, _random: Random) -> None:
        cursor.execute("INSERT INTO users (email) VALUES (gen_random_uuid() || '@example.com')")

    clients = _Client(rate), _Client(read), _Client(sign_up)
    stop = Event()
    threads = [Thread(target=client.run, args=(url, stop)) for client in clients]
    for thread in threads:
        thread.start()
    try:
        for client in clients:  # on a busy machine a thread may take longer to connect than a file to apply
            client.begun.wait()
        yield clients
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    for client in clients:
        if client.failure:
            raise CommandError(f"a client failed: {client.failure}")


@contextmanager
def _reader(url: str, seconds: float) -> Iterator[None]:
    """A reader of every table, as pg_dump is, from now on for so many seconds."""
    if not seconds:
        yield
        return
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(_TABLES)
        ((tables,),) = cursor.fetchall()
        cursor.execute(f"LOCK TABLE {tables} IN ACCESS SHARE MODE")

        def leave() -> None:
            time.sleep(seconds)
            connection.rollback()

        leaving = Thread(target=leave)
        leaving.start()
        try:
            yield
        finally:
            leaving.join()
