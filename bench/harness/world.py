"""What every subject finds: a PostgreSQL with the sample course, a Redis, readers with tokens, a class to read."""

from __future__ import annotations

import contextlib
import secrets
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psycopg2
import structlog

from bench.harness.machine import Cores, on_cores
from server.cli.importing import import_path
from server.cli.migrations import migrate
from server.development import EmbeddedServer, postgres_server, redis_server
from server.domain.identity.tokens import AccessTokens, Caller
from server.settings import ROOT

# Below the checkout's ignored folder: installed peers stay for the next run, a run's own folder does not.
STATE = ROOT / ".state" / "bench"
_TOKEN_SECONDS = 24 * 3600
_POSTGRES_OPTIONS = ("max_connections=200",)
REDIS_OPTIONS = ('save ""', "appendonly no")


@dataclass(frozen=True, slots=True)
class World:
    """The surroundings of the subjects.

    Attributes:
        folder: for logs and files of this run.
        tokens: access tokens, one for each reader.
        class_id: of the class that everybody reads.
        cores: who runs where.
    """

    folder: Path
    cores: Cores
    redis: EmbeddedServer
    database_url: str
    secret_key: str
    tokens: tuple[str, ...]
    class_id: str

    @property
    def path(self) -> str:
        """What is asked for."""
        return f"/api/classes/{self.class_id}"


@contextlib.contextmanager
def world(
    *,
    readers: int,
    cores: Cores,
    redis_binary: Path | None = None,
    migrations: Path = ROOT / "sql" / "migrations",
) -> Iterator[World]:
    """The surroundings, for the length of the block; nothing of them is left after it.

    Args:
        readers: how many different users the requests come from.
        cores: who runs where.
        redis_binary: the redis-server to use; the embedded one by default.
        migrations: of the database; by default the present ones.
    """
    STATE.mkdir(parents=True, exist_ok=True)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    with tempfile.TemporaryDirectory(prefix="run-", dir=STATE) as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        with on_cores(cores.beside):
            postgres = stack.enter_context(postgres_server(folder / "postgres", options=_POSTGRES_OPTIONS))
            redis = stack.enter_context(
                redis_server(folder / "redis", binary=redis_binary, options=REDIS_OPTIONS)
            )
        migrate(postgres.url, migrations)
        yield furnish(folder, cores=cores, redis=redis, database_url=postgres.url, readers=readers)


def furnish(folder: Path, *, cores: Cores, redis: EmbeddedServer, database_url: str, readers: int) -> World:
    """The surroundings on servers that are running: the course and the readers are put into the migrated database."""
    import_path(database_url, ROOT / "config" / "sample-course", progress=False)
    secret_key = secrets.token_hex(32)
    issuer = AccessTokens(secret_key, lifetime_seconds=_TOKEN_SECONDS)
    return World(
        folder=folder,
        cores=cores,
        redis=redis,
        database_url=database_url,
        secret_key=secret_key,
        tokens=tuple(
            issuer.issue(Caller(user_id, "user")) for user_id in _add_readers(database_url, readers)
        ),
        class_id=_first_class(database_url),
    )


def _add_readers(database_url: str, number: int) -> list[uuid.UUID]:
    """Accounts that nobody can sign in to; a token is all they need."""
    ids = [uuid.uuid4() for _ in range(number)]
    with closing(psycopg2.connect(database_url)) as connection, connection, connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO users (id, email, password_hash, name, role) VALUES (%s::uuid, %s, '!', %s, 'user')",
            [(str(user_id), f"reader-{n}@example.com", f"Reader {n}") for n, user_id in enumerate(ids)],
        )
    return ids


def _first_class(database_url: str) -> str:
    with closing(psycopg2.connect(database_url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id FROM classes ORDER BY sort_order, name LIMIT 1")
        found = cursor.fetchone()
        assert found is not None, "the sample course has no classes"
        return str(found[0])


def cards_of(world: World) -> list[str]:
    """The ids of the cards of the class that everybody reads, in order."""
    with closing(psycopg2.connect(world.database_url)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT f.id FROM flashcards f JOIN decks d ON d.id = f.deck_id WHERE d.class_id = %s ORDER BY f.id",
            (world.class_id,),
        )
        return [str(card_id) for (card_id,) in cursor.fetchall()]
