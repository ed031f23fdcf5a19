"""Addresses: which one is the client's, behind proxies of every kind; and how it is shown, shortened or hashed."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.net import (
    Address,
    ShownAddresses,
    TrustedProxies,
    client_address,
    shown_addresses,
    without_mapping,
    without_nat64,
)
from server.settings import Settings, SettingsError

NOBODY = TrustedProxies.parse("")
ONE_HOP = TrustedProxies.parse("1")
OUR_NETWORK = TrustedProxies.parse("10.0.0.0/8, fd00::/8")
PROXY = "10.0.0.1"
CLIENT = "198.51.100.7"
KEY = "a key for tests only, long enough for HS256"
SHORT = ShownAddresses("short", KEY)
HASHED = ShownAddresses("hashed", KEY)
DISCARD = ip_network("100::/64")
V4 = IPv4Address("203.0.113.9")
V6 = IPv6Address("2001:db8:1:2:3:4:5:6")


def address_of(
    peer: str | None,
    *,
    forwarded: list[str] | None = None,
    x_forwarded_for: list[str] | None = None,
    trusted: TrustedProxies = OUR_NETWORK,
) -> str:
    return str(client_address(peer, forwarded or [], x_forwarded_for or [], trusted))


def test_point_13_without_trusted_proxies_only_the_peer_counts() -> None:
    """Nobody's header is believed unless the settings name who may write it."""
    found = address_of(CLIENT, forwarded=["for=1.1.1.1"], x_forwarded_for=["1.1.1.1"], trusted=NOBODY)
    assert found == CLIENT


def test_point_13_an_untrusted_peer_is_the_client_whatever_it_sends() -> None:
    """A caller outside of the trusted networks can't name another address."""
    assert address_of(CLIENT, x_forwarded_for=["1.1.1.1"]) == CLIENT
    assert address_of(CLIENT, forwarded=["for=1.1.1.1"]) == CLIENT


def test_mistake_trusting_the_first_x_forwarded_for_entry() -> None:
    """The list is read from the right, where the proxies append; its first entry is the caller's to write."""
    assert address_of(PROXY, x_forwarded_for=[f"1.1.1.1, {CLIENT}"]) == CLIENT
    assert address_of(PROXY, x_forwarded_for=[f"1.1.1.1, {CLIENT}"], trusted=ONE_HOP) == CLIENT


def test_point_13_trusted_networks_are_walked_through_to_the_first_outsider() -> None:
    """A chain of proxies ends at the first address that is not one of theirs."""
    assert address_of(PROXY, x_forwarded_for=[f"1.1.1.1, {CLIENT}, 10.2.3.4, fd00::9"]) == CLIENT
    assert address_of(PROXY, forwarded=[f'for=1.1.1.1, for={CLIENT}, for="[fd00::9]:80"']) == CLIENT


def test_point_13_hops_count_proxies_whatever_their_addresses() -> None:
    """Two hops are the peer and one entry; the entry before that is the client."""
    header = ["1.1.1.1, 2.2.2.2, 3.3.3.3"]
    assert address_of("9.9.9.9", x_forwarded_for=header, trusted=ONE_HOP) == "3.3.3.3"
    assert address_of("9.9.9.9", x_forwarded_for=header, trusted=TrustedProxies.parse("2")) == "2.2.2.2"


def test_point_13_a_chain_shorter_than_the_hops_ends_at_its_far_end() -> None:
    """A request through fewer proxies than configured is counted by the farthest address there is."""
    assert address_of(PROXY, x_forwarded_for=[CLIENT], trusted=TrustedProxies.parse("5")) == CLIENT


def test_point_13_several_header_lines_are_one_list() -> None:
    """Lines are joined in the order received, so that the last one is the nearest proxy's."""
    assert address_of(PROXY, x_forwarded_for=["1.1.1.1", CLIENT]) == CLIENT
    assert address_of(PROXY, forwarded=["for=1.1.1.1", f"for={CLIENT}"]) == CLIENT


@pytest.mark.parametrize(
    "element",
    [
        f"for={CLIENT}",
        f'For="{CLIENT}"',
        f'for="{CLIENT}:47011"',
        f'by=10.0.0.1;proto=https;FOR="{CLIENT}";host="a,b;c"',
        f'for="{CLIENT}:_hidden"; host="say \\"hi, there\\""',
        f'for="\\{CLIENT}"',
    ],
)
def test_point_13_forwarded_is_read_as_rfc_7239_writes_it(element: str) -> None:
    """Names in any case, quoted values with escapes, ports, other parameters, separators inside of quotes."""
    assert address_of(PROXY, forwarded=[f"for=1.1.1.1,{element}"]) == CLIENT


@pytest.mark.parametrize("node", ["2001:db8:cafe::17", "[2001:db8:cafe::17]", "[2001:db8:cafe::17]:4711"])
def test_point_13_ipv6_nodes_are_read_with_and_without_brackets_and_ports(node: str) -> None:
    """Both headers carry IPv6, quoted in Forwarded."""
    assert address_of(PROXY, forwarded=[f'for="{node}"']) == "2001:db8:cafe::17"
    assert address_of(PROXY, x_forwarded_for=[node]) == "2001:db8:cafe::17"


