"""Subjects of rate limits: whom an address, a user, an e-mail address or a login is counted as."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.domain.identity.subjects import parse_subject, subject_of_email, subject_of_family
from server.ratelimit.subjects import subject_of_address, subject_of_user, wider_subject_of_address


def test_point_13_addresses_are_counted_as_one_client_has_them() -> None:
    """IPv4 each on its own; IPv6 by /64 and, in the wider tier, by /48."""
    v6 = ip_address("2001:db8:1:2:3:4:5:6")
    assert subject_of_address(ip_address("192.0.2.1")) == "ip:192.0.2.1"
    assert subject_of_address(v6) == "ip:2001:db8:1:2::/64"
    assert wider_subject_of_address(v6) == "ip:2001:db8:1::/48"
    assert wider_subject_of_address(ip_address("192.0.2.1")) is None


@given(address=st.ip_addresses(v=6), other_bits=st.integers(0, 2**64 - 1))
def test_point_13_the_addresses_of_one_network_are_one_subject(address: IPv6Address, other_bits: int) -> None:
    """Changing the last 64 bits does not make another client."""
    neighbour = IPv6Address(int(address) >> 64 << 64 | other_bits)
    assert subject_of_address(address) == subject_of_address(neighbour)


def test_point_13_an_email_subject_hides_the_address_and_ignores_its_case() -> None:
    """Keys and logs show a digest; Ada@Example.ORG is no second account to guess at."""
    subject = subject_of_email("ada@example.org")
    assert subject == subject_of_email("  Ada@Example.ORG ")
    assert subject != subject_of_email("bob@example.org")
    assert "ada" not in subject
    assert len("email:") + 32 == len(subject)


USER = "0b7d4f2e-58c5-4d38-9d5c-2f6a4a3a1c11"


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        (f"user:{USER.upper()}", f"user:{USER}"),
        (f"user:{{{USER}}}", f"user:{USER}"),
        (" ip:192.0.2.1 ", "ip:192.0.2.1"),
        ("ip:192.0.2.1/32", "ip:192.0.2.1"),
        ("ip:::ffff:192.0.2.1", "ip:192.0.2.1"),
        ("ip:64:ff9b::192.0.2.1", "ip:192.0.2.1"),
        ("ip:2001:DB8:1:2::5", "ip:2001:db8:1:2::/64"),
        ("ip:2001:db8:1:2::5/128", "ip:2001:db8:1:2::/64"),
        ("ip:2001:db8:1:2::/64", "ip:2001:db8:1:2::/64"),
        ("ip:2001:db8:1::/48", "ip:2001:db8:1::/48"),
        ("email:Ada@example.org", subject_of_email("ada@example.org")),
        (subject_of_email("ada@example.org"), subject_of_email("ada@example.org")),
        ("email:\uff21da@example.org ", subject_of_email("ada@example.org")),
        ("family:00000000-0000-0000-0000-000000000001", subject_of_family(UUID(int=1).bytes)),
        (subject_of_family(b"a family"), subject_of_family(b"a family")),
    ],
)
def test_point_13_a_subject_is_read_as_it_is_counted(text: str, subject: str) -> None:
    """An operator's spelling and the limiter's key meet; what is printed can be typed in again."""
    assert subject == parse_subject(text)
    assert subject == parse_subject(subject)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "user:<uuid>"),
        ("192.0.2.1", "ip:<address>"),
        ("user:ada", "user:<uuid>"),
        ("ip:nowhere", "ip:192.0.2.1"),
        ("ip:192.0.2.0/24", "single addresses"),
        ("ip:2001:db8::/32", "/64 and by /48"),
        ("ip:2001:db8::1/64", "ip:2001:db8::/64"),
        ("email:ada", "email:<address>"),
        ("host:example.org", "user:<uuid>"),
    ],
)
def test_point_13_a_subject_that_is_none_says_how_one_reads(text: str, complaint: str) -> None:
    """Every message shows a form that is right."""
    with pytest.raises(ValueError, match=r".") as caught:
        parse_subject(text)
    assert complaint in str(caught.value)


def test_point_13_a_user_is_counted_by_id() -> None:
    """As text or UUID, the same user is the same subject."""
    assert subject_of_user(USER) == subject_of_user(UUID(USER)) == f"user:{USER}"
