"""The main job as a large deployment runs it: two workers behind PgBouncer, a Cluster that loses a master under load.

Students sign in, read, study and rate on three masters with a replica each; some of them rate far beyond their limit.
One master is killed in the middle. What is lost and what is admitted too often is counted, and compared with what
docs/scaling.md promises.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import re
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import psycopg2
import pytest

from server.cli.counters import check_counters
from server.cli.importing import import_path
from server.cli.web import is_ready
from server.development import free_port
from server.development.processes import child_process, wait_until_ready
from server.domain.identity.passwords import Passwords
from server.domain.identity.tokens import AccessTokens, Caller
from server.ratelimit.policies import subject_prefix
from server.settings import ROOT
from tests.conftest import SCALED_OUT
from tests.stores.postgres.databases import ask
from tests.support.pgbouncer import pgbouncer
from tests.support.redis_fleet import TestCluster, redis_cluster
from tests.support.redis_servers import redis_binaries
from tests.support.waiting import wait_until

SECRET_KEY = "a key for tests only, long enough for HS256"
PASSWORD = "correct horse battery"
WORKERS = 2
LIMIT = 24  # ratings of a student in an hour
STUDENTS_A_MASTER = 6
RATINGS_A_ROUND = 5
GREEDY_AT_ONCE = 8
MOST_ROUNDS = 4  # of ratings, of a student who keeps to the limit; every fifth is sent twice
# What the promoted replica may not have: asynchronous replication is never a second late on one machine.
REPLICATION_SECONDS = 1.0


@dataclass
class Figures:
    """What all students have seen.

    Attributes:
        statuses: of all answers, by route.
        broken: requests whose connection broke.
        stale: how long after the kill a page did not show the student's own last rating, seconds.
        killed_at: on the monotonic clock; None before.
    """

    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    broken: int = 0
    stale: list[float] = field(default_factory=list)
    killed_at: float | None = None
    promoted_seconds: float = 0.0
    recovered_seconds: float = 0.0


class Student:
    """Sends each rating until it is answered, always under its own key; keeps what was answered."""

    def __init__(
        self, http: aiohttp.ClientSession, user_id: UUID, class_id: str, master: int, figures: Figures
    ) -> None:
        self._class_id = class_id
        self.user_id = user_id
        self.email = f"{user_id}@example.com"
        self.master = master
        self.acknowledged: Counter[str] = Counter()
        self.admitted: list[float] = []  # when each of the requests for ratings that were no 429 was answered
        self.rounds = 0
        self._http = http
        self._figures = figures
        self._headers: dict[str, str] = {}
        self._chance = random.Random(str(user_id))  # noqa: S311 - plays a student

    async def sign_in(self) -> None:
        """Log in with the password."""
        body = {"email": self.email, "password": PASSWORD}
        answer = await self._ask("POST", "/api/auth/login", "/api/auth/login", json=body)
        self._headers = {"Authorization": f"Bearer {answer['accessToken']}"}

    async def study(self, *, rates: bool) -> list[str]:
        """A round: classes, a class, a session, a page to study, ratings, progress. Returns the cards of the page."""
        await self._ask("GET", "/api/classes", "/api/classes")
        class_id = self._class_id
        page = await self._ask("GET", "/api/classes/{id}", f"/api/classes/{class_id}")
        decks = {"deckIds": [deck["id"] for deck in page["decks"]]}
        session = (await self._ask("POST", "/api/sessions", "/api/sessions", json=decks))["sessionId"]
        study = f"/api/classes/{class_id}/study?mode=all&limit=100"
        found = (await self._ask("GET", "/api/classes/{id}/study", study))["flashcards"]
        cards = [card["id"] for card in found]
        rated = 0
        for card in self._chance.sample(cards, RATINGS_A_ROUND) if rates else ():
            await self.rate(card, session)
            rated += 1
            if await self.count_studied() != len(self.acknowledged):
                self._figures.stale.append(monotonic() - (self._figures.killed_at or monotonic()))
        ended = await self._ask("POST", "/api/sessions/{id}/end", f"/api/sessions/{session}/end")
        assert rated == ended["session"]["cardsStudied"]
        self.rounds += rates
        return cards

    async def count_studied(self) -> int:
        """How many cards of the class this student has studied, by the page that shows it."""
        path = f"/api/progress/class/{self._class_id}"
        found = await self._ask("GET", "/api/progress/class/{id}", path)
        return int(found["studiedCards"])

    async def rate(self, card: str, session: str | None = None) -> bool:
        """Rate a card, and repeat some of the requests as a client does that got no answer. False if it is refused."""
        body: dict[str, object] = {"confidenceLevel": self._chance.randint(1, 5)}
        if session is not None:
            body["sessionId"] = session
        key = {"Idempotency-Key": str(uuid4())}
        answer = await self._ask(
            "PUT", "/api/progress/cards/{id}", f"/api/progress/cards/{card}", json=body, headers=key
        )
        if answer is None:
            return False
        self.acknowledged[card] += 1
        if self.acknowledged.total() % 5 == 0:
            again = await self._ask(
                "PUT", "/api/progress/cards/{id}", f"/api/progress/cards/{card}", json=body, headers=key
            )
            assert again in (None, answer)  # None: the repeat was one request too many
        return True

    async def _ask(self, method: str, route: str, path: str, **options: Any) -> Any:
        """The body of a 200 or 201; None for a 429. What fails is asked again."""
        headers = self._headers | options.pop("headers", {})
        while True:
            try:
                async with self._http.request(method, path, headers=headers, **options) as response:
                    body = await response.json()
            except aiohttp.ClientError:
                self._figures.broken += 1
                continue
            self._figures.statuses[f"{method} {route}", response.status] += 1
            if route == "/api/progress/cards/{id}" and response.status != 429:
                self.admitted.append(monotonic())
            if response.status in {200, 201}:
                return body
            if response.status == 429:
                return None
            self._figures.problems.append(f"{method} {route}: {response.status} {body}")
            assert response.status >= 500


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[TestCluster]:
    """Three masters with a replica each; the slots of a lost one do not stop the others."""
    options = ("cluster-require-full-coverage no",)
    async with redis_cluster(
        tmp_path / "cluster", redis_binaries()[0], replicas=3, options=options
    ) as running:
        yield running


@pytest.fixture
def address(cluster: TestCluster, database_url: str, tmp_path: Path) -> Iterator[str]:
    """The service as the Procfile starts it, with two workers."""
    limits = (ROOT / "config" / "ratelimits.toml").read_text()
    for name in ("standard", "generous", "api"):
        limits = re.sub(rf"(\[policies\.{name}\]\nlimit = )\d+", r"\g<1>1_000_000", limits)
    limits = limits.replace(
        '[groups.ratings]\npolicies = ["standard"]', '[groups.ratings]\npolicies = ["rated"]'
    )
    (tmp_path / "limits.toml").write_text(f'{limits}\n[policies.rated]\nlimit = {LIMIT}\nwindow = "1h"\n')
    import_path(database_url, ROOT / "config" / "sample-course")
    port = free_port()
    (tmp_path / "pooler").mkdir()
    with pgbouncer(
        tmp_path / "pooler", database_url, default_pool_size="12", max_client_conn="100"
    ) as pooled:
        environment = {
            **os.environ, "DATABASE_URL": pooled, "REDIS_URL": cluster.url, "SECRET_KEY": SECRET_KEY,
            "RATE_LIMITS_FILE": str(tmp_path / "limits.toml"), "HOST": "127.0.0.1", "PORT": str(port),
            "WEB_CONCURRENCY": str(WORKERS),
            # A busy machine makes an answer late, and no error.
            "DATABASE_ACQUIRE_TIMEOUT_MS": "20000", "DATABASE_QUERY_TIMEOUT_MS": "20000",
        }  # fmt: skip
        command = [sys.executable, "-m", "server", "serve"]
        with (
            (tmp_path / "service.log").open("wb") as log,
            child_process(command, environment=environment, output=log) as process,
        ):
            assert wait_until_ready(process, lambda: is_ready("127.0.0.1", port), seconds=60)
            yield f"http://127.0.0.1:{port}"


async def make_students(
    http: aiohttp.ClientSession, cluster: TestCluster, database_url: str, figures: Figures
) -> list[Student]:
    """Accounts whose limits are counted on each of the masters."""
    students: list[Student] = []
    places = Counter[int]()
    ((class_id,),) = ask(database_url, "SELECT id::text FROM classes ORDER BY sort_order LIMIT 1")
    while len(students) < STUDENTS_A_MASTER * len(cluster.masters):
        user_id = uuid4()
        owner = cluster.owner_of(subject_prefix(f"user:{user_id}").decode())
        master = next(number for number, member in enumerate(cluster.masters) if member is owner)
        if places[master] < STUDENTS_A_MASTER:
            places[master] += 1
            students.append(Student(http, user_id, class_id, master, figures))
    password_hash = await Passwords().hash(PASSWORD)
    with closing(psycopg2.connect(database_url)) as connection, connection, connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO users (id, email, name, password_hash) VALUES (%s, %s, 'Student', %s)",
            [(str(student.user_id), student.email, password_hash) for student in students],
        )
    return sorted(students, key=lambda student: student.master)  # each third of them has two who are greedy


async def read_metric(http: aiohttp.ClientSession, name: str) -> list[tuple[dict[str, str], float]]:
    """The samples of a metric, over both workers."""
    async with http.post("/api/metrics") as response:
        metrics = (await response.json())["metrics"]
    (found,) = (metric["samples"] for metric in metrics if metric["name"] == name)
    return [(sample["labels"], sample["value"]) for sample in found]


async def decisions(http: aiohttp.ClientSession) -> Counter[str]:
    """Admissions under the limit on ratings so far, by who decided."""
    samples = await read_metric(http, "mastery_rate_limit_decisions_total")
    return Counter(
        {
            labels["source"]: int(count)
            for labels, count in samples
            if (labels["policy"], labels["outcome"]) == ("rated", "allowed")
        }
    )


class Evening:
    """Everybody at once, while the first master is lost."""

    def __init__(
        self, http: aiohttp.ClientSession, cluster: TestCluster, students: list[Student], figures: Figures
    ) -> None:
        self._http = http
        self._cluster = cluster
        self._figures = figures
        self.greedy = [student for number, student in enumerate(students) if number % 3 == 0]
        self.steady = [student for number, student in enumerate(students) if number % 3]
        self._recovered = asyncio.Event()
        self._finished = asyncio.Event()

    async def go_by(self) -> None:
        """From the first round to the second one after the recovery."""
        async with asyncio.TaskGroup() as tasks:
            others = [tasks.create_task(self._ask_for_more(student)) for student in self.greedy]
            tasks.create_task(self._lose_a_master())
            await asyncio.gather(*(self._keep_to_the_limit(student) for student in self.steady))
            self._finished.set()
            await asyncio.gather(*others)

    async def _keep_to_the_limit(self, student: Student) -> None:
        rounds_after = 0
        while rounds_after < 2:
            await student.study(rates=student.rounds < MOST_ROUNDS)
            rounds_after += self._recovered.is_set()

    async def _ask_for_more(self, student: Student) -> None:
        cards = itertools.cycle(await student.study(rates=False))
        for card in itertools.islice(cards, LIMIT // 3):
            await student.rate(card)
        while self._figures.killed_at is None:
            await student.study(rates=False)
        while not self._finished.is_set():
            at_once = [student.rate(next(cards)) for _ in range(GREEDY_AT_ONCE)]
            if not any(await asyncio.gather(*at_once)):
                await student.study(rates=False)

    async def _lose_a_master(self) -> None:
        await wait_until(
            lambda: (
                min(student.rounds for student in self.steady) >= 2
                and min(len(student.admitted) for student in self.greedy) >= LIMIT // 3
            ),
            "all are at it",
        )
        self._figures.killed_at = monotonic()
        os.kill(self._cluster.masters[0].server.pid, signal.SIGKILL)
        await wait_until(self._is_promoted, "the replica takes over")
        self._figures.promoted_seconds = monotonic() - self._figures.killed_at
        await wait_until(self._all_decide_with_redis, "every worker decides with Redis again")
        self._figures.recovered_seconds = monotonic() - self._figures.killed_at
        self._recovered.set()

    async def _is_promoted(self) -> bool:
        return bool((await self._cluster.replicas[0].admin.execute("ROLE"))[0] == b"master")

    async def _all_decide_with_redis(self) -> bool:
        samples = await read_metric(self._http, "mastery_rate_limit_worker_alone")
        return [alone for _, alone in samples] == [0.0] * WORKERS


@pytest.mark.long
async def test_a_cluster_that_loses_a_master_loses_no_rating(
    address: str, cluster: TestCluster, database_url: str, record_property: Callable[[str, object], None]
) -> None:
    """No request fails, every answered rating is there once, and no more is admitted than is promised."""
    figures = Figures()
    async with aiohttp.ClientSession(address, connector=aiohttp.TCPConnector(limit=0)) as http:
        students = await make_students(http, cluster, database_url, figures)
        for student in students:  # passwords are checked a few at a time
            await student.sign_in()
        evening = Evening(http, cluster, students, figures)
        await evening.go_by()
        for student in students:
            assert len(student.acknowledged) == await student.count_studied()
        by_source = await decisions(http)
        counted = await use_of(http, database_url, students)
    for line in lines_of(figures, evening, by_source, counted):
        record_property(SCALED_OUT, line)
    assert ([], 0) == (figures.problems, figures.broken)
    check_ratings(database_url, students)
    check_limits(figures, evening, by_source, counted)


def check_ratings(database_url: str, students: list[Student]) -> None:
    """What was answered is in the tables, each rating once; and counters, streaks and figures follow from it."""
    expected = {
        (str(student.user_id), card): count
        for student in students
        for card, count in student.acknowledged.items()
    }
    for what in ("sum(times_seen) FROM user_card_progress", "count(*) FROM review_log"):
        rows = ask(database_url, f"SELECT user_id::text, flashcard_id::text, {what} GROUP BY 1, 2")
        assert expected == {(user_id, card): count for user_id, card, count in rows}, what
    keys = ask(database_url, "SELECT count(*), count(status) FROM idempotency_keys")
    assert [(sum(expected.values()),) * 2] == keys
    assert 0 == check_counters(database_url).differences
    wrong = ask(
        database_url,
        "SELECT s.user_id FROM user_stats AS s JOIN (SELECT user_id, count(DISTINCT flashcard_id) AS cards,"
        " count(DISTINCT day) AS days FROM review_log GROUP BY 1) AS r USING (user_id)"
        " WHERE (s.total_cards_studied, s.study_streak_days) <> (r.cards, r.days)",
    )
    assert [] == wrong


def check_limits(
    figures: Figures, evening: Evening, by_source: Counter[str], counted: dict[UUID, int]
) -> None:
    """What docs/scaling.md promises of a limit while its master is lost."""
    assert by_source["open"] > 0, "nothing was decided without Redis"
    students = [*evening.greedy, *evening.steady]
    unreplicated = {student.user_id: answered_before(student, figures) for student in students}
    for student in students:
        assert len(student.admitted) <= (1 + WORKERS) * LIMIT + unreplicated[student.user_id]
    assert beyond_limits(students) <= by_source["open"] + sum(unreplicated.values())
    assert uncounted(evening.steady, counted) <= by_source["open"] + sum(unreplicated.values())
    assert max(counted.values()) <= LIMIT


def answered_before(student: Student, figures: Figures) -> int:
    """Admissions that the replica may not have: those on the lost master within a second before its end."""
    ended_at = figures.killed_at or 0.0
    if student.master != 0:
        return 0
    return sum(ended_at - REPLICATION_SECONDS <= at <= ended_at for at in student.admitted)


def beyond_limits(students: list[Student]) -> int:
    """Ratings admitted beyond the limits, over all students."""
    return sum(max(0, len(student.admitted) - LIMIT) for student in students)


def uncounted(students: list[Student], counted: dict[UUID, int]) -> int:
    """Ratings that were admitted and that Redis has not counted in the end, of students who kept to the limit."""
    return sum(len(student.admitted) - counted[student.user_id] for student in students)


def lines_of(
    figures: Figures, evening: Evening, by_source: Counter[str], counted: dict[UUID, int]
) -> Iterator[str]:
    """The figures, as docs/scaling.md shows them."""
    students = [*evening.greedy, *evening.steady]
    hit = [student for student in evening.greedy if student.master == 0]
    failed = sum(count for (_, status), count in figures.statuses.items() if status >= 500)
    ratings = sum(student.acknowledged.total() for student in students)
    yield f"requests answered                                {figures.statuses.total():6}"
    yield f"of them 5xx; connections broken                  {failed:6}; {figures.broken}"
    yield f"ratings answered, each in the database once      {ratings:6}"
    yield f"a replica is master after, s                     {figures.promoted_seconds:6.1f}"
    yield f"all workers decide with Redis again after, s     {figures.recovered_seconds:6.1f}"
    yield f"ratings admitted, by who decided                 {dict(by_source)}"
    yield f"admitted beyond {LIMIT}, all students                {beyond_limits(students):6}"
    yield f"most admitted of one whose master was lost       {max(len(student.admitted) for student in hit):6}"
    yield f"admitted and not counted in the end              {uncounted(evening.steady, counted):6}"
    when = ", ".join(f"{seconds:.1f} s" for seconds in figures.stale)
    yield f"pages older than the student's own rating        {len(figures.stale):6} {when}"


async def use_of(http: aiohttp.ClientSession, database_url: str, students: list[Student]) -> dict[UUID, int]:
    """How many ratings Redis has counted for each student."""
    ((admin_id,),) = ask(
        database_url,
        "INSERT INTO users (email, name, role) VALUES ('a@b.c', 'A', 'admin') RETURNING id::text",
    )
    admin = AccessTokens(SECRET_KEY, lifetime_seconds=600).issue(Caller(UUID(admin_id), "admin"))
    used = {}
    for student in students:
        path = f"/api/admin/rate-limits/user:{student.user_id}"
        async with http.get(path, headers={"Authorization": f"Bearer {admin}"}) as response:
            policies = (await response.json())["policies"]
        (rated,) = (entry for entry in policies if entry["policy"] == "rated")
        used[student.user_id] = rated["limit"] - rated["remaining"]
    return used