def test_point_13_an_ipv4_entry_may_have_a_port() -> None:
    """Some load balancers append the port to X-Forwarded-For."""
    assert address_of(PROXY, x_forwarded_for=[f"{CLIENT}:52100"]) == CLIENT


@pytest.mark.parametrize(
    "node",
    [
        "unknown",
        "_hidden",
        "",
        "unix:",
        "300.1.1.1",
        "1.1.1.1:http",
        "[2001:db8::1",
        "[1.1.1.1]:80",
        "x" * 5000,
        "1.1.1.1 2.2.2.2",
        "١.1.1.1",  # noqa: RUF001 - a digit, but not an ASCII one.
    ],
)
def test_point_13_an_unreadable_hop_ends_the_walk_at_the_proxy_that_wrote_it(node: str) -> None:
    """Obfuscated identifiers, `unknown` and garbage name nobody: the last trustworthy address counts."""
    assert address_of(PROXY, x_forwarded_for=[f"1.1.1.1, {node}, 10.0.0.2"]) == "10.0.0.2"
    assert address_of(PROXY, forwarded=[f'for=1.1.1.1, for="{node}", for=10.0.0.2']) == "10.0.0.2"


@pytest.mark.parametrize("element", ["proto=https", "for=2.2.2.2;for=3.3.3.3", "", "for", "2.2.2.2"])
def test_point_13_a_hop_without_exactly_one_for_names_nobody(element: str) -> None:
    """RFC 7239 allows one `for` an element; more or less is nothing to rely on."""
    assert address_of(PROXY, forwarded=[f"for=1.1.1.1, {element}, for=10.0.0.2"]) == "10.0.0.2"


def test_point_13_when_both_headers_are_there_only_what_both_say_is_believed() -> None:
    """One of them may be invented; agreeing, they are as good as one, and differing, they name nobody."""
    agreeing = address_of(PROXY, forwarded=[f"for={CLIENT}"], x_forwarded_for=[f"1.1.1.1, {CLIENT}"])
    differing = address_of(PROXY, forwarded=["for=1.1.1.1"], x_forwarded_for=[CLIENT])
    assert agreeing == CLIENT
    assert differing == PROXY


def test_point_13_a_named_header_is_the_only_one_read() -> None:
    """Who says which header the proxies write gets that one, with or without the other beside it."""
    by_x = TrustedProxies.parse("10.0.0.0/8, X-Forwarded-For")
    by_forwarded = TrustedProxies.parse("forwarded, 1")
    both = {"forwarded": ["for=1.1.1.1"], "x_forwarded_for": ["2.2.2.2"]}
    assert address_of(PROXY, **both, trusted=by_x) == "2.2.2.2"
    assert address_of(PROXY, **both, trusted=by_forwarded) == "1.1.1.1"
    assert address_of(PROXY, forwarded=["for=1.1.1.1"], trusted=by_x) == PROXY
    assert address_of(PROXY, x_forwarded_for=["2.2.2.2"], trusted=by_forwarded) == PROXY


@pytest.mark.parametrize("peer", [None, "", "/run/mastery.sock"])
def test_point_13_a_unix_socket_counts_as_the_local_machine(peer: str | None) -> None:
    """A peer without an address is a process here: 127.0.0.1, for trust and for counting."""
    assert address_of(peer, x_forwarded_for=[CLIENT]) == "127.0.0.1"
    assert address_of(peer, x_forwarded_for=[CLIENT], trusted=TrustedProxies.parse("127.0.0.1")) == CLIENT
    assert address_of(peer, x_forwarded_for=[CLIENT], trusted=ONE_HOP) == CLIENT


def test_point_13_an_ipv4_mapped_address_is_its_ipv4_address() -> None:
    """A dual-stack socket shows ::ffff:10.0.0.1 for the proxy at 10.0.0.1; both are the same."""
    assert address_of("::ffff:10.0.0.1", x_forwarded_for=[f"::ffff:{CLIENT}"]) == CLIENT
    mapped = TrustedProxies.parse("::ffff:10.0.0.0/104")
    assert address_of("10.0.0.1", x_forwarded_for=[CLIENT], trusted=mapped) == CLIENT


def test_point_13_a_nat64_address_is_its_ipv4_address() -> None:
    """64:ff9b::/96 carries the IPv4 address in its last 32 bits (RFC 6052), however it is written."""
    assert address_of("64:ff9b::c633:6407") == CLIENT
    assert address_of(PROXY, x_forwarded_for=[f"64:ff9b::{CLIENT}"]) == CLIENT


@pytest.mark.parametrize("near", ["64:ff9b:1::c633:6407", "64:ff9b::1:c633:6407", "::1:c633:6407"])
def test_point_13_only_the_well_known_nat64_prefix_is_unwrapped(near: str) -> None:
    """Next to 64:ff9b::/96 and ::ffff:0:0/96 an address is an IPv6 address like any other."""
    assert address_of(near) == near


