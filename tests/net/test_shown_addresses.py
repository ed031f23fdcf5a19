"""What is left of a client's address in a log: always an address, never the whole one."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.net.addresses import Address, without_mapping, without_nat64
from server.net.shown_addresses import ShownAddresses, shown_addresses

KEY = "a key for tests only, long enough for HS256"
SHORT = ShownAddresses("short", KEY)
HASHED = ShownAddresses("hashed", KEY)
DISCARD = ip_network("100::/64")
V4 = IPv4Address("203.0.113.9")
V6 = IPv6Address("2001:db8:1:2:3:4:5:6")


def test_deploy_17_full_needs_nothing() -> None:
    """Nothing is made, so nothing can cost anything."""
    assert shown_addresses("full", KEY) is None


def test_deploy_17_short_is_the_network() -> None:
    """The last number of IPv4 goes, and all of IPv6 but the site's prefix."""
    assert ("203.0.113.0", "2001:db8:1::") == (SHORT.address(V4), SHORT.address(V6))


def test_deploy_17_a_hash_is_the_same_in_every_process_with_the_key() -> None:
    """A client is recognised across workers and restarts, and by nobody with another key."""
    shown = HASHED.address(V4)
    assert ip_address(shown) in DISCARD
    assert shown == ShownAddresses("hashed", KEY).address(V4)
    assert shown != ShownAddresses("hashed", f"{KEY}!").address(V4)
    assert shown != HASHED.address(IPv4Address("203.0.113.8"))
    # Written down, because a new way of hashing would make strangers of all clients in the old logs.
    assert "100::7357:a992:a2dd:79d7" == shown


def test_deploy_17_an_ipv6_client_is_hashed_by_its_network() -> None:
    """It may take any address of its /64; the next /64 is another client."""
    same, other = IPv6Address("2001:db8:1:2::ffff"), IPv6Address("2001:db8:1:3:3:4:5:6")
    assert HASHED.address(V6) == HASHED.address(same) != HASHED.address(other)


@given(st.ip_addresses())
def test_deploy_17_what_is_shown_stays_as_it_is(address: Address) -> None:
    """Any address is shown as a valid one, which shown again, as a field or in a text, is the same."""
    address = without_nat64(without_mapping(address))
    for shows in (SHORT, HASHED):
        shown = shows.address(address)
        again = ip_address(shown)
        assert shown == shows.address(again)
        event = {"client_ip": shown, "subject": shows.subject(f"ip:{address}")}
        assert event == shows.in_event(None, "info", dict(event))
        assert f"from {shown}: gone" == shows.in_text(f"from {shown}: gone")


@pytest.mark.parametrize(
    ("subject", "short"),
    [
        ("ip:203.0.113.9", "ip:203.0.113.0/24"),
        ("ip:203.0.113.0/24", "ip:203.0.113.0/24"),
        ("ip:2001:db8:1:2::/64", "ip:2001:db8:1::/48"),
        ("ip:2001:db8:1::/48", "ip:2001:db8:1::/48"),
        ("ip:2001:db8::/32", "ip:2001:db8::/32"),
        ("user:203.0.113.9", "user:203.0.113.9"),
        ("ip:somebody", "ip:somebody"),
        ("ip:203.0.113.9/x", "ip:203.0.113.0/24"),
    ],
)
def test_deploy_17_subjects_of_addresses_are_shown_likewise(subject: str, short: str) -> None:
    """A subject is cut to the same network; a hashed one is the hash of the client's `client_ip`."""
    assert short == SHORT.subject(subject)
    assert f"ip:{HASHED.address(V4)}" == HASHED.subject("ip:203.0.113.9")
    assert f"ip:{HASHED.address(V6)}" == HASHED.subject("ip:2001:db8:1:2::/64")


@pytest.mark.parametrize(
    "client_ip", ["10.1.2.3", "127.7.8.9", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3", "fe80::1:2:3%eth0"]
)
def test_deploy_17_a_field_shows_private_addresses_neither(client_ip: str) -> None:
    """In an intranet the clients are there: what stands in the field is a client's, whatever network it is of."""
    for shows in (SHORT, HASHED):
        event = shows.in_event(None, "info", {"client_ip": client_ip, "subject": f"ip:{client_ip}"})
        assert ip_address(event["client_ip"])
        for part in (client_ip, "1.2.3", "7.8.9", "1:2:3"):
            assert part not in str(event)


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("Error handling request from 203.0.113.9", "Error handling request from 203.0.113.0"),
        ("203.0.113.9:443 203.0.113.9, [203.0.113.9].", "203.0.113.0:443 203.0.113.0, [203.0.113.0]."),
        ("ip=203.0.113.9;ip:203.0.113.9", "ip=203.0.113.0;ip:203.0.113.0"),
        ("x203.0.113.9x", "x203.0.113.0x"),
        ("peer 2001:DB8:1:2:3::6: reset by [2001:db8:1:2::5]:80", "peer 2001:db8:1::: reset by [2001:db8:1::]:80"),
        ("ip:2001:db8:1:2::/64", "ip:2001:db8:1::/64"),
        ("('::ffff:203.0.113.9', 80)", "('203.0.113.0', 80)"),
        ("server 10.0.0.5:6379, 192.168.1.7, ::1, fd00::5, 0.0.0.0:8000", None),
        ("at 06:36:45, 1.2.3 and 1.2.3.4.5, aa:bb:cc:dd:ee:ff:00:11:22:33", None),
        ("a MAC aa:bb:cc:dd:ee:ff, 999.1.1.1, C++::name, a::", None),
        ("GET /api/admin/rate-limits/ip:10.1.2.3", "GET /api/admin/rate-limits/ip:10.1.2.0"),
        ("no address at all", None),
    ],
)  # fmt: skip
def test_deploy_17_texts_show_no_public_address(text: str, short: str | None) -> None:
    """Messages and exceptions, too; what is no address, or one of our own servers', stays."""
    assert (text if short is None else short) == SHORT.in_text(text)
    assert "203.0.113.9" not in HASHED.in_text(text)


def test_deploy_17_a_text_of_any_length_takes_no_time() -> None:
    """What looks like the beginning of an address again and again is judged once: the work grows with the length."""
    assert "1." * 100_000 == SHORT.in_text("1." * 100_000)
    assert "a:" * 100_000 == SHORT.in_text("a:" * 100_000)
