"""The command line's manners: exit codes, sentences instead of tracebacks, and quick answers."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from server import __version__
from server.development import EmbeddedServer
from tests.support.checkout import ROOT, Checkout, environment

COMPLETE = {
    "DATABASE_URL": "postgresql://u@127.0.0.1:1/d",
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "SECRET_KEY": "s" * 32,
}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout in which nothing runs."""
    return Checkout.copy(tmp_path_factory.mktemp("command-line"))


def assert_refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """It failed with a code and a sentence on stderr that has some words, and nothing else."""
    assert code == done.returncode, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def test_help_names_every_command(checkout: Checkout) -> None:
    """--help is the list of what one can do."""
    done = checkout.server("--help")
    assert 0 == done.returncode
    for command in (
        "dev",
        "serve",
        "migrate",
        "import",
        "export",
        "token",
        "limits",
        "users",
        "generate",
        "check-counters",
        "schema",
    ):
        assert re.search(rf"^    {command}\s", done.stdout, re.MULTILINE), command


def test_version_is_that_of_the_project(checkout: Checkout) -> None:
    """--version says what pyproject.toml says."""
    assert f"{__version__}\n" == checkout.server("--version").stdout
    assert f'version = "{__version__}"' in (ROOT / "pyproject.toml").read_text()


def test_help_imports_nothing_heavy() -> None:
    """Answers that need no server do not wait for one's libraries."""
    program = "import sys, server.__main__; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not {"aiohttp", "psycopg2", "redis", "structlog", "prometheus_client"} & set(done.stdout.split())


@pytest.mark.parametrize(
    "arguments",
    [(), ("unknown",), ("import",), ("token", "--role", "root"), ("limits",), ("limits", "show"),
     ("limits", "block", "user:1", "--seconds", "0"), ("dev", "extra")],
)  # fmt: skip
def test_bad_usage_is_two(checkout: Checkout, arguments: tuple[str, ...]) -> None:
    """What argparse refuses has exit code 2 and shows the usage."""
    assert_refused(checkout.forked(*arguments), 2, "usage: python -m server")


@pytest.mark.parametrize("command", ["dev", "serve"])
def test_every_problem_of_the_settings_is_reported_at_once(checkout: Checkout, command: str) -> None:
    """One start is enough to learn all that is wrong; nothing is started for it."""
    done = checkout.forked(command, **COMPLETE, PORT="many", LOG_LEVEL="loud", WEB_CONCURRENCY="0")
    assert_refused(done, 2, "PORT: 'many'", "LOG_LEVEL: 'loud'", "WEB_CONCURRENCY: '0'")
    assert 3 == len(done.stderr.splitlines())
    assert not (checkout.folder / ".state").exists()


def test_production_refuses_to_start_half_configured(checkout: Checkout) -> None:
    """Serve starts no servers of its own: it wants to be told, also when .env would."""
    (checkout.folder / ".env").write_text(f"SECRET_KEY={'s' * 32}\n")
    try:
        done = checkout.forked("serve")
    finally:
        (checkout.folder / ".env").unlink()
    assert_refused(done, 2, "DATABASE_URL is not set", "REDIS_URL is not set", "SECRET_KEY is not set")


@pytest.mark.parametrize(
    ("arguments", "variable"),
    [
        (("migrate",), "DATABASE_URL"),
        (("import", "config/sample-course"), "DATABASE_URL"),
        (("token",), "SECRET_KEY"),
        (("limits", "show", "ip:192.0.2.1"), "REDIS_URL"),
    ],
)
def test_commands_say_what_they_need(checkout: Checkout, arguments: tuple[str, ...], variable: str) -> None:
    """Only what the command needs is asked for, and that `make run` would provide it."""
    done = checkout.forked(*arguments)
    assert_refused(done, 2, f"{variable} is not set", "make run")
    assert 2 == len(done.stderr.splitlines())


def test_an_unreachable_database_is_a_failure(checkout: Checkout) -> None:
    """A refused connection is one sentence; of a release, which nobody watches, in a line of its log."""
    assert_refused(checkout.forked("migrate", **COMPLETE), 1, '"migrate.failed"', "refused")
    assert_refused(checkout.forked("import", "config/sample-course", **COMPLETE), 1, "mastery: ", "refused")


def test_an_unreachable_redis_is_a_failure(checkout: Checkout) -> None:
    """The same for the commands that ask Redis."""
    assert_refused(checkout.forked("limits", "show", "ip:192.0.2.1", **COMPLETE), 1, "REDIS_URL")


def test_a_missing_deck_is_named(checkout: Checkout) -> None:
    """A path that does not exist is the user's mistake, not ours."""
    assert_refused(checkout.forked("import", "no/such/deck.tsv", **COMPLETE), 1, "no/such/deck.tsv")


def test_a_state_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A read-only checkout, or here a file in the folder's place, is one sentence."""
    checkout = Checkout.copy(tmp_path)
    (checkout.folder / ".state").touch()
    assert_refused(checkout.server("dev"), 1, "can't write", ".state")


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    """Where nothing can be written any more, the error says what could not be."""
    checkout = Checkout.copy(tmp_path)
    done = subprocess.run(
        [checkout.python, "-m", "server", "dev"],
        cwd=checkout.folder,
        env=environment(PYTHONDONTWRITEBYTECODE="1"),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
    )
    assert_refused(done, 1, "can't write", "password", "File too large")


def test_results_are_on_stdout_and_logs_on_stderr(
    checkout: Checkout, shared_postgres: EmbeddedServer, shared_redis: EmbeddedServer
) -> None:
    """A script reads the results; the log lines of long work do not mix with them."""
    variables = {"DATABASE_URL": shared_postgres.url, "REDIS_URL": shared_redis.url}
    migrated = checkout.forked("migrate", **variables)
    assert 0 == migrated.returncode, migrated.stderr
    imported = checkout.forked("import", "config/sample-course", **variables)
    assert 0 == imported.returncode, imported.stderr
    assert "8 classes" in imported.stdout
    assert "0 of them with wrong counters" in checkout.forked("check-counters", **variables).stdout
    assert "import.finished" in [json.loads(line)["message"] for line in imported.stderr.splitlines()]


def test_nobody_reads_the_answer(checkout: Checkout) -> None:
    """`python -m server token | true` ends without a traceback."""
    command = f"{checkout.python} -m server token | true"
    done = checkout.run("sh", "-c", command, SECRET_KEY="s" * 32)
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


def test_deploy_04_a_bad_rate_limits_file_is_refused_before_anything_starts(
    checkout: Checkout, tmp_path: Path
) -> None:
    """`serve` names the line, exit code 2, and no worker was started to find out."""
    file = tmp_path / "limits.toml"
    file.write_text('[policies.one]\nlimit = "many"\n')
    done = checkout.forked("serve", **COMPLETE, RATE_LIMITS_FILE=str(file))
    assert_refused(done, 2, "RATE_LIMITS_FILE", "limits.toml:2")
    assert "gunicorn" not in done.stderr


def test_deploy_04_a_command_beside_production_logs_its_env(checkout: Checkout) -> None:
    """The `env` of its lines is the service's."""
    lines = checkout.forked("limits", "show", "ip:192.0.2.1", **COMPLETE).stderr.splitlines()
    logged = [json.loads(line) for line in lines if line.startswith("{")]
    assert {"production"} == {line["env"] for line in logged}