def test_point_13_a_nat64_address_is_not_trusted_as_the_private_address_inside_it() -> None:
    """RFC 6052 forbids 64:ff9b::10.0.0.1, so who shows it is not the proxy at 10.0.0.1."""
    assert address_of("64:ff9b::10.0.0.1", x_forwarded_for=["1.1.1.1"]) == "10.0.0.1"


def test_point_13_the_zone_of_a_link_local_address_is_left_out() -> None:
    """The interface of the proxy is no part of who calls."""
    assert address_of("fe80::1%eth0") == "fe80::1"


header_text = st.text(
    alphabet=st.one_of(
        st.sampled_from(' \t,;="\\[]:_.%for1234567890abcdefx'),
        st.characters(codec="latin-1"),
    ),
    max_size=60,
)


clients = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).filter(
    lambda address: not any(address in network for network in OUR_NETWORK.networks)
)


def as_element(address: IPv4Address | IPv6Address) -> str:
    return f"for={address}" if address.version == 4 else f'for="[{address}]:443"'


@given(client=clients, prefix=header_text, lines=st.lists(header_text, max_size=3))
@pytest.mark.parametrize("trusted", [OUR_NETWORK, ONE_HOP])
def test_point_13_text_in_front_of_what_the_proxy_appends_changes_nothing(
    trusted: TrustedProxies, client: IPv4Address | IPv6Address, prefix: str, lines: list[str]
) -> None:
    """Whatever a caller sends in a header, the address that the trusted proxy appends is the one found."""
    honest = client_address(PROXY, [], [str(client)], trusted)
    assert honest == client_address(PROXY, [], [*lines, f"{prefix}, {client}"], trusted)
    assert honest == client_address(PROXY, [*lines, f"{prefix}, {as_element(client)}"], [], trusted)


@given(client=clients, prefix=header_text, invented=st.lists(header_text, min_size=1, max_size=3))
def test_point_13_a_header_the_proxy_does_not_write_names_nobody_new(
    client: IPv4Address | IPv6Address, prefix: str, invented: list[str]
) -> None:
    """With an invented second header the caller stays itself or becomes the proxy, never somebody else."""
    honest = {client_address(PROXY, [], [str(client)], OUR_NETWORK), ip_address(PROXY)}
    assert client_address(PROXY, invented, [f"{prefix}, {client}"], OUR_NETWORK) in honest
    assert client_address(PROXY, [f"{prefix}, {as_element(client)}"], invented, OUR_NETWORK) in honest
    pinned = TrustedProxies.parse("10.0.0.0/8, x-forwarded-for")
    assert client_address(PROXY, invented, [f"{prefix}, {client}"], pinned) in honest - {ip_address(PROXY)}


@given(forwarded=st.lists(header_text, max_size=3), x_forwarded_for=st.lists(header_text, max_size=3))
def test_point_13_no_header_text_breaks_the_reading(forwarded: list[str], x_forwarded_for: list[str]) -> None:
    """Any text at all gives some address."""
    found = client_address(PROXY, forwarded, x_forwarded_for, TrustedProxies.parse("16"))
    assert isinstance(found, IPv4Address | IPv6Address)


@pytest.mark.parametrize(
    ("text", "hops", "networks"),
    [
        ("", 0, []),
        ("0", 0, []),
        (" 2 ", 2, []),
        ("10.0.0.0/8,, 192.0.2.7", 0, ["10.0.0.0/8", "192.0.2.7/32"]),
        ("2001:DB8::/32", 0, ["2001:db8::/32"]),
    ],
)
def test_point_13_trusted_proxies_are_networks_or_a_number(text: str, hops: int, networks: list[str]) -> None:
    """Networks, single addresses or one number; nothing means nobody."""
    parsed = TrustedProxies.parse(text)
    assert (hops, networks) == (parsed.hops, [str(network) for network in parsed.networks])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("10.0.0.1/8", "host bits"),
        ("proxy.example", "proxy.example"),
        ("-1", "-1"),
        ("33", "too many"),
        ("1, 10.0.0.0/8", "mixes"),
        ("1, 2", "mixes"),
        ("0.0.0.0/0", "every client"),
        ("::/0", "every client"),
        ("::ffff:0:0/96", "every client"),
        ("forwarded, x-forwarded-for, 1", "two headers"),
    ],
)
def test_point_13_a_wrong_setting_says_what_is_accepted(text: str, complaint: str) -> None:
    """The message names what is wrong, and both forms that are right."""
    environment = {
        "DATABASE_URL": "postgresql://h/d",
        "REDIS_URL": "redis://h",
        "SECRET_KEY": "k" * 32,
        "TRUSTED_PROXIES": text,
    }
    with pytest.raises(SettingsError, match="number of hops") as caught:
        Settings.from_env(environment)
    assert complaint in str(caught.value)


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
