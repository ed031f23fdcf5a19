"""`python -m bench`: every measurement, as `make bench` runs it; with a part's name, that part alone."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from bench import rating, scaling
from bench.connections import print_connections
from bench.harness.load import LoadFailed
from bench.harness.machine import is_optimised, node_build, python_build
from bench.harness.report import PAGE, chart, fill_page
from bench.harness.results import (
    CHART,
    INSTRUCTIONS,
    RESULTS,
    Document,
    check_goals,
    read_document,
    write_document,
)
from bench.harness.scenarios import CONNECTIONS
from bench.harness.table import as_text
from bench.instructions import measure
from bench.limiter.counting import print_script_instructions
from bench.limiter.run import installed_servers
from bench.log_volume import print_log_volume
from bench.logins import print_logins
from bench.migrations import print_migrations
from bench.profile import measure_profile
from bench.restarts import print_restarts
from bench.service import READERS, ROWS, Plan, compare, measure_everything, print_growth, say
from bench.slow_readers import print_slow_readers
from bench.starts import print_starts
from bench.workers import print_workers
from server.cli.signals import StopRequested, stop_signals
from server.errors import CommandError

_PUBLISHED_ROUNDS = 5


def main() -> int:
    """Run what the command line asks for; 1 with a sentence on stderr if it fails, 130 if it is stopped."""
    options = build_parser().parse_args()
    try:
        with stop_signals():
            run: Callable[[argparse.Namespace], None] = options.run
            run(options)
    except (CommandError, LoadFailed) as error:
        say(f"bench: {error}")
        return 1
    except StopRequested:
        say("bench: stopped")
        return 130
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The parts and their options."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.set_defaults(run=_everything)
    load = argparse.ArgumentParser(add_help=False)
    load.add_argument("--rounds", type=int, default=5, help="interleaved rounds (5)")
    load.add_argument("--seconds", type=float, default=3.0, help="of load in each (3)")
    load.add_argument("--connections", type=int, default=64, help="of the load generator (64)")
    load.add_argument("--readers", type=int, default=READERS, help=f"users who ask ({READERS})")
    load.add_argument("--generator", choices=("wrk", "ours"), help="of the load; wrk where there is one")
    parts = parser.add_subparsers(metavar="PART")
    everything = parts.add_parser("all", parents=[load], help="everything (the default)")
    everything.add_argument("--soak", type=float, default=0.0, help="also a load of so many seconds (600)")
    everything.add_argument("--keys", type=int, default=1_000_000, help="clients in the sweep (1000000)")
    everything.set_defaults(run=_everything)
    comparison = parts.add_parser("service", parents=[load], help="the comparison alone; nothing is written")
    comparison.add_argument("--only", type=_rows, default=ROWS, help="some of " + ",".join(ROWS))
    comparison.set_defaults(run=lambda options: compare(_plan(options)))
    _add_counting(parts)
    _add_script(parts)
    migrating = parts.add_parser("migrations", help="how long clients wait while each migration runs")
    migrating.add_argument("--rows", type=int, default=1_000_000, help="cards that are rated (1000000)")
    migrating.add_argument(
        "--reader", type=float, default=5.0, help="seconds of a reader such as pg_dump (5)"
    )
    migrating.set_defaults(run=lambda options: print_migrations(options.rows, options.reader))
    logins = parts.add_parser("logins", help="an honest login and /livez behind a crowd of guessers")
    logins.add_argument("--guessers", type=int, default=60, help="addresses that guess at once (60)")
    logins.set_defaults(run=lambda options: print_logins(options.guessers))
    restarting = parts.add_parser("restarts", help="what clients notice of SIGHUP and SIGUSR2")
    restarting.set_defaults(run=lambda _options: print_restarts())
    _add_start(parts)
    _add_growth(parts)
    working = parts.add_parser("workers", help="whether two workers carry twice as much as one")
    working.add_argument("--rounds", type=int, default=5, help="interleaved rounds (5)")
    working.add_argument("--seconds", type=float, default=3.0, help="of load in each (3)")
    working.set_defaults(run=lambda options: print_workers(options.rounds, options.seconds))
    volume = parts.add_parser("log-volume", help="bytes of the log for a request, in each format")
    volume.add_argument("--students", type=int, default=50, help="who study (50)")
    volume.set_defaults(run=lambda options: print_log_volume(options.students))
    _add_connections(parts)
    _add_rating(parts)
    _add_scaling(parts)
    unread = parts.add_parser("slow-readers", help="a worker's memory with clients that do not read")
    unread.add_argument("--readers", type=int, default=100, help="that do not (100)")
    unread.add_argument("--megabytes", type=float, default=4.0, help="of each answer (4)")
    unread.set_defaults(run=lambda options: print_slow_readers(options.readers, options.megabytes))
    report = parts.add_parser("report", help="fill docs/performance.md from the latest results")
    report.set_defaults(run=lambda _options: _report())
    return parser


def _count(options: argparse.Namespace) -> None:
    if options.write:
        _require_optimised()
    found = measure_profile() if options.profile else measure(options.requests, only=options.only)
    if options.write:
        before = read_document(INSTRUCTIONS) if INSTRUCTIONS.exists() else {}
        write_document({**before, **found}, INSTRUCTIONS)
        _report()


def _require_optimised() -> None:
    """Refuse to publish what an interpreter takes that nobody should deploy.

    Raises:
        CommandError: this interpreter was built without optimisation.
    """
    say(f"Python {python_build()}; Node {node_build() or 'is not there'}")
    if not is_optimised():
        raise CommandError(
            "this Python was built without profile-guided optimisation, so its figures are not published; "
            "take another: make clean, then make bench PYTHON=/usr/bin/python3 (Debian's, for example), "
            "or measure without publishing: .venv/bin/python -m bench service"
        )


def _add_rating(parts: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    part = parts.add_parser("rating", help="what a rating costs, beside a cached read")
    part.add_argument("--rounds", type=int, default=5, help="interleaved rounds (5)")
    part.add_argument("--seconds", type=float, default=5.0, help="of load in each (5)")
    part.add_argument("--connections", type=int, default=32, help="of the load generator (32)")
    part.add_argument("--against", type=Path, metavar="FOLDER", help="another checkout, measured in turn")
    part.add_argument("--write", action="store_true", help="measure beside the peers, and write the page")
    part.set_defaults(run=_ratings)


def _ratings(options: argparse.Namespace) -> None:
    plan = rating.Plan(rounds=options.rounds, seconds=options.seconds, connections=options.connections)
    if not options.write:
        rating.print_ratings(plan, against=options.against)
        return
    _require_optimised()
    document = {**read_document(), "ratings": rating.measure_beside_peers(plan)}
    write_document(document, RESULTS)
    _report()


def _add_growth(parts: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    part = parts.add_parser("growth", help="the service under more and more connections; nothing is written")
    part.add_argument("--seconds", type=float, default=5.0, help="of load for each number (5)")
    part.add_argument("--rounds", type=int, default=3, help="of which the medians are shown (3)")
    part.add_argument(
        "--connections", type=_counts, default=CONNECTIONS, help=",".join(map(str, CONNECTIONS))
    )
    part.set_defaults(run=lambda options: print_growth(options.connections, options.rounds, options.seconds))


def _counts(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _add_start(parts: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    part = parts.add_parser("start", help="one worker from its command to its first answer, step by step")
    part.add_argument("--times", type=int, default=7, help="starts, of which the medians are shown (7)")
    part.set_defaults(run=lambda options: print_starts(options.times))


def _add_connections(parts: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    crowd = parts.add_parser(
        "connections", help="many kept connections, then one user who writes without end"
    )
    crowd.add_argument("--connections", type=int, default=2000, help="of readers, a user each (2000)")
    crowd.add_argument("--seconds", type=float, default=90.0, help="for which they read (90)")
    crowd.add_argument("--per-second", type=float, default=300.0, help="how often they ask together (300)")
    crowd.add_argument("--writers", type=int, default=500, help="connections of the one user (500)")
    crowd.set_defaults(
        run=lambda options: print_connections(
            options.connections, options.seconds, options.per_second, options.writers
        )
    )


def _add_scaling(parts: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    larger = parts.add_parser(
        "scaling", help="what a request costs each part of a deployment, and what many need"
    )
    larger.add_argument("--rounds", type=int, default=3, help="interleaved rounds (3)")
    larger.add_argument("--students", type=int, default=40, help="whose evenings make a round (40)")
    larger.add_argument("--write", action="store_true", help="publish the tables of docs/scaling.md")
    larger.set_defaults(run=_scale)


def _scale(options: argparse.Namespace) -> None:
    if options.write:
        _require_optimised()
    document = scaling.measure(scaling.Plan(rounds=options.rounds, students=options.students))
    if options.write:
        scaling.write(document)


def _add_counting(parts: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    counting = parts.add_parser(
        "instructions", help="instructions of a request, by valgrind; nothing is written without --write"
    )
    counting.add_argument("--requests", type=int, default=1280, help="of each kind (1280)")
    counting.add_argument(
        "--only", default="", help="a kind, such as 429: the begin of its line in the table"
    )
    counting.add_argument(
        "--profile", action="store_true", help="where they are executed, by room and by function"
    )
    counting.add_argument("--write", action="store_true", help="publish the table in docs/performance.md")
    counting.set_defaults(run=_count)


def _add_script(parts: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    script = parts.add_parser("script", help="instructions of the limiter's script in Redis, by valgrind")
    script.add_argument("--redis", type=Path, action="append", help="a redis-server (all that are installed)")
    script.add_argument("--beside", type=Path, action="append", help="another checkout, counted beside this")
    script.set_defaults(
        run=lambda options: print_script_instructions(
            options.redis or installed_servers(), options.beside or []
        )
    )


def _everything(options: argparse.Namespace) -> None:
    _require_optimised()
    plan = _plan(options)
    document = measure_everything(plan)
    document["ratings"] = rating.measure_beside_peers(rating.Plan(rounds=plan.rounds, seconds=plan.seconds))
    write_document(document, RESULTS)
    _report()
    checks = [check.line for check in check_goals(_latest())]
    sys.stdout.write(as_text(("", "wanted", "measured", ""), checks) + "\n")
    if plan.rounds < _PUBLISHED_ROUNDS:
        say(
            f"fewer than {_PUBLISHED_ROUNDS} rounds: too few to publish what {RESULTS.name} and the page now say"
        )


def _latest() -> Document:
    """What was measured last, instructions included."""
    if not RESULTS.exists():
        raise CommandError(f"{RESULTS.name} is not there: nothing was measured yet")
    document = read_document()
    if INSTRUCTIONS.exists():
        document["instructions"] = read_document(INSTRUCTIONS)
    return document


def _report() -> None:
    document = _latest()
    CHART.write_text(chart(document), encoding="utf-8")
    PAGE.write_text(fill_page(PAGE.read_text(encoding="utf-8"), document), encoding="utf-8")


def _plan(options: argparse.Namespace) -> Plan:
    given = {
        "rounds": "rounds",
        "seconds": "seconds",
        "connections": "connections",
        "readers": "readers",
        "generator": "generator",
        "only": "only",
        "soak": "soak_seconds",
        "keys": "keys",
    }
    values = vars(options)
    return Plan(**{field: values[option] for option, field in given.items() if option in values})


def _rows(text: str) -> tuple[str, ...]:
    rows = tuple(text.split(","))
    for row in rows:
        if row not in ROWS:
            raise argparse.ArgumentTypeError(f"{row}: one of {', '.join(ROWS)}")
    return rows


if __name__ == "__main__":
    sys.exit(main())
