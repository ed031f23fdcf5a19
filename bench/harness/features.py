"""Whether a subject does what the comparison says that it does: a peer that leaves something out would be no peer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from bench.harness.peers import PEERS
from bench.harness.subjects import Answer, Subject, SubjectFailed, ask, bearer, running, service
from bench.harness.world import World
from server.development.processes import wait_until_ready

LIMIT = 3
_HEADERS = (
    "x-request-id", "x-trace-id", "server-timing", "x-response-time", "x-performance-rating", "x-cache",
    "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "ratelimit-policy", "ratelimit",
    "cache-control", "etag", "vary", "x-content-type-options", "referrer-policy", "x-frame-options",
)  # fmt: skip
_LINE_FIELDS = ("http.method", "http.route", "http.status", "duration_ms", "limit_ms", "cache_ms", "user_id")
_METRICS = ("_duration_seconds_bucket{", "cache_hits_total", "rate_limit_decisions_total{")
_ID = "a-request-id-of-the-caller-0001"
_LOG_SECONDS = 5


def check_features(world: World, name: str) -> str:
    """Start a subject with small limits, go through its features, and say what was seen.

    Raises:
        SubjectFailed: one is missing.
        PeerMissing: the peer can't run on this machine.
    """
    if name == "service":
        launch = service(world, name="service-limited", policies=small_limits(world.folder, LIMIT))
    else:
        launch = PEERS[name](world, per_minute=LIMIT, per_hour=LIMIT)
    with running(launch, world) as subject:  # the first reader has paid one by now
        return _Features(subject, reader=world.tokens[-1]).check()


def small_limits(folder: Path, limit: int, *, policies: int = 1, window: str = "1h") -> Path:
    """A file of policies for the service: so many for reads, each with this limit."""
    names = [f"reads-{limit}-{number}" for number in range(policies)]  # another limit counts on its own
    text = "".join(f'[policies.{name}]\nlimit = {limit}\nwindow = "{window}"\n' for name in names)
    text += '[policies.rest]\nlimit = 100_000_000\nwindow = "1m"\n'
    groups = (
        "ratings", "writes", "admin-reads", "admin-writes", "admin-destructive", "login", "register",
        "refresh", "unmatched",
    )  # fmt: skip
    text += f"[groups.reads]\npolicies = {json.dumps(names)}\n"
    text += "".join(f'[groups.{group}]\npolicies = ["rest"]\n' for group in groups)
    file = folder / f"ratelimits-{limit}-{policies}.toml"
    file.write_text(text, encoding="utf-8")
    return file


class _Features:
    def __init__(self, subject: Subject, *, reader: str) -> None:
        self._subject = subject
        self._reader = reader

    def check(self) -> str:
        """All of them, in an order in which each finds what it needs."""
        answer = self._ask({"X-Request-ID": _ID})
        self._expect(answer.status == 200, f"a reader gets 200, not {answer.status}")
        missing = [header for header in _HEADERS if header not in answer.headers]
        self._expect(not missing, f"no header {', '.join(missing)}")
        self._expect(answer.headers["x-request-id"] == _ID, "the caller's request id does not come back")
        self._expect(
            answer.headers["x-ratelimit-remaining"] == str(LIMIT - 1),
            f"{answer.headers['x-ratelimit-remaining']} requests remain of {LIMIT} after one",
        )
        again = self._ask({"If-None-Match": answer.headers["etag"]})
        self._expect((again.status, again.body) == (304, b""), f"an ETag that is known gets {again.status}")
        stranger = ask(self._subject.port, self._subject.world.path, {})
        self._expect(stranger.status == 401, f"without a token: {stranger.status}")
        forged = self._subject.ask(headers=bearer(self._reader[:-4] + "AAAA"))
        self._expect(forged.status == 401, f"with a forged token: {forged.status}")
        statuses = [self._ask({}).status for _ in range(4)]
        self._expect(statuses == [200, 429, 429, 429], f"under a limit of {LIMIT}, then: {statuses}")
        refused = self._ask({})
        self._expect(int(refused.headers["retry-after"]) > 0, "a refusal does not say when to come again")
        self._expect(
            refused.headers["content-type"].startswith("application/problem+json"), "no problem+json"
        )
        self._check_log()
        self._check_metrics()
        return f"{len(_HEADERS)} headers, 304, 401, 429 after {LIMIT}, access line, metrics"

    def _ask(self, headers: Mapping[str, str]) -> Answer:
        return self._subject.ask(headers={**bearer(self._reader), **headers})

    def _check_log(self) -> None:
        for _ in range(40):  # more than a buffer of a logger that writes in blocks
            self._ask({})

        def line() -> dict[str, object] | None:
            for text in self._subject.log.read_text(encoding="utf-8").splitlines():
                if _ID in text:
                    found: dict[str, object] = json.loads(text)
                    return found
            return None

        wait_until_ready(self._subject.process, lambda: line() is not None, seconds=_LOG_SECONDS)
        found = line() or {}
        missing = [field for field in _LINE_FIELDS if field not in found]
        self._expect(not missing, f"the access line of the request has no {', '.join(missing)}: {found}")

    def _check_metrics(self) -> None:
        text = self._subject.ask("/api/metrics").body.decode()
        missing = [metric for metric in _METRICS if metric not in text]
        self._expect(not missing, f"no metric {', '.join(missing)}")

    def _expect(self, seen: bool, otherwise: str) -> None:
        if not seen:
            raise SubjectFailed(f"{self._subject.name}: {otherwise}")
