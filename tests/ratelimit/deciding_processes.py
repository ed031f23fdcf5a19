"""Processes that decide at once: each with a connection of its own, all at the one simulated time."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

from server.ratelimit.policies import Charge
from server.ratelimit.scripts import Answers, decide_charges, refund_charges
from tests.ratelimit.simulated_redis import SimulatedRunner, result_of

# Neither may pass before a history is over.
KEPT_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Ask:
    """A decision that a process is to ask for."""

    charges: tuple[Charge, ...]
    log_entries: int
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class TakeBack:
    """A refund that a process is to ask for."""

    charges: tuple[Charge, ...]
    request_id: str


class DecidingProcesses:
    """A few processes that wait for work.

    Args:
        pipes: to each of them.
    """

    def __init__(self, pipes: Sequence[Connection]) -> None:
        self._pipes = pipes

    def decide(self, url: str, work: Sequence[Sequence[Ask]]) -> list[list[Answers]]:
        """What each process was answered, all at work at the same time, each in its own order."""
        for pipe, asks in zip(self._pipes, work, strict=True):
            pipe.send((url, asks))
        return [pipe.recv() for pipe in self._pipes]

    def refund(self, url: str, work: TakeBack) -> list[tuple[int, ...]]:
        """What each process was given back when all ask for the same refund."""
        for pipe in self._pipes:
            pipe.send((url, [work]))
        return [pipe.recv()[0] for pipe in self._pipes]


@contextlib.contextmanager
def deciding_processes(count: int) -> Iterator[DecidingProcesses]:
    """So many processes for the length of the block."""
    context = multiprocessing.get_context("spawn")
    ends = [context.Pipe() for _ in range(count)]
    processes = [context.Process(target=_serve, args=(theirs,), daemon=True) for _, theirs in ends]
    for process in processes:
        process.start()
    try:
        yield DecidingProcesses([mine for mine, _ in ends])
    finally:
        for mine, theirs in ends:
            mine.send(None)
            theirs.close()
            mine.close()
        for process in processes:
            process.join()


def _serve(pipe: Connection) -> None:
    runners: dict[str, SimulatedRunner] = {}
    while (order := pipe.recv()) is not None:
        url, work = order
        if url not in runners:
            runners[url] = SimulatedRunner(url, page_entries=2, kept_longer_ms=KEPT_MS)
        pipe.send([_do(runners[url], one) for one in work])
    for runner in runners.values():
        runner.client.close()


def _do(runner: SimulatedRunner, work: Ask | TakeBack) -> Answers | tuple[int, ...]:
    if isinstance(work, TakeBack):
        return result_of(refund_charges(runner, charges=work.charges, request_id=work.request_id))
    return result_of(
        decide_charges(
            runner,
            charges=work.charges,
            log_entries=work.log_entries,
            request_id=work.request_id,
            keep_ms=KEPT_MS,
        )
    )
