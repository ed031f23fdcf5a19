"""Where the web process listens, and how one finds out that it does."""

from __future__ import annotations

import os
import socket

import pytest

from server.cli.web import check_port, is_ready, local_address
from server.errors import CommandError


def test_a_taken_port_is_named_with_its_variable() -> None:
    """The error says what to set."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(CommandError, match=rf"PORT: {port} of 127\.0\.0\.1 is in use.*PORT="):
            check_port("127.0.0.1", port)
        with pytest.raises(CommandError, match="PORT"):
            check_port("0.0.0.0", port)


def test_a_free_port_stays_free() -> None:
    """Looking at a port does not take it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)
    assert not is_ready("127.0.0.1", port)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1"])
def test_a_host_that_is_not_ours_is_named_with_its_variable(host: str) -> None:
    """A name without an address, and an address of somebody else."""
    with pytest.raises(CommandError, match=f"HOST: can't listen on {host}"):
        check_port(host, 8000)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may listen on every port")
def test_a_privileged_port_is_named_with_its_variable() -> None:
    """An ordinary user is told which ports are theirs."""
    with pytest.raises(CommandError, match="PORT: 1 is for privileged users"):
        check_port("127.0.0.1", 1)


def test_every_address_is_reached_by_the_loopback() -> None:
    """What is printed works when pasted: nobody can connect to "every address"."""
    assert ("127.0.0.1", 80) == local_address("0.0.0.0", 80)
    assert ("::1", 80) == local_address("::", 80)
    assert ("192.0.2.1", 80) == local_address("192.0.2.1", 80)
