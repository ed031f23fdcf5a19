"""A client that sends bytes as they are, as no library would, and what it gets."""

from __future__ import annotations

import json
import re
import selectors
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any

WAIT_SECONDS = 60.0
_NEW_ID = re.compile(r"req_[0-9a-f]{32}")
# On every response, errors and refusals included.
STANDARD = {
    "cache-control", "content-type", "date", "referrer-policy", "server", "server-timing", "x-content-type-options",
    "x-frame-options", "x-performance-rating", "x-request-id", "x-response-time", "x-trace-id",
}  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """A response, taken apart."""

    version: str
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        """The problem of an error."""
        problem: dict[str, Any] = json.loads(self.body)
        return problem

    def check_problem(self, status: int) -> None:
        """It is an error in the service's form, with every header, and ends its connection."""
        assert status == self.status
        assert "HTTP/1.1" == self.version
        assert set() == STANDARD - self.headers.keys()
        assert "application/problem+json" == self.headers["content-type"]
        assert "no-store" == self.headers["cache-control"]
        assert "mastery" == self.headers["server"]
        assert "close" == self.headers["connection"]
        assert status == self.problem["status"]
        assert {"type", "title", "status", "detail", "code", "requestId"} <= self.problem.keys()
        assert self.problem["requestId"] == self.headers["x-request-id"]

    def check_new_id(self) -> None:
        """Its request has an id of ours."""
        assert _NEW_ID.fullmatch(self.headers["x-request-id"])


class Client:
    """One connection."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=WAIT_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""

    def send(self, data: bytes) -> None:
        """Send; an end of the connection is for the reader to find."""
        with suppress(OSError):
            self.socket.sendall(data)

    def read_all(self) -> bytes:
        """Everything up to the connection's end, which has to come."""
        while chunk := self._receive():
            self.received += chunk
        return self.received

    def read_answer(self) -> Answer:
        """The next answer; the connection stays as it is."""
        while b"\r\n\r\n" not in self.received:
            chunk = self._receive()
            assert chunk, f"the connection ended without an answer: {self.received!r}"
            self.received += chunk
        head, _, rest = self.received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        version, status, *_ = first.split(" ")
        fields = [line.partition(": ") for line in lines]
        headers = {name.lower(): value for name, _, value in fields}
        assert len(headers) == len(fields), lines
        length = int(headers.get("content-length", "0"))
        while len(rest) < length:
            chunk = self._receive()
            assert chunk, "the answer is not whole"
            rest += chunk
        self.received = rest[length:]
        return Answer(version, int(status), headers, rest[:length])

    def last_answer(self) -> Answer:
        """The next answer, after which the server closes the connection."""
        answer = self.read_answer()
        assert b"" == self.read_all()
        return answer

    def drip(self, data: bytes, every_seconds: float) -> None:
        """Send a byte at a time until something comes back; no byte later than WAIT_SECONDS."""
        latest = monotonic() + WAIT_SECONDS
        with selectors.DefaultSelector() as selector:
            selector.register(self.socket, selectors.EVENT_READ)
            for byte in data:
                self.send(bytes([byte]))
                if selector.select(every_seconds):
                    return
                assert monotonic() < latest, "it goes on and on"
        raise AssertionError("nothing came back")

    def is_open(self) -> bool:
        """Whether the server has neither answered nor closed."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.socket, selectors.EVENT_READ)
            return not selector.select(0)

    def _receive(self) -> bytes:
        try:
            return self.socket.recv(1 << 16)
        except ConnectionResetError as error:
            raise AssertionError(f"reset after {self.received!r}") from error


@contextmanager
def connected(port: int) -> Iterator[Client]:
    """A connection for the length of the block."""
    client = Client(port)
    try:
        yield client
    finally:
        client.socket.close()


def get(path: str, *headers: str) -> bytes:
    """A request without a body."""
    lines = "".join(f"{header}\r\n" for header in headers)
    return f"GET {path} HTTP/1.1\r\nHost: mastery\r\n{lines}\r\n".encode()


def post(path: str, *headers: str, length: int | None = None, body: bytes = b"") -> bytes:
    """A request with a JSON body, or with the start of one that is said to have `length` bytes."""
    lines = "".join(f"{header}\r\n" for header in ("Content-Type: application/json", *headers))
    if length is None and "chunked" not in lines:
        length = len(body)
    if length is not None:
        lines += f"Content-Length: {length}\r\n"
    return f"POST {path} HTTP/1.1\r\nHost: mastery\r\n{lines}\r\n".encode() + body
