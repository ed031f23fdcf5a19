"""Instructions of the limiter's script in Redis, counted by valgrind's callgrind: from the call's bytes to its reply.

The server's own time for a script, which the comparison takes (bench.limiter.run), varies with the machine; the number
of instructions does not. Counted is everything that Redis does for a call, from reading its socket to the reply in its
buffer, and nothing that it does by itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from bench.harness.peers import PeerMissing
from bench.harness.table import as_text
from bench.limiter.contenders import library_scripts
from server.development import EmbeddedServer, redis_server
from server.errors import CommandError
from server.settings import ROOT

_MINUTE, _HOUR = ["generous", 100, 60_000], ["api", 1000, 3_600_000]
_CLIENTS = 32
_LEAVING_SECONDS = 0.1

# callgrind counts while this function of Redis runs: it reads a client's socket and executes what it finds there.
_COUNTED = "readQueryFromClient"

Call = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """A kind of decision.

    Attributes:
        name: of its row.
        before: how many admissions a client has behind it.
        rounds: how many decisions of each client are counted.
        policies: how many.
        algorithm: theirs.
        leaving: whether the oldest admission has just left the window of a minute.
    """

    name: str
    before: int
    rounds: int = 16
    policies: int = 2
    algorithm: str = "sliding_window"
    leaving: bool = False

    def asked(self) -> dict[str, Any]:
        """What `operands` is asked for."""
        return {
            "policies": [[*policy, self.algorithm] for policy in (_MINUTE, _HOUR)[: self.policies]],
            "subjects": [f"user:{number:032x}" for number in range(_CLIENTS)],
            "ages": [60, *(50 - number * 0.5 for number in range(self.before - 1))] if self.leaving else [],
        }


CASES = (
    Case("the first of a client", 0, rounds=1),
    Case("10 before it", 2),
    Case("60 before it", 52),
    Case("60 before it, one of them leaving", 60, rounds=1, leaving=True),
    Case("refused: the minute is full", 100),
    Case("one policy, 10 before it", 2, policies=1),
    Case("two token buckets", 2, algorithm="token_bucket"),
)


def print_script_instructions(binaries: Sequence[Path], checkouts: Sequence[Path]) -> None:
    """Print the instructions of a decision in each case.

    Args:
        binaries: of the servers to count on.
        checkouts: other versions of the service, to count beside this one.

    Raises:
        CommandError: valgrind is missing, or a checkout's limiter can't be asked.
    """
    if shutil.which("valgrind") is None:
        raise CommandError("valgrind is not installed; Debian's package is valgrind")
    libraries = {}
    try:
        libraries = library_scripts()
    except PeerMissing as missing:
        sys.stderr.write(f"{missing}\n")
    folders = [ROOT, *checkouts]
    calls = [calls_of(folder) for folder in folders]
    for binary in binaries:
        with counted_redis(binary) as server:
            info = server.client.info("server")
            rows = []
            for index, case in enumerate(CASES):
                counts = [server.count(case, made[index]) for made in calls]
                parts = [f"{counts[0] / other:.2f}" for other in counts[1:]]
                rows.append((case.name, *(f"{count:,}" for count in counts), *parts))
            blank = [""] * 2 * len(checkouts)
            rows.extend((name, f"{count:,}", *blank) for name, count in server.count_limits(libraries))
        name = f"{info.get('server_name', 'redis')} {info.get('valkey_version', info['redis_version'])}"
        headings = (
            "instructions of a decision",
            *(folder.name for folder in folders),
            *("of it" for _ in checkouts),
        )
        sys.stdout.write(f"{name}\n\n{as_text(headings, rows)}\n\n")


def calls_of(folder: Path) -> list[dict[str, list[Call]]]:
    """The calls of every case, made by the limiter of a checkout."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "operands.py")],
        cwd=folder, env=os.environ | {"PYTHONPATH": str(folder)}, check=False,
        input=json.dumps([case.asked() for case in CASES]), capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode != 0:
        raise CommandError(f"the limiter of {folder} can't be asked:\n{done.stderr}")
    found: list[dict[str, list[Call]]] = json.loads(done.stdout)
    return found


class CountedRedis:
    """A Redis under valgrind, which counts what it does for its clients."""

    def __init__(self, server: EmbeddedServer, counts: Path) -> None:
        self._server = server
        self._counts = counts
        self._dumps = 0
        self.client = redis.Redis.from_url(server.url)

    def count(self, case: Case, calls: dict[str, list[Call]]) -> int:
        """The instructions of one decision."""
        self.client.flushall()
        for source in {call["source"] for call in [*calls["decisions"], *calls["aged"]]}:
            self.client.script_load(source)
        if case.leaving:
            self._run(calls["aged"])
            time.sleep(_LEAVING_SECONDS)
        else:
            for _ in range(case.before):
                self._run(calls["decisions"])
        self._dump()
        for _ in range(case.rounds):
            self._run(calls["decisions"])
        return round(self._dump() / (case.rounds * len(calls["decisions"])))

    def count_limits(self, libraries: Mapping[str, str]) -> Iterator[tuple[str, int]]:
        """The same for the library `limits`, if it is there: one policy, which it answers by two scripts."""
        if not libraries:
            return
        self.client.flushall()
        acquire, remains = [
            self.client.script_load(libraries[f"limits, {name}"])
            for name in ("moving window", "what remains")
        ]
        asks = [f"{time.time():.6f}", "100", "60", "1"]
        for sha1, name, args in (
            (acquire, "", asks),
            (acquire, "limits: one policy, 10 before it, yes or no", asks),
            (remains, "limits: what remains, and until when", [f"{time.time() - 60:.6f}", "100"]),
        ):
            pipeline = self.client.pipeline(transaction=False)
            for turn in range(8 * _CLIENTS):
                pipeline.evalsha(sha1, 1, f"LIMITS:{turn % _CLIENTS:012d}", *args)
            pipeline.execute()
            count = round(self._dump() / (8 * _CLIENTS))
            if name:
                yield name, count

    def _run(self, calls: Sequence[Call]) -> None:
        """Make the calls, in one write."""
        pipeline = self.client.pipeline(transaction=False)
        for call in calls:
            sha1 = hashlib.sha1(call["source"].encode(), usedforsecurity=False).hexdigest()
            pipeline.evalsha(sha1, call["keys"], *map(bytes.fromhex, call["operands"]))
        pipeline.execute()

    def _dump(self) -> int:
        """The instructions since the last dump."""
        self._dumps += 1
        subprocess.run(
            ["callgrind_control", "--dump", str(self._server.pid)], check=True, capture_output=True
        )
        totals = re.search(
            r"^totals: (\d+)$", Path(f"{self._counts}.{self._dumps}").read_text(), re.MULTILINE
        )
        assert totals is not None, "callgrind writes the totals last"
        return int(totals[1])


@contextlib.contextmanager
def counted_redis(binary: Path) -> Iterator[CountedRedis]:
    """Such a server, for the length of the block."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wrapper, counts = folder / "counted-redis-server", folder / "counts"
        wrapper.write_text(
            "#!/bin/sh\n"
            f"exec valgrind --tool=callgrind --toggle-collect={_COUNTED} "
            f'--callgrind-out-file={counts} {binary} "$@"\n'
        )
        wrapper.chmod(0o700)
        with redis_server(folder / "redis", binary=wrapper, options=('save ""', "appendonly no")) as server:
            yield CountedRedis(server, counts)
