"""Everything that the real service says while clients, admins, attackers and failing servers keep it busy."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlsplit

import jwt
import psutil
import redis

from tests.config.load import mixed_load
from tests.conftest import run_sql
from tests.support.service import SECRET_KEY, Service
from tests.support.waiting import eventually

# Every one is put where it belongs, and into places where it does not.
PASSWORDS = ("correct horse battery staple", "hunter2-hunter2-hunter2")
TRACE = "0af7651916cd43dd8448eb211c80319c"
METRICS_TOKEN = "scrapers-only-0123456789abcdef"


@contextmanager
def collected_output() -> Iterator[tuple[int, bytearray]]:
    """The writing end of a pipe, as platforms give for standard output, and what has come out of it.

    It is complete after the block, once every process that has the writing end is gone.
    """
    reading, writing = os.pipe()
    collected = bytearray()

    def read() -> None:
        with open(reading, "rb", buffering=0) as pipe:  # noqa: PTH123 - a descriptor has no path
            while data := pipe.read(65_536):
                collected.extend(data)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield writing, collected
    finally:
        os.close(writing)
        thread.join()


class Troubled:
    """A load that does everything, and remembers each secret that it used or was given."""

    def __init__(self, service: Service) -> None:
        self._service = service
        urls = [service.environment[name] for name in ("DATABASE_URL", "REDIS_URL")]
        self.secrets = {
            *PASSWORDS, METRICS_TOKEN, SECRET_KEY, service.user_token, service.admin_token,
            *(str(urlsplit(url).password) for url in urls),
        }  # fmt: skip
        assert "None" not in self.secrets

    def run(self) -> None:
        """All of it, once."""
        mixed_load(self._service)
        self._accounts()
        self._admin()
        self._secrets_in_the_wrong_place()
        self._malformed()
        self._failing_servers()
        self._dying_worker()

    def _send(self, method: str, path: str, **more: Any) -> Any:
        status, text = self._service.request(method, path, **more)
        return status, json.loads(text) if text.startswith("{") else None

    def _accounts(self) -> None:
        account = {"email": "new@example.com", "password": PASSWORDS[0], "name": "New"}
        status, answer = self._send("POST", "/api/auth/register", body=account)
        assert status == HTTPStatus.CREATED, answer
        for path in ("/api/auth/refresh", "/api/auth/refresh", "/api/auth/logout"):
            refresh_token = answer["refreshToken"]
            self.secrets |= {refresh_token, answer["accessToken"]}
            status, renewed = self._send("POST", path, body={"refreshToken": refresh_token})
            answer = renewed or answer
        assert status == HTTPStatus.NO_CONTENT
        self._send("POST", "/api/auth/refresh", body={"refreshToken": refresh_token})
        self._send("POST", "/api/auth/register", body=account)
        self._send("POST", "/api/auth/register", body={**account, "password": [PASSWORDS[1]]})

    def _admin(self) -> None:
        send = partial(self._send, token=self._service.admin_token)
        status, made = send("POST", "/api/admin/classes", body={"name": "Logs"})
        assert status == HTTPStatus.CREATED, made
        send("PATCH", f"/api/admin/classes/{made['id']}", body={"name": "Logs\nand\u2028lines"})
        send("DELETE", f"/api/admin/classes/{made['id']}")
        send("POST", "/api/metrics/cache/reset")
        send("GET", "/api/admin/analytics/users")
        self._send("POST", "/api/admin/classes", token=self._service.user_token, body={"name": "no"})
        for _ in range(15):  # strict: ten a minute
            send("DELETE", "/api/admin/rate-limits/nobody")

    def _secrets_in_the_wrong_place(self) -> None:
        token, password = self._service.user_token, quote(PASSWORDS[1])
        for path in (f"/api/classes?token={token}", f"/reset/{token}?password={password}", f"/{password}"):
            self._send("GET", path, token=token)
            self._send("DELETE", path, token=f"{token}x")
        self._send("GET", "/api/metrics", token=METRICS_TOKEN)
        self._send("PUT", f"/api/progress/cards/{token}", token=token, body={"confidenceLevel": PASSWORDS[1]})
        short = jwt.encode({"sub": "short enough to be an id"}, SECRET_KEY, algorithm="HS256")
        self.secrets.add(short)
        headers = f"Authorization: Bearer {token}\r\nX-Request-ID: {short}\r\nCookie: session={token}\r\n"
        headers += "User-Agent: Mozilla"
        self._raw(f"GET /api/classes HTTP/1.1\r\nHost: x\r\n{headers}\r\nConnection: close\r\n\r\n")

    def _malformed(self) -> None:
        self._raw("GET / HTTP/1.1\r\nno header\r\n\r\n")
        self._raw(f"NONSENSE password={PASSWORDS[1]}\r\n\r\n")
        self._raw("BREW /api/classes HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        body = f'{{"email": "new@example.com", "password": "{PASSWORDS[1]}"'
        head = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close"
        self._raw(f"POST /api/auth/login HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n{body}")

    def _raw(self, text: str) -> None:
        """Send bytes, and read until the service hangs up."""
        with socket.create_connection(("127.0.0.1", self._service.port), timeout=30) as connection:
            connection.sendall(text.encode())
            while connection.recv(65_536):
                pass

    def _failing_servers(self) -> None:
        """Every connection to Redis and to PostgreSQL is cut; both are found again."""
        with closing(redis.Redis.from_url(self._service.environment["REDIS_URL"])) as client:
            client.client_kill_filter(_type="normal", skipme=True)
        run_sql(
            self._service.environment["DATABASE_URL"],
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid != pg_backend_pid()",
        )
        for _ in range(20):
            self._send("GET", "/api/stats", token=self._service.user_token)
            self._send("GET", "/api/classes", token=self._service.admin_token)
        eventually(lambda: self._send("GET", "/readyz")[0] == HTTPStatus.OK, "it is ready again")

    def _dying_worker(self) -> None:
        def workers() -> list[psutil.Process]:
            return psutil.Process(self._service.process.pid).children(recursive=True)

        victim = max(workers(), key=lambda process: process.pid)
        victim.send_signal(signal.SIGKILL)
        eventually(lambda: not victim.is_running() and len(workers()) >= 2, "there is another worker")
        eventually(lambda: self._send("GET", "/readyz")[0] == HTTPStatus.OK, "it is ready again")
