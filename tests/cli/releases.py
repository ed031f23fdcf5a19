"""Release processes, and the folders of migrations that they apply."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from tests.stores.postgres.databases import ask

RUN = "import sys; from pathlib import Path; from server.cli.migrations import migrate; "
TABLES = (
    "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1"
)
NEVER = "SELECT pg_sleep(600)"


def write(folder: Path, **files: str) -> Path:
    """Put files into a folder: `m0001_words="SQL"` becomes 0001_words.sql."""
    for name, sql in files.items():
        (folder / f"{name.removeprefix('m')}.sql").write_text(sql)
    return folder


def start_migrate(url: str, folder: Path) -> subprocess.Popen[str]:
    """A release process of its own."""
    command = [sys.executable, "-c", RUN + "print(migrate(sys.argv[1], Path(sys.argv[2])))", url, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def migrate_at_once(url: str, folder: Path, processes: int) -> list[str]:
    """What so many release processes have applied between them; none of them may fail."""
    releases = [start_migrate(url, folder) for _ in range(processes)]
    outputs = [release.communicate(timeout=120) for release in releases]
    assert [0] * processes == [release.returncode for release in releases], outputs
    return sorted(name for output, _ in outputs for name in ast.literal_eval(output.strip().splitlines()[-1]))


def tables(url: str) -> list[str]:
    return [name for (name,) in ask(url, TABLES)]


def runs(url: str, statement: str) -> bool:
    """Whether another session is at a statement with these words."""
    rows = ask(url, "SELECT query FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND state = 'active'")
    return any(statement in query for (query,) in rows)
