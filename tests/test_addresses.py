"""Which address a client counts as: whom the gateway believes, and what it does with headers that lie."""

from __future__ import annotations

import pytest

from gateway.addresses import HOPS_MAX, Addresses

TRUSTED = ("10.0.0.0/8", "2001:db8:1::/48", "127.0.0.1")


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("203.0.113.5", [], "203.0.113.5"),
        ("203.0.113.5", ["198.51.100.7"], "203.0.113.5"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["192.0.2.1, 198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["192.0.2.1, 198.51.100.7, 10.2.3.4"], "198.51.100.7"),
        ("10.0.0.1", ["192.0.2.1", "198.51.100.7 , 10.2.3.4"], "198.51.100.7"),
        ("10.0.0.1", ["10.9.9.9, 10.2.3.4"], "10.9.9.9"),
        ("127.0.0.1", ["198.51.100.7:4711"], "198.51.100.7"),
        ("127.0.0.1", ["[2001:db8:2:3::9]:4711"], "2001:db8:2:3::/64"),
        ("::ffff:10.0.0.1", ["::ffff:198.51.100.7"], "198.51.100.7"),
        ("::ffff:203.0.113.5", [], "203.0.113.5"),
        ("2001:db8:1::1", ["192.0.2.1"], "192.0.2.1"),
        ("2001:db8:2:3:aaaa::1", [], "2001:db8:2:3::/64"),
        ("2001:db8:2:3:bbbb::2", ["192.0.2.1"], "2001:db8:2:3::/64"),
        ("fe80::1%eth0", [], "fe80::/64"),
        ("", [], ""),
        ("", ["192.0.2.1"], ""),
    ],
)
def test_address_is_the_right_most_hop_that_is_no_trusted_proxy(peer: str, forwarded: list[str], expected: str) -> None:
    """Headers of others are not read; an IPv6 address counts by its /64."""
    assert expected == Addresses(TRUSTED).client(peer, forwarded)


@pytest.mark.parametrize(
    "bad", ["", "unknown", "198.51.100.7, x", "x, 10.0.0.2", "1.2.3", "1.2.3.4.5", "999.1.1.1", "[", ",", "\0"]
)
def test_bad_header_of_a_trusted_proxy_falls_back_to_the_peer(bad: str) -> None:
    """A header that cannot be read up to the client is not believed at all."""
    assert "10.0.0.1" == Addresses(TRUSTED).client("10.0.0.1", [bad])


def test_what_stands_left_of_the_client_is_not_read() -> None:
    """A client may have sent anything: the proxy's own words behind it count."""
    assert "198.51.100.7" == Addresses(TRUSTED).client("10.0.0.1", ["garbage, 10.0.0.3, 198.51.100.7"])


def test_endless_header_is_read_up_to_a_limit() -> None:
    """Of a chain of trusted hops the right-most few are read."""
    chain = [f"10.0.0.{number % 250}" for number in range(HOPS_MAX * 10)]
    assert chain[-HOPS_MAX] == Addresses(TRUSTED).client("10.0.0.1", [",".join(["x", *chain])])


def test_nobody_is_trusted_by_default() -> None:
    """Without the setting no header is believed, not even from this machine."""
    assert "127.0.0.1" == Addresses(()).client("127.0.0.1", ["198.51.100.7"])
