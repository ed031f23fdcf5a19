"""Every code that an error answers with: its status, its cause, and what to do. docs/errors.md shows them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """One code: the status of the answers with it, when it happens, and what to do."""

    code: str
    status: int
    cause: str
    remedy: str


_AGAIN = "Send the same request again after `Retry-After` seconds, a write under the same `Idempotency-Key`."
_BUG = "A mistake of the service: report it with its `requestId`."

# By status, then in the order of how often they happen.
ERROR_CODES = tuple(
    ErrorCode(*row)
    for row in (
        ("invalid", 400, "A field, a parameter or a header is not valid.", "Correct what `errors` names."),
        ("malformed_body", 400, "The body is not JSON, or did not arrive whole.", "Correct the body."),
        (
            "invalid_deck_file",
            400,
            "The file of an import can't be read as cards.",
            "Correct the rows that `errors` names; docs/courses.md says how.",
        ),
        (
            "invalid_reset_token",
            400,
            "The one-time token is wrong, used or older than an hour.",
            "Ask an administrator for another one.",
        ),
        (
            "bad_request",
            400,
            "The request is not valid HTTP/1.1.",
            "Correct the client or the proxy between.",
        ),
        ("unauthenticated", 401, "There is no access token.", "Sign in and send `Authorization: Bearer …`."),
        (
            "invalid_token",
            401,
            "The access token has expired, or was not made for this service.",
            "Exchange the refresh token, or sign in again.",
        ),
        (
            "wrong_credentials",
            401,
            "The email address or the password is wrong, or the account is deactivated.",
            "Ask the person again. Too many failures are a 429.",
        ),
        (
            "invalid_refresh_token",
            401,
            "The refresh token was used before, has expired, or its sign-in has ended.",
            "Sign in again.",
        ),
        ("account_gone", 401, "The account no longer exists.", "Sign in with another one."),
        ("forbidden", 403, "The caller's role does not allow this.", "Sign in as an administrator."),
        (
            "network_blocked",
            403,
            "An operator has blocked the network or the client.",
            "Ask the operator of the service.",
        ),
        (
            "not_found",
            404,
            "There is nothing at this path, it is not published, or it is somebody else's.",
            "Read the list that the id is from again.",
        ),
        (
            "method_not_allowed",
            405,
            "The path does not know this method.",
            "Use one of those in the `Allow` header.",
        ),
        (
            "request_timeout",
            408,
            "The head or the body of the request did not arrive in time.",
            "Send it again on a new connection.",
        ),
        (
            "conflict",
            409,
            "The request contradicts what is stored: the session has ended, for example.",
            "Read `detail`, and the present state.",
        ),
        (
            "email_taken",
            409,
            "There is an account with this email address.",
            "Sign in, or take another address.",
        ),
        (
            "no_password",
            409,
            "The account has no password: it signs in with an external issuer.",
            "Leave the password out, or change it at the issuer.",
        ),
        (
            "external_account",
            409,
            "The account's password is kept by an external issuer.",
            "Reset it there.",
        ),
        (
            "last_admin",
            409,
            "This is the last administrator who can sign in.",
            "Make another one first.",
        ),
        (
            "limits_unreadable",
            409,
            "Redis holds something else under the key of this client's limits.",
            "Reset them: DELETE /api/admin/rate-limits/{subject}.",
        ),
        (
            "body_too_large",
            413,
            "The body is larger than 1 MiB, or 10 MiB for an import.",
            "Send it in parts.",
        ),
        ("too_many_rows", 413, "The file has more than 100,000 rows.", "Send it in parts."),
        ("uri_too_long", 414, "The address is longer than 32 kB.", "Send fewer parameters."),
        (
            "unsupported_media_type",
            415,
            "The Content-Type, or its charset, is not one that this operation reads.",
            "Send `application/json`, or what the operation lists.",
        ),
        (
            "unsupported_content_encoding",
            415,
            "The Content-Encoding is neither gzip nor deflate.",
            "Use one of those in the `Accept-Encoding` header, or none.",
        ),
        (
            "expectation_failed",
            417,
            "The `Expect` header asks for something else than `100-continue`.",
            "Leave it out.",
        ),
        (
            "idempotency_key_reused",
            422,
            "Another request of the last 24 hours had this `Idempotency-Key`.",
            "Take a new key for each new request.",
        ),
        (
            "unknown_time_zone",
            422,
            "There is no such time zone.",
            "Send an IANA name, such as `Europe/Berlin`.",
        ),
        (
            "rate_limited",
            429,
            "A rate limit has no room for this request; `violated-policies` names it.",
            "Wait for `Retry-After` seconds.",
        ),
        (
            "request_header_fields_too_large",
            431,
            "A header is larger than 16 KiB, or all together are larger than 128 KiB.",
            "Send fewer or shorter headers: cookies, mostly.",
        ),
        ("internal", 500, "Something went wrong in the service.", _BUG),
        ("internal_server_error", 500, "The same, before the request was understood.", _BUG),
        ("unavailable", 503, "A part that the request needs does not answer.", _AGAIN),
        ("service_unavailable", 503, "There are too many connections.", _AGAIN),
        ("read_only", 503, "The database takes no writes at the moment; reading goes on.", _AGAIN),
        (
            "disk_full",
            503,
            "The database has no room for what is new; reading goes on.",
            f"{_AGAIN} An operator has to make room.",
        ),
        ("schema", 503, "The database is being brought up to date.", _AGAIN),
        (
            "too_many_passwords",
            503,
            "Too many passwords are being checked at the moment.",
            _AGAIN,
        ),
        (
            "too_many_at_once",
            503,
            "Too many writes of this account are under way.",
            "Send one write after the other.",
        ),
        (
            "too_many_unread",
            503,
            "Too many large answers wait for their readers.",
            f"{_AGAIN} Read answers without a pause.",
        ),
        (
            "import_timed_out",
            503,
            "The import took too long, and was undone.",
            "Send the file in parts.",
        ),
    )
)
