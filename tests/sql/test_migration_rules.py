"""Migrations that have landed stay as they are; new ones neither rewrite nor lock a large table."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from server.cli.migration_files import MIGRATIONS_FOLDER, Migration, read_migrations
from tests.sql.migration_rules import find_violations

LANDED = Path(__file__).with_name("landed_migrations.sha256")
# The files before were written without the rules, and nobody's database has more of them to come.
FIRST_RULED = 11


def migration(name: str, source: str) -> Migration:
    return Migration(name, source, "")


def test_deploy_14_landed_migrations_are_never_edited() -> None:
    """Each file has the digest it landed with; a new one is added to the list in the commit that adds it."""
    landed = {name: digest for digest, name in map(str.split, LANDED.read_text().splitlines())}
    present = {one.name: one.sha256 for one in read_migrations()}
    missing = [f"{present[name]}  {name}" for name in present.keys() - landed.keys()]
    assert [] == missing, f"add to {LANDED.name}: {missing}"
    assert landed == present, "a landed migration was edited or is gone: restore it, and add a new file"


def test_deploy_14_the_digests_are_those_of_the_files() -> None:
    """`sha256sum -c` agrees with the list: it is not a digest of something else."""
    for line in LANDED.read_text().splitlines():
        digest, name = line.split("  ")
        (path,) = MIGRATIONS_FOLDER.rglob(name)
        content = path.read_bytes().replace(b"\r\n", b"\n")
        assert digest == hashlib.sha256(content).hexdigest()


def test_deploy_13_new_migrations_stop_nobody() -> None:
    """No file from 0011 on does what locks or rewrites a large table."""
    assert [] == find_violations(read_migrations(), begin=FIRST_RULED)


def test_deploy_13_the_rules_find_what_blocked_sign_ups() -> None:
    """Judged by the same rules, the files that stopped readers and sign-ups are refused."""
    found = "\n".join(find_violations(read_migrations(), begin=1))
    for name in ("0002_performance_indexes", "0004_counters_by_deck", "0006_fsrs", "0007_active_days"):
        assert f"{name}.sql, line " in found


REFUSED = [
    ("ALTER TABLE users ALTER COLUMN name TYPE varchar(255)", "another type"),
    ("ALTER TABLE users ALTER name SET DATA TYPE varchar(255)", "another type"),
    ("ALTER TABLE users ADD COLUMN a uuid DEFAULT gen_random_uuid()", "rewrites the table"),
    ("ALTER TABLE users ADD a timestamptz DEFAULT clock_timestamp()", "rewrites the table"),
    ("ALTER TABLE users ADD COLUMN a text DEFAULT 'x' || random()", "rewrites the table"),
    ("ALTER TABLE users ADD COLUMN a bigserial", "rewrites the table"),
    ("ALTER TABLE users ADD COLUMN a int GENERATED ALWAYS AS (1) STORED", "rewrites the table"),
    ("ALTER TABLE users ADD COLUMN a int NOT NULL", "does not fill it"),
    ("ALTER TABLE users ADD COLUMN a int DEFAULT 0, ADD COLUMN b int NOT NULL", "does not fill it"),
    ("ALTER TABLE users ADD COLUMN a uuid REFERENCES decks", "a constraint on a new column"),
    ("ALTER TABLE users ADD COLUMN a int UNIQUE", "a constraint on a new column"),
    ("ALTER TABLE users ALTER COLUMN name SET NOT NULL", "SET NOT NULL scans"),
    ("ALTER TABLE users ADD CONSTRAINT a CHECK (length(name) < 9)", "ADD CONSTRAINT scans"),
    ("ALTER TABLE users ADD CHECK (length(name) < 9)", "ADD CONSTRAINT scans"),
    ("ALTER TABLE users ADD CONSTRAINT a UNIQUE (name)", "ADD CONSTRAINT scans"),
    ("ALTER TABLE users ADD PRIMARY KEY (name)", "ADD CONSTRAINT scans"),
    ("ALTER TABLE users ADD CONSTRAINT a FOREIGN KEY (name) REFERENCES decks", "ADD CONSTRAINT scans"),
    ("SELECT 1;\nALTER TABLE users VALIDATE CONSTRAINT a", "VALIDATE CONSTRAINT scans"),
    ("ALTER TABLE users DROP COLUMN name", "the release before"),
    ("ALTER TABLE users DROP name", "the release before"),
    ("ALTER TABLE users RENAME COLUMN name TO title", "the release before"),
    ("ALTER TABLE users RENAME TO people", "the release before"),
    ("ALTER TABLE users SET TABLESPACE fast", "not known to be harmless"),
    ("ALTER TABLE users SET UNLOGGED", "not known to be harmless"),
    ("CREATE INDEX a ON users (name)", "CREATE INDEX blocks"),
    ("create unique index if not exists a on public.users using btree (name)", "CREATE INDEX blocks"),
    ("CREATE INDEX ON users (name)", "CREATE INDEX blocks"),
    ("CREATE INDEX CONCURRENTLY a ON users (name)", "CONCURRENTLY can't run in a transaction"),
    ("DROP INDEX a", "DROP INDEX waits"),
    ("REINDEX TABLE users", "REINDEX blocks"),
    ("UPDATE users SET name = 'x'", "a write to a whole table"),
    ("DELETE FROM users", "a write to a whole table"),
    ("DELETE FROM users WHERE name IS NULL", "a write to a whole table"),
    ("INSERT INTO bookmarks SELECT id, id FROM users", "a write to a whole table"),
    ("CREATE TABLE a (x int);\nINSERT INTO a SELECT 1 FROM users", "filled from another one"),
    ("CREATE TABLE a AS SELECT * FROM users", "reads a whole table"),
    ("WITH a AS (SELECT 1) UPDATE users SET name = 'x'", "not known to be harmless"),
    ("DO $$ BEGIN UPDATE users SET name = 'x'; END $$", "not known to be harmless"),
    ("SELECT repair_everything()", "not known to be harmless"),
    ("TRUNCATE users", "not known to be harmless"),
    ("LOCK TABLE users", "not known to be harmless"),
    ("VACUUM FULL users", "not known to be harmless"),
    ("CLUSTER users USING a", "not known to be harmless"),
    ("DROP TABLE users", "not known to be harmless"),
    ("REFRESH MATERIALIZED VIEW a", "not known to be harmless"),
    ("-- batched\nUPDATE users SET name = 'x'", "a batched statement writes a part"),
    ("-- no-transaction\nDROP INDEX CONCURRENTLY a", "an interrupted run repeats"),
    ("-- no-transaction\nALTER TABLE users ADD COLUMN a int", "an interrupted run repeats"),
    ("-- batched\nSELECT 1", "a batched statement writes a part"),
]


@pytest.mark.parametrize(("source", "words"), REFUSED, ids=[source for source, _ in REFUSED])
def test_deploy_13_what_stops_the_service_is_refused(source: str, words: str) -> None:
    """Each way to rewrite, scan or lock a large table is named, with its place."""
    found = find_violations([migration("0011_a.sql", source)], begin=FIRST_RULED)
    assert any(words in one and one.startswith("0011_a.sql, line ") for one in found), found
    assert [] == find_violations([migration("0010_a.sql", source)], begin=FIRST_RULED)


ALLOWED = [
    "CREATE TABLE a (x int PRIMARY KEY);\nCREATE INDEX a_x ON a (x);\nINSERT INTO a VALUES (1)",
    "CREATE TABLE a (x int PRIMARY KEY);\nALTER TABLE a ADD CHECK (x > 0);",
    "ALTER TABLE users ADD COLUMN a text, ADD b text[] NOT NULL DEFAULT '{}', ADD COLUMN c int DEFAULT 0",
    "ALTER TABLE users ADD COLUMN a timestamptz NOT NULL DEFAULT now()",
    "ALTER TABLE users ALTER COLUMN name SET DEFAULT 'x', ALTER email DROP NOT NULL, DROP CONSTRAINT a",
    "ALTER TABLE users ADD CONSTRAINT a CHECK (length(name) < 9) NOT VALID",
    "ALTER TABLE users ADD CONSTRAINT a UNIQUE USING INDEX a_b",
    "ALTER TABLE users VALIDATE CONSTRAINT a",
    "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE users SET name = 'x'; END $$",
    "CREATE TRIGGER t AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION f()",
    "-- no-transaction\nCREATE INDEX CONCURRENTLY a ON users (name);\nDROP INDEX CONCURRENTLY IF EXISTS b",
    "-- no-transaction\nALTER TABLE users ADD COLUMN IF NOT EXISTS a int",
    "-- no-transaction\nALTER TABLE users VALIDATE CONSTRAINT a;\nALTER TABLE users VALIDATE CONSTRAINT b",
    "-- batched\nUPDATE users SET name = 'x' WHERE id IN (SELECT id FROM users WHERE name IS NULL LIMIT 500)",
]


@pytest.mark.parametrize("source", ALLOWED)
def test_deploy_13_what_the_service_does_not_notice_is_allowed(source: str) -> None:
    """The rules leave a way for everything."""
    assert [] == find_violations([migration("0011_a.sql", source)], begin=FIRST_RULED)


def test_deploy_13_not_null_after_a_validated_check() -> None:
    """SET NOT NULL scans nothing where a check is validated already, and is refused where it is not yet."""
    steps = [
        "ALTER TABLE users ADD CONSTRAINT has_name CHECK (name IS NOT NULL) NOT VALID",
        "ALTER TABLE users VALIDATE CONSTRAINT has_name",
        "ALTER TABLE users ALTER COLUMN name SET NOT NULL, DROP CONSTRAINT has_name",
    ]
    files = [migration(f"{number:04}_a.sql", step) for number, step in enumerate(steps, start=11)]
    assert [] == find_violations(files, begin=FIRST_RULED)
    assert 1 == len(find_violations([files[0], files[2]], begin=FIRST_RULED))
