"""Errors: each with the HTTP status and the stable code that it is answered with; and the errors of commands.

Any error can be given as one word, or as one line that is safe to show.
"""

from __future__ import annotations

import re
import socket
import ssl
from typing import ClassVar


class MasteryError(Exception):
    """The service can't do what was asked."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal Server Error"
    # Whether what is left of the request can't be read, so that its connection is of no more use.
    ends_connection: ClassVar[bool] = False

    def __init__(self, detail: str | None = None) -> None:
        self.detail = detail if detail is not None else (type(self).__doc__ or "").strip()
        super().__init__(self.detail)


class InvalidInput(MasteryError):
    """The request is not valid."""

    status = 400
    code = "invalid"
    title = "Bad Request"

    def __init__(
        self, detail: str | None = None, *, errors: dict[str, str] | None = None, unlisted: int = 0
    ) -> None:
        """Args: detail: the whole in a sentence; errors: a message by dotted field path (`ratings.0.flashcardId`).

        unlisted: how many more errors there are beside these.
        """
        super().__init__(detail)
        self.errors = errors or {}
        self.unlisted = unlisted


class MalformedBody(InvalidInput):
    """The body is not valid JSON."""

    code = "malformed_body"


class IncompleteBody(MalformedBody):
    """The body did not arrive whole."""

    ends_connection = True

    def __init__(self, message: str = "It did not arrive whole.") -> None:
        """Args: message: what is wrong with it."""
        super().__init__(errors={"body": message})


class RequestTimeout(MasteryError):
    """The body of the request did not arrive in time."""

    status = 408
    code = "request_timeout"
    title = "Request Timeout"
    ends_connection = True


class ClientDisconnected(MasteryError):
    """The client hung up before its request was complete, or before it was answered."""

    status = 499  # as nginx calls it; nobody gets this answer, but the log line and the metrics say it
    code = "client_disconnected"
    title = "Client Closed Request"
    ends_connection = True


class UnsupportedMediaType(MasteryError):
    """The body must be JSON: send Content-Type: application/json."""

    status = 415
    code = "unsupported_media_type"
    title = "Unsupported Media Type"


class UnsupportedContentEncoding(UnsupportedMediaType):
    """The body's Content-Encoding must be gzip or deflate, or none."""

    code = "unsupported_content_encoding"


class BodyTooLarge(MasteryError):
    """The body is larger than this route accepts: 1 MiB, or 10 MiB for an import."""

    status = 413
    code = "body_too_large"
    title = "Content Too Large"


class Unauthenticated(MasteryError):
    """A valid access token is required."""

    status = 401
    code = "unauthenticated"
    title = "Unauthorized"


class AccountGone(Unauthenticated):
    """This account no longer exists."""

    code = "account_gone"


class Forbidden(MasteryError):
    """Your role does not allow this."""

    status = 403
    code = "forbidden"
    title = "Forbidden"


class NetworkBlocked(Forbidden):
    """Requests from your network are not accepted."""

    code = "network_blocked"


class NotFound(MasteryError):
    """There is nothing here, or nothing that you may see."""

    status = 404
    code = "not_found"
    title = "Not Found"


class Conflict(MasteryError):
    """The request contradicts what is stored."""

    status = 409
    code = "conflict"
    title = "Conflict"


class LimitsUnreadable(Conflict):
    """Redis holds something for this client that is not a state of its rate limits; a reset (DELETE) forgets it."""

    code = "limits_unreadable"


class ServiceUnavailable(MasteryError):
    """A part that this request needs is not available; try again shortly."""

    status = 503
    code = "unavailable"
    title = "Service Unavailable"

    def __init__(self, detail: str | None = None, *, retry_after_seconds: int = 1) -> None:
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds


class TooManyUnread(ServiceUnavailable):
    """Too many large answers wait for their readers; try again shortly."""

    code = "too_many_unread"


class CommandError(Exception):
    """A command can't do what it was asked; the message is a sentence: what is wrong, what would help."""


_WORD = re.compile(r"[a-z][a-z_]{0,31}")
# The first kind that fits gives the word.
_WORDS: tuple[tuple[type[BaseException], str], ...] = (
    (TimeoutError, "timeout"),
    (ConnectionRefusedError, "refused"),
    (ConnectionError, "lost"),
    (ssl.SSLError, "tls"),
    (socket.gaierror, "unresolved"),
    (OSError, "unreachable"),
)


def error_word(error: BaseException) -> str:
    """A failure in a short word that is safe to show: never a driver's text, which names hosts and users.

    The word is the `reason` that our own errors carry, that of the error's cause, or the kind of the
    operating system's.
    """
    seen: BaseException | None = error
    while seen is not None:
        reason = getattr(seen, "reason", None)
        if isinstance(reason, str) and _WORD.fullmatch(reason):
            return reason
        for kind, word in _WORDS:
            if isinstance(seen, kind):
                return word
        seen = seen.__cause__
    return "error"


def first_line(error: BaseException) -> str:
    """What an error of PostgreSQL says without its details, which may hold values of rows."""
    return str(error).strip().partition("\n")[0]
