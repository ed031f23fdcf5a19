"""`make run`, as its user has it: one command, everything works, Ctrl-C, nothing left."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import shlex
import signal
import subprocess
import sys
import termios
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.development import EmbeddedServer, free_port
from tests.support.checkout import Checkout, Service, environment
from tests.support.waiting import eventually


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout in a folder whose name trips over unquoted words."""
    return Checkout.copy(tmp_path_factory.mktemp("make run") / "check out")


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Checkout]:
    """A checkout that never ran; nothing of it runs on after the test."""
    checkout = Checkout.copy(tmp_path / "fresh")
    yield checkout
    nothing_is_left_of(checkout)


@pytest.fixture(scope="module")
def often_stopped(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """The checkout of tests that need a start of their own and no first one: to make the data takes as long again."""
    return Checkout.copy(tmp_path_factory.mktemp("stopped") / "check out")


@pytest.fixture
def stopped(often_stopped: Checkout) -> Iterator[Checkout]:
    """A checkout that has run before, but for the first test that takes it; nothing of it runs on after the test."""
    yield often_stopped
    nothing_is_left_of(often_stopped)


def nothing_is_left_of(checkout: Checkout) -> None:
    """Wait until no process belongs to the checkout."""
    eventually(lambda: not checkout.processes(), f"the end of {checkout.processes()}")


@pytest.fixture(scope="module")
def running(checkout: Checkout) -> Iterator[tuple[Service, str]]:
    """A `make run` that is ready, and its address; Ctrl-C at the end leaves nothing."""
    service = checkout.start("make", "run", PORT=str(free_port()))
    try:
        yield service, service.wait_until_ready()
    finally:
        service.signal_group(signal.SIGINT)
        service.process.wait(60)
    assert [] == checkout.processes()


def get(address: str, token: str) -> object:
    """What the service answers, as JSON."""
    request = urllib.request.Request(address, headers={"Authorization": f"Bearer {token}"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - an address of our own
        return json.load(response)


def test_printed_commands_work_when_pasted(running: tuple[Service, str]) -> None:
    """After the export line, every curl line of the banner is answered with 200."""
    service, _ = running
    (export,) = [line for line in service.output.splitlines() if line.startswith("export ")]
    lines = [line for line in service.output.splitlines() if line.startswith("curl ")]
    assert 3 == len(lines)
    for line in lines:
        done = subprocess.run(["sh", "-c", f"{export}\n{line}"], capture_output=True, text=True, check=True)
        assert done.stdout.startswith("HTTP/1.1 200 OK"), line


def test_output_to_a_file_has_no_colours_and_logs_are_json(running: tuple[Service, str]) -> None:
    """What is not a terminal gets no escape sequences; all lines but the banner are JSON as in production."""
    service, _ = running
    assert "\x1b" not in service.output
    before, _, after = service.output.partition("\nMastery is ready")
    for line in [*before.splitlines(), *after.partition("make clean removes it.\n")[2].splitlines()]:
        if line:
            assert {"timestamp", "level", "message", "service"} <= json.loads(line).keys()


def test_commands_find_the_running_service(checkout: Checkout, running: tuple[Service, str]) -> None:
    """token, migrate, import and limits work beside it without any setting."""
    _, address = running
    token = checkout.forked("token", "--role", "admin")
    assert 0 == token.returncode, token.stderr
    users = get(f"{address}/api/admin/analytics/users", token.stdout.splitlines()[-1])
    assert isinstance(users, dict)
    assert {"user", "admin"} == {user["role"] for user in users["users"]}

    migrated = checkout.forked("migrate")
    assert (0, "migrate.finished") == (migrated.returncode, json.loads(migrated.stderr)["message"])

    imported = checkout.forked("import", "config/sample-course")
    assert 0 == imported.returncode, imported.stderr
    assert "0 created, 0 updated, 168 unchanged" in imported.stdout

    for arguments in (("show",), ("block", "--seconds", "5"), ("reset",)):
        limits = checkout.forked("limits", *arguments, "ip:192.0.2.1")
        assert 0 == limits.returncode, limits.stderr


def test_sample_course_is_there(checkout: Checkout, running: tuple[Service, str]) -> None:
    """A new user has something to study at once."""
    _, address = running
    classes = get(f"{address}/api/classes", checkout.forked("token").stdout.strip())
    assert isinstance(classes, dict)
    assert 8 == len(classes["classes"])
    assert 168 == sum(class_["cardCount"] for class_ in classes["classes"])


def test_second_run_in_the_same_checkout_is_refused(checkout: Checkout, running: tuple[Service, str]) -> None:
    """It says which process runs already, and leaves that one alone."""
    _, address = running
    second = checkout.run("make", "run", PORT=str(free_port()))
    assert 2 == second.returncode  # make's own code for a recipe that failed
    pid = json.loads((checkout.folder / ".state" / "running.json").read_text())["pid"]
    assert f"this checkout runs already (process {pid}, {address}); stop that one first" in second.stderr
    with urllib.request.urlopen(f"{address}/readyz", timeout=10) as response:  # noqa: S310
        assert 200 == response.status


def test_clean_is_refused_while_it_runs(checkout: Checkout, running: tuple[Service, str]) -> None:
    """The data of a running service is not pulled away from under it."""
    _, address = running
    cleaned = checkout.run("make", "clean")
    assert 2 == cleaned.returncode
    assert "stop it first" in cleaned.stderr
    assert (checkout.folder / ".state").is_dir()
    assert get(f"{address}/api/health", "") is not None


def test_two_checkouts_run_side_by_side(
    running: tuple[Service, str], checkout: Checkout, stopped: Checkout
) -> None:
    """Each has its servers, its data and its key; a token of one is nothing to the other."""
    _, address = running
    other = stopped.start("make", "run", PORT=str(free_port()))
    other_address = other.wait_until_ready()
    try:
        token = checkout.forked("token").stdout.strip()
        assert get(f"{address}/api/stats", token) is not None
        with pytest.raises(urllib.error.HTTPError, match="401"):
            get(f"{other_address}/api/stats", token)
    finally:
        other.signal_group(signal.SIGINT)
        other.process.wait(60)


def test_taken_port_is_said_before_anything_starts(running: tuple[Service, str], fresh: Checkout) -> None:
    """The error names the variable, and no server was started for nothing."""
    _, address = running
    port = address.rpartition(":")[2]
    refused = fresh.server("dev", PORT=port)
    assert 1 == refused.returncode
    assert f"PORT: {port}" in refused.stderr
    assert ["lock"] == [file.name for file in (fresh.folder / ".state").iterdir()]


def test_data_outlives_a_stop(stopped: Checkout) -> None:
    """A second start has what the first one stored, and tokens of the first one are still good."""
    port = str(free_port())
    service = stopped.start("make", "run", PORT=port)
    address = service.wait_until_ready()
    token = stopped.server("token").stdout.strip()
    classes = get(f"{address}/api/classes", token)
    service.signal_group(signal.SIGINT)
    service.process.wait(60)
    assert [] == stopped.processes()
    service = stopped.start("make", "run", PORT=port)
    service.wait_until_ready()
    assert classes == get(f"{address}/api/classes", token)
    service.process.terminate()  # make alone: it passes the signal on
    service.process.wait(60)
    assert [] == stopped.processes()


def test_own_servers_are_used_where_they_are_named(
    fresh: Checkout, empty_url: str, shared_redis: EmbeddedServer
) -> None:
    """With DATABASE_URL and REDIS_URL, here from a .env file, no other servers are started."""
    (fresh.folder / ".env").write_text(f"DATABASE_URL={empty_url}\nREDIS_URL={shared_redis.url}\n")
    service = fresh.start(fresh.python, "-m", "server", "dev", PORT=str(free_port()))
    service.wait_until_ready()
    try:
        assert not (fresh.folder / ".state" / "postgres").exists()
        assert not (fresh.folder / ".state" / "redis").exists()
    finally:
        service.process.send_signal(signal.SIGINT)
        assert 0 == service.process.wait(60)


@pytest.mark.parametrize(
    ("sign", "number"),
    [
        pytest.param(".state/lock", signal.SIGINT, id="at once"),
        pytest.param(".state/postgres/data.new", signal.SIGTERM, id="while PostgreSQL is made"),
        pytest.param(".state/postgres/data", signal.SIGINT, id="while PostgreSQL starts"),
        pytest.param(".state/redis", signal.SIGHUP, id="while Redis starts"),
        pytest.param(".state/running.json", signal.SIGTERM, id="while the data is prepared"),
        pytest.param("Booting worker", signal.SIGINT, id="while the web server starts"),
        pytest.param("Ctrl-C stops it", signal.SIGHUP, id="when it is ready"),
    ],
)
def test_stop_at_every_stage(request: pytest.FixtureRequest, sign: str, number: signal.Signals) -> None:
    """Whenever it is asked to stop it does, with exit code 0, and leaves no process; half a database does no harm."""
    checkout: Checkout = request.getfixturevalue("fresh" if sign.startswith(".state") else "stopped")
    port = str(free_port())
    service = checkout.start(checkout.python, "-m", "server", "dev", PORT=port)
    if sign.startswith(".state"):
        eventually((checkout.folder / sign).exists, sign)
    else:
        service.wait_for(sign)
    service.process.send_signal(number)
    assert 0 == service.process.wait(60), service.output
    assert [] == checkout.processes()
    assert "Traceback" not in service.output
    if sign.startswith(".state/postgres"):
        service = checkout.start(checkout.python, "-m", "server", "dev", PORT=port)
        service.wait_for("migrate.finished")
        service.process.send_signal(number)
        assert 0 == service.process.wait(60), service.output


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's end")
@pytest.mark.parametrize("victim", ["make", "dev"])
def test_a_killed_parent_takes_everything_along(stopped: Checkout, victim: str) -> None:
    """SIGKILL of make, or of the command itself, leaves no servers behind."""
    service = stopped.start("make", "run", PORT=str(free_port()))
    service.wait_until_ready()
    if victim == "make":
        service.process.kill()
    else:
        running = json.loads((stopped.folder / ".state" / "running.json").read_text())
        os.kill(running["pid"], signal.SIGKILL)
    service.process.wait(60)
    eventually(lambda: not stopped.processes(), "the end of every process")


class TestTerminal:
    """In a real terminal, of which `make run` is the foreground job."""

    @pytest.fixture
    def terminal(self, stopped: Checkout) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
        """`make run` in a terminal of its own that shows the banner: the process, and the keyboard's side."""
        keyboard, screen = pty.openpty()

        def take_terminal() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        with subprocess.Popen(
            ["make", "run"],
            cwd=stopped.folder,
            env=environment(PORT=str(free_port())),
            stdin=screen,
            stdout=screen,
            stderr=screen,
            start_new_session=True,
            preexec_fn=take_terminal,  # noqa: PLW1509 - one system call
        ) as process:
            os.close(screen)
            shown = b""
            while b"Ctrl-C stops it" not in shown:
                shown += os.read(keyboard, 65536)
            assert b"\x1b[1mMastery is ready" in shown
            yield process, keyboard

    def test_ctrl_c(self, terminal: tuple[subprocess.Popen[bytes], int], stopped: Checkout) -> None:
        """The key reaches everyone in the foreground; the servers are stopped in order all the same."""
        process, keyboard = terminal
        os.write(keyboard, b"\x03")
        shown = b""
        try:
            while chunk := os.read(keyboard, 65536):
                shown += chunk
        except OSError:  # what Linux says when nobody has the other side open
            pass
        os.close(keyboard)
        process.wait(60)
        assert [] == stopped.processes()
        assert b"service.stopped" in shown
        assert b"Traceback" not in shown

    def test_closing_the_terminal(
        self, terminal: tuple[subprocess.Popen[bytes], int], stopped: Checkout
    ) -> None:
        """Nobody reads any more and nobody can type Ctrl-C: everything stops by itself."""
        process, keyboard = terminal
        os.close(keyboard)
        process.wait(60)
        eventually(lambda: not stopped.processes(), "the end of every process")


def test_everything_printed_is_one_shell_word_or_plain(running: tuple[Service, str]) -> None:
    """The commands survive a shell's word splitting: the token's header is a single argument."""
    service, _ = running
    lines = [shlex.split(line) for line in service.output.splitlines() if line.startswith("curl ")]
    assert [3, 5, 5] == [len(line) for line in lines]


def test_the_banner_and_the_page_name_the_accounts(running: tuple[Service, str]) -> None:
    """Whoever opens the address finds the pages and the accounts, whose passwords sign them in."""
    service, address = running
    for page in ("", "/api/docs", "/dashboard"):
        assert f"{address}{page}\n" in service.output
    request = urllib.request.Request(f"{address}/", headers={"Accept": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - an address of our own
        accounts = json.load(response)["demoAccounts"]
    assert ["user", "admin"] == [account["role"] for account in accounts]
    for account in accounts:
        assert f"{account['email']} / {account['password']}" in service.output
        body = json.dumps({"email": account["email"], "password": account["password"]}).encode()
        login = urllib.request.Request(  # noqa: S310
            f"{address}/api/auth/login", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(login, timeout=10) as response:  # noqa: S310
            assert account["role"] == json.load(response)["user"]["role"]


def test_status_finds_the_running_service(checkout: Checkout, running: tuple[Service, str]) -> None:
    """Without an address and whatever the port is: what `make run` has announced is asked."""
    del running
    status = checkout.forked("status")
    assert "KEY METRIC" in status.stdout, status.stderr
    assert "does not answer" not in status.stderr
