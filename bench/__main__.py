"""`python -m bench`: everything, as `make bench` runs it; `python -m bench --help` names the parts."""

from __future__ import annotations

import argparse
import sys

from bench.service import READERS, SUBJECTS, Plan, compare
from server.tools.failures import CommandError


def main() -> int:
    """Run what the command line asks for; 1 with a sentence on stderr if it fails, 130 after Ctrl-C."""
    options = build_parser().parse_args()
    try:
        compare(_plan(options))
    except CommandError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The parts and their options."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parts = parser.add_subparsers(dest="part", metavar="PART", required=True)
    comparison = parts.add_parser("service", help="the service beside bare aiohttp and the peers")
    comparison.add_argument("--rounds", type=int, default=5, help="interleaved rounds (5)")
    comparison.add_argument("--seconds", type=float, default=5.0, help="of load in each (5)")
    comparison.add_argument("--connections", type=int, default=64, help="of the load generator (64)")
    comparison.add_argument("--readers", type=int, default=READERS, help=f"users who ask ({READERS})")
    comparison.add_argument("--only", default=",".join(SUBJECTS), help="some of " + ",".join(SUBJECTS))
    comparison.add_argument(
        "--generator", choices=("wrk", "ours"), help="of the load; wrk where there is one"
    )
    return parser


def _plan(options: argparse.Namespace) -> Plan:
    return Plan(
        rounds=options.rounds,
        seconds=options.seconds,
        connections=options.connections,
        readers=options.readers,
        only=tuple(options.only.split(",")),
        generator=options.generator,
    )


if __name__ == "__main__":
    sys.exit(main())
