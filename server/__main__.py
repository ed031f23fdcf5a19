"""The command line: `python -m server --help`.

Exit codes: 0 for success (a service that was asked to stop and did, too), 1 for a failure, 2 for bad usage or
settings, 130 for a command cut short by Ctrl-C. What a command needs is imported when it runs, so that
`--help` and mistakes answer at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from server import __version__
from server.settings import ROOT, Settings, SettingsError
from server.tools.failures import CommandError

OK, FAILURE, USAGE, INTERRUPTED = 0, 1, 2, 130

Command = Callable[[argparse.Namespace], None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; what went wrong is a sentence on stderr."""
    options = build_parser().parse_args(arguments)
    command: Command = options.command
    try:
        command(options)
    except SettingsError as error:
        _complain(*error.problems)
        return USAGE
    except CommandError as error:
        _complain(str(error))
        return FAILURE
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # not even the last flush is read
        return FAILURE
    except OSError as error:
        _complain(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return FAILURE
    except KeyboardInterrupt:
        _complain("interrupted")
        return INTERRUPTED
    return OK


def build_parser() -> argparse.ArgumentParser:
    """Every command with its arguments, and the function that runs it as `command`."""
    parser = argparse.ArgumentParser(
        prog="python -m server",
        description="Mastery, the backend of a flashcard study service.",
        epilog="Settings come from the environment and from a .env file; the README lists them. Beside a "
        "running `make run`, the commands use its servers.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    dev = commands.add_parser("dev", help="serve on this machine, with PostgreSQL and Redis of its own")
    dev.add_argument("--with-parent", action="store_true", help="stop when the calling process ends, too")
    dev.set_defaults(command=_dev)

    serve = commands.add_parser(
        "serve", help="serve in production: DATABASE_URL, REDIS_URL and SECRET_KEY are set"
    )
    serve.set_defaults(command=_serve)

    migrate = commands.add_parser("migrate", help="bring the database's schema up to date")
    migrate.set_defaults(command=_migrate)

    importing = commands.add_parser("import", help="load a deck file, or a tree of them (folder = class)")
    importing.add_argument("path", type=Path, metavar="PATH", help="a .tsv, .csv or .json file, or a folder")
    importing.set_defaults(command=_import)

    token = commands.add_parser("token", help="print an access token of a demo account")
    token.add_argument("--role", choices=("user", "admin"), default="user", help="which of them (user)")
    token.set_defaults(command=_token)
    return parser


def _dev(options: argparse.Namespace) -> None:
    from server.tools.signals import StopRequested, stop_signals

    with stop_signals():
        try:
            from server.tools.development import run_development
            from server.tools.environment import with_env_file
            from server.tools.processes import end_with_parent

            if options.with_parent:
                end_with_parent(os.getppid())
            run_development(with_env_file(os.environ, ROOT / ".env"), ROOT, __version__)
        except StopRequested:
            return


def _serve(_options: argparse.Namespace) -> None:
    from server.tools.environment import completed
    from server.tools.web import gunicorn_command

    environment = completed(os.environ, {"HOST": "0.0.0.0"})  # noqa: S104 - a platform's router is another machine
    Settings.from_env(environment)
    # The same process goes on as gunicorn, so that the platform's signals reach it.
    os.execve(sys.executable, gunicorn_command(ROOT), environment)  # noqa: S606 - a list, without a shell


def _migrate(_options: argparse.Namespace) -> None:
    from server.tools.migrations import migrate

    for name in migrate(_settings("DATABASE_URL").database_url, ROOT / "sql" / "migrations"):
        sys.stdout.write(f"applied {name}\n")


def _import(options: argparse.Namespace) -> None:
    from server.tools.importing import import_path

    import_path(_settings("DATABASE_URL").database_url, options.path)


def _token(options: argparse.Namespace) -> None:
    from server.tools.accounts import demo_token

    token = demo_token(_settings("DATABASE_URL", "SECRET_KEY"), options.role)
    sys.stdout.write(f"{token}\n")


def _settings(*needed: str) -> Settings:
    """The settings of a command beside the service; what it does not need may be missing."""
    from server.tools.environment import beside_development, completed, with_env_file
    from server.tools.state import StateFolder

    environment = beside_development(with_env_file(os.environ, ROOT / ".env"), StateFolder(ROOT / ".state"))
    unused = {
        "DATABASE_URL": "postgresql://unused",
        "REDIS_URL": "redis://unused",
        "SECRET_KEY": "unused" * 8,
    }
    for variable in needed:
        unused.pop(variable)
    return Settings.from_env(completed(environment, unused))


def _complain(*problems: str) -> None:
    for problem in problems:
        sys.stderr.write(f"mastery: {problem}\n")


if __name__ == "__main__":
    sys.exit(main())
