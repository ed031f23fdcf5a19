"""Which request the code is working for: in every log line and in the comment of every query."""

from __future__ import annotations

from contextvars import ContextVar

from server.telemetry.context import TraceContext


class RequestContext:
    """What identifies a request. One object that is filled in as more is known, not a variable for each fact."""

    __slots__ = ("request_id", "trace", "trace_id", "user_id")

    def __init__(self, request_id: str, trace_id: str, trace: TraceContext | None = None) -> None:
        self.request_id = request_id
        self.trace_id = trace_id
        self.trace = trace
        self.user_id: str | None = None

    def fields(self) -> dict[str, str]:
        """As fields of a log line."""
        fields = {"request_id": self.request_id, "trace_id": self.trace_id}
        if self.user_id is not None:
            fields["user_id"] = self.user_id
        return fields


current_request: ContextVar[RequestContext | None] = ContextVar("current_request", default=None)


def outgoing_headers() -> dict[str, str]:
    """What a call to another service says about the trace it is part of; nothing where there is none."""
    request = current_request.get()
    return {} if request is None or request.trace is None else request.trace.headers()
