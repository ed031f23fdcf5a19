"""Prints the limiter's scripts, and what its functions give them, of the checkout that it is run in.

Two checkouts can then be compared on one Redis. It reads a list of {policies, subjects, ages} from stdin (a policy
is [name, limit, window in milliseconds, algorithm]; ages are seconds), and prints {source, call} for each: the calls
that charge each subject, and those that charge what it used so long ago.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from server.ratelimit.policies import Charge, Policy
from server.ratelimit.scripts import charge_unbilled, decide_charges

LOG_ENTRIES = 1024

Call = dict[str, Any]


class Recorder:
    """A `ScriptRunner` that runs nothing: it keeps the call."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    async def run_script(self, script: Any, keys: Any, args: Any, **_: Any) -> Any:
        """Keep it, and answer that it was refused."""
        operands = [value if isinstance(value, bytes) else str(value).encode() for value in [*keys, *args]]
        self.calls.append(
            {
                "source": script.source.decode(),
                "keys": len(keys),
                "operands": [value.hex() for value in operands],
            }
        )
        return b"\0"


async def main() -> None:
    """Print all that is asked for."""
    found = []
    for asked in json.load(sys.stdin):
        policies = [
            Policy(name, limit, window_ms, algorithm)
            for name, limit, window_ms, algorithm in asked["policies"]
        ]
        decisions, aged = Recorder(), Recorder()
        for subject in asked["subjects"]:
            charges = [Charge(policy, "reads", subject) for policy in policies]
            await decide_charges(decisions, charges=charges, log_entries=LOG_ENTRIES)
            unbilled = [(charge, int(age * 1_000_000)) for age in asked["ages"] for charge in charges]
            for first in range(0, len(unbilled), 32):
                await charge_unbilled(aged, charges=unbilled[first : first + 32], log_entries=LOG_ENTRIES)
        found.append({"decisions": decisions.calls, "aged": aged.calls})
    json.dump(found, sys.stdout)


asyncio.run(main())
