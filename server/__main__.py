"""The command line: `python -m server --help`.

Exit codes: 0 for success (a service that was asked to stop and did, too), 1 for a failure, 2 for bad usage or
settings, 130 for a command cut short by Ctrl-C. What a command needs is imported when it runs: `--help` is fast.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from server import __version__
from server.cli.arguments import (
    add_export_arguments,
    add_import_arguments,
    add_limits_arguments,
    count,
    day,
    is_read_by_people,
    log_problems,
    seconds,
)
from server.errors import CommandError
from server.files import HOME, ROOT
from server.settings import Settings, SettingsError

OK, FAILURE, USAGE, INTERRUPTED = 0, 1, 2, 130

Command = Callable[[argparse.Namespace], None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; what went wrong is a sentence on stderr, or an event in a release."""
    options = build_parser().parse_args(arguments)
    command: Command = options.command
    complain = log_problems if command is _migrate and not is_read_by_people() else _complain
    try:
        command(options)
    except SettingsError as error:
        complain(*error.problems)
        return USAGE
    except CommandError as error:
        complain(str(error))
        return FAILURE
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # not even the last flush is read
        return FAILURE
    except OSError as error:
        complain(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return FAILURE
    except KeyboardInterrupt:
        complain("interrupted")
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

    serve = commands.add_parser("serve", help="serve with DATABASE_URL, REDIS_URL and SECRET_KEY set")
    serve.set_defaults(command=_serve)

    migrate = commands.add_parser("migrate", help="bring the database's schema up to date")
    migrate.add_argument(
        "--wait", type=seconds, default=300, metavar="SECONDS",
        help="how long to wait for a connection, a table in use or another migrate (300)",
    )  # fmt: skip
    migrate.set_defaults(command=_migrate)

    importing = commands.add_parser("import", help="load a deck file, or a tree of them (folder = class)")
    add_import_arguments(importing)
    importing.set_defaults(command=_import)

    exporting = commands.add_parser("export", help="write the course into a folder that import reads")
    add_export_arguments(exporting)
    exporting.set_defaults(command=_export)

    generate = commands.add_parser("generate", help="make up students and ratings, for load tests")
    generate.add_argument("--users", type=count, default=1000, help="how many students (1000)")
    generate.add_argument("--cards", type=count, default=2000, help="how many cards, in decks of 50 (2000)")
    generate.add_argument("--ratings", type=count, default=100_000, help="how many cards are rated (100000)")
    generate.add_argument("--seed", type=int, default=1, help="the same seed makes the same data (1)")
    generate.add_argument("--until", type=day, metavar="DATE", help="when it all ends (today)")
    generate.add_argument("--append", action="store_true", help="add to a database that has users already")
    generate.set_defaults(command=_generate)

    counters = commands.add_parser("check-counters", help="compare what is kept of each user with a recount")
    counters.add_argument("--repair", action="store_true", help="set right what differs")
    counters.set_defaults(command=_check_counters)

    _add_users(
        commands.add_parser("users", help="make, list and change accounts; the first admin is made here")
    )

    schema = commands.add_parser("schema", help="print the schema of the database, as sql/schema.sql is")
    schema.add_argument(
        "--from-migrations",
        action="store_true",
        help="of a database that has the migrations and nothing else",
    )
    schema.set_defaults(command=_schema)

    limits = commands.add_parser("limits", help="see and change what a client has used of its rate limits")
    add_limits_arguments(limits)
    limits.set_defaults(command=_limits)

    status = commands.add_parser("status", help="print how a running service is; fails if that is critical")
    status.add_argument("url", nargs="?", metavar="URL", help="where it answers (this machine, PORT)")
    status.set_defaults(command=_status)
    shown = commands.add_parser("settings", help="print what is in force, and where each value comes from")
    shown.set_defaults(command=_show_settings)
    token = commands.add_parser("token", help="print an access token of a demo account")
    token.add_argument("--role", choices=("user", "admin"), default="user", help="which of them (user)")
    token.set_defaults(command=_token)
    return parser


def _add_users(users: argparse.ArgumentParser) -> None:
    actions = users.add_subparsers(required=True, metavar="ACTION")

    def add(
        name: str, help_: str, *, who: str | None = "an e-mail address, or an id"
    ) -> argparse.ArgumentParser:
        action = actions.add_parser(name, help=help_)
        if who is not None:
            action.add_argument("who", metavar="EMAIL", help=who)
        action.set_defaults(command=_users, action=name)
        return action

    create = add("create", "make an account; asks for its password", who="its e-mail address")
    create.add_argument("--role", choices=("user", "admin"), default="user", help="what it may do (user)")
    create.add_argument("--name", help="how its owner is called")
    create.add_argument(
        "--password-stdin", action="store_true", help="the password is the first line of stdin"
    )
    listing = add("list", "print the accounts, newest first", who=None)
    listing.add_argument("--role", choices=("user", "admin"), help="only those with this role")
    listing.add_argument("--search", metavar="TEXT", help="only those with this in their address or name")
    add("set-role", "change what an account may do").add_argument("role", choices=("user", "admin"))
    plan = add("set-plan", "change which of the [plans] of the rate limits file an account has")
    plan.add_argument("plan", metavar="PLAN", help="its name; none for the default limits")
    add("deactivate", "sign an account out everywhere, and let it in no more")
    add("reactivate", "let an account in again")
    add("reset-password", "print a one-time token for POST /api/auth/reset")
    delete = add("delete", "delete an account with all that is its own; asks first")
    delete.add_argument("--yes", action="store_true", help="do not ask")


def _dev(options: argparse.Namespace) -> None:
    from server.cli.signals import StopRequested, stop_signals

    with stop_signals():
        try:
            from server.cli.environment import with_env_file
            from server.development.processes import end_with_parent
            from server.development.run import run_development

            if options.with_parent:
                end_with_parent(os.getppid())
            run_development(with_env_file(os.environ, HOME / ".env"), ROOT, __version__)
        except StopRequested:
            return


def _serve(_options: argparse.Namespace) -> None:
    from server.cli.environment import completed
    from server.cli.web import check_port, has_sockets, is_successor, serve

    environment = completed(os.environ, {"HOST": "0.0.0.0"})  # noqa: S104 - a platform's router is another machine
    settings = Settings.from_env(environment)
    if not is_successor(environment) and not has_sockets(environment):
        check_port(settings.host, settings.port, command="python -m server serve")
    os.environ.update(environment)
    serve(settings, ROOT)  # as gunicorn in the same process, so that the platform's signals reach it


def _migrate(options: argparse.Namespace) -> None:
    from server.cli.migrations import migrate

    def report(name: str, seconds: float) -> None:
        if is_read_by_people():  # a release's events say the same
            sys.stdout.write(f"{name}: applied in {seconds:.2f} s\n")
            sys.stdout.flush()

    past_pooler = _environment().get("MIGRATION_DATABASE_URL", "").strip()
    settings = _settings(*(() if past_pooler else ("DATABASE_URL",)))
    url = settings.migration_database_url or settings.database_url
    applied = migrate(url, ROOT / "sql" / "migrations", on_applied=report, wait_seconds=options.wait)
    if not applied and is_read_by_people():
        sys.stdout.write("nothing to do: the schema is up to date\n")


def _export(options: argparse.Namespace) -> None:
    from server.cli.exporting import export_course

    settings = _settings("DATABASE_URL")
    report = export_course(settings.database_url, options.path, options.format, class_name=options.class_name)
    for warning in report.warnings:
        _complain(warning)
    sys.stdout.write(f"{report.classes} classes, {report.decks} decks, {report.cards} cards\n")


def _import(options: argparse.Namespace) -> None:
    from server.cli.database import tell_readers
    from server.cli.importing import import_path, options_of

    how = options_of(options)
    settings = _settings("DATABASE_URL")
    report = import_path(settings.database_url, options.path, how)
    sys.stdout.write("".join(f"{line}\n" for line in report.lines(is_dry_run=options.dry_run)))
    _complain(*(f"{name}: {warning}" for name, seen in report.seen.items() for warning in seen.warnings))
    if not tell_readers(settings, report.stale):
        _complain(
            f"Redis does not answer: readers may see the course as it was for {settings.cache_ttl_seconds} s"
        )


def _generate(options: argparse.Namespace) -> None:
    from server.cli.generating import generate

    report = generate(
        _settings("DATABASE_URL").database_url,
        users=options.users,
        cards=options.cards,
        ratings=options.ratings,
        seed=options.seed,
        until=options.until,
        append=options.append,
    )
    sys.stdout.write(
        f"{report.users} users, {report.cards} cards, {report.ratings} cards rated, "
        f"{report.sessions} sessions\n"
    )


def _check_counters(options: argparse.Namespace) -> None:
    from server.cli.counters import check_counters

    report = check_counters(_settings("DATABASE_URL").database_url, repair=options.repair)
    for example in report.examples:
        sys.stdout.write(f"{example}\n")
    if report.differences > len(report.examples):
        sys.stdout.write(f"… and {report.differences - len(report.examples)} more\n")
    found = f"{report.users} users, {report.wrong_users} of them with wrong counters"
    if report.differences and not options.repair:
        raise CommandError(f"{found}; check-counters --repair sets them right")
    sys.stdout.write(f"{found}{', set right' if report.differences else ''}\n")


def _schema(options: argparse.Namespace) -> None:
    from server.cli.schema_page import read_schema

    settings = _settings(*(() if options.from_migrations else ("DATABASE_URL",)))
    if not options.from_migrations:
        sys.stdout.write(read_schema(settings.database_url))
        return
    import tempfile

    from server.cli.migrations import migrate
    from server.development.servers import postgres_server

    with (
        tempfile.TemporaryDirectory() as folder,
        postgres_server(Path(folder) / "postgres", options=("fsync=off",)) as server,
    ):
        migrate(server.url)
        sys.stdout.write(read_schema(server.url))


def _users(options: argparse.Namespace) -> None:
    from server.cli import users

    # Audit events are the purpose of these lines: they are written on a terminal, too.
    settings = _settings("DATABASE_URL", log_level="info")
    if options.action == "list":
        users.list_all_users(
            settings,
            role=options.role,
            text=options.search,
            write=lambda line: sys.stdout.write(f"{line}\n"),
        )
    elif options.action == "create":
        password = _new_password(from_stdin=options.password_stdin)
        made = users.create_user(
            settings, options.who, password=password, name=options.name, role=options.role
        )
        sys.stdout.write(f"{made}\n")
    elif options.action == "reset-password":
        token, expires_at = users.reset_password(settings, options.who)
        sys.stdout.write(f"POST /api/auth/reset takes this token once, until {expires_at}:\n{token}\n")
    elif options.action == "delete":
        if not options.yes:
            _confirm(f"Delete {options.who} and all that is its own?")
        if not users.delete_account(settings, options.who):
            _complain("Redis does not answer: what it holds of the account ends with its time to live")
        sys.stdout.write(f"{options.who}: deleted\n")
    else:
        sys.stdout.write(f"{_change_user(options, settings)}\n")


def _change_user(options: argparse.Namespace, settings: Settings) -> str:
    from server.cli import users

    if options.action == "set-role":
        return users.change_user(settings, options.who, role=options.role)
    if options.action == "set-plan":
        plan = None if options.plan == "none" else options.plan
        changed = users.change_user(settings, options.who, plan=plan)
        if plan is not None and not users.knows_plan(settings, plan):
            _complain(f"{settings.rate_limits_file} has no limits for the plan {plan}: the default ones hold")
        return changed
    return users.change_user(settings, options.who, is_deactivated=options.action == "deactivate")


def _new_password(*, from_stdin: bool) -> str:
    import getpass

    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise SettingsError(["a password is asked for on a terminal; elsewhere --password-stdin reads it"])
    password = getpass.getpass("Password: ")
    if getpass.getpass("The same again: ") != password:
        raise CommandError("the passwords differ; nothing was made")
    return password


def _confirm(question: str) -> None:
    if not sys.stdin.isatty():
        raise SettingsError(["a deletion is confirmed on a terminal; elsewhere --yes does it"])
    if input(f"{question} [y/N] ").strip().lower() not in {"y", "yes"}:
        raise CommandError("nothing was deleted")


def _limits(options: argparse.Namespace) -> None:
    from server.cli.limits import run_limits

    sys.stdout.write(f"{run_limits(_settings('REDIS_URL'), options)}\n")


def _status(options: argparse.Namespace) -> None:
    from server.cli.status import fetch_status, is_this_machine
    from server.cli.users import demo_token
    from server.cli.web import local_url

    settings = _settings(*(() if os.environ.get("METRICS_TOKEN") else ("SECRET_KEY",)))
    address = options.url or local_url(settings.host, settings.port)
    if settings.metrics_token is None and not is_this_machine(address):
        raise CommandError(f"METRICS_TOKEN is not set: {address} asks for its own")
    token = settings.metrics_token or demo_token(settings, "admin")
    status = fetch_status(address, token, colours=sys.stdout.isatty())
    sys.stdout.write(f"{status.text}\n")
    sys.stdout.flush()
    if status.critical:
        raise CommandError(f"critical: {', '.join(status.critical)}")


def _token(options: argparse.Namespace) -> None:
    from server.cli.environment import StateFolder, is_development
    from server.cli.users import demo_token

    settings = _settings("SECRET_KEY")
    if not is_development(_environment(), StateFolder(HOME / ".state")):
        raise CommandError(
            "token is for development: the demo accounts exist only where `make run` has made them (MASTERY_ENV="
            "development says that this is such a place). `users create EMAIL --role admin` makes an account, and "
            "POST /api/auth/login gives its tokens"
        )
    token = demo_token(settings, options.role)
    sys.stdout.write(f"{token}\n")


def _environment() -> dict[str, str]:
    """The environment of a command beside the service."""
    from server.cli.environment import StateFolder, beside_development, with_env_file

    return beside_development(with_env_file(os.environ, HOME / ".env"), StateFolder(HOME / ".state"))


def _settings(*needed: str, log_level: str | None = None) -> Settings:
    """The settings of a command beside the service; what it does not need may be missing. Logs go to stderr.

    On a terminal only warnings are logged, as a person reads the results instead, unless `log_level` says otherwise.
    """
    from server.cli.environment import completed
    from server.telemetry.logs.setup import configure_logging

    environment = _environment()
    unused = {
        "DATABASE_URL": "postgresql://unused",
        "REDIS_URL": "redis://unused",
        "SECRET_KEY": "unused" * 8,
        "LOG_LEVEL": log_level or ("warning" if sys.stderr.isatty() else "info"),
    }
    for variable in needed:
        unused.pop(variable)
    if environment.get("LOG_CLIENT_IP", "").strip().lower() == "hashed":
        if not environment.get("SECRET_KEY", "").strip():
            raise SettingsError(
                ["SECRET_KEY is not set: with LOG_CLIENT_IP=hashed, commands log with the service's own key"]
            )
        unused.pop("SECRET_KEY", None)
    try:
        settings = Settings.from_env(completed(environment, unused))
    except SettingsError as error:
        if all(environment.get(variable, "").strip() for variable in needed):
            raise
        raise SettingsError(
            [*error.problems, "or start `make run` in this checkout; its servers are used then"]
        ) from None
    configure_logging(**settings.logging, version=__version__, descriptor=sys.stderr.fileno())
    return settings


def _show_settings(_options: argparse.Namespace) -> None:
    from server.cli.environment import shown_settings

    text, problems = shown_settings(os.environ, HOME)
    sys.stdout.write(text)
    if problems:
        raise SettingsError(problems)


def _complain(*problems: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may be closed
        for problem in problems:
            sys.stderr.write(f"mastery: {problem}\n")


if __name__ == "__main__":
    gc.set_threshold(
        10_000, 50, 100
    )  # what is imported stays: to look for cycles in it took a sixth of a start
    code = main()
    gc.freeze()  # or the interpreter would look through all that was imported once more, and then end
    sys.exit(code)
