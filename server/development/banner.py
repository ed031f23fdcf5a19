"""What a person sees when the development service is ready."""

from __future__ import annotations

import shlex


def banner(address: str, tokens: dict[str, str], *, colours: bool) -> str:
    """The address, the demo accounts' tokens, and commands that work when pasted.

    Args:
        address: of the service, such as "http://127.0.0.1:8000".
        tokens: an access token by role.
        colours: for a terminal.
    """
    bold, reset = ("\x1b[1m", "\x1b[0m") if colours else ("", "")
    lines = ["", f"{bold}Mastery is ready: {address}{reset}", ""]
    for role, token in tokens.items():
        lines += [f"The demo {role}'s token:", token, ""]
    user = shlex.quote(f"Authorization: Bearer {tokens['user']}")
    admin = shlex.quote(f"Authorization: Bearer {tokens['admin']}")
    lines += [
        "Try:",
        f"curl -i {address}/api/health",
        f"curl -i -H {user} {address}/api/classes",
        f"curl -i -H {admin} {address}/api/admin/analytics/users",
        "",
        f"{bold}Ctrl-C stops it.{reset} Its data stays for the next time; make clean removes it.",
        "",
    ]
    return "\n".join(lines)
