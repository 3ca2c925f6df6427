"""Who calls, where proxies stand in between."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.client_address import client_address, network_of, read_address

TRUSTED = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client"),
    [
        ("203.0.113.7", [], "203.0.113.7"),
        ("203.0.113.7", ["198.51.100.1"], "203.0.113.7"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", ["198.51.100.1", "10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", ["192.0.2.9, 198.51.100.1,10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1, unknown, 10.0.0.2"], "10.0.0.2"),
        ("::ffff:10.0.0.1", ["198.51.100.1:4711"], "198.51.100.1"),
        ("fd00::1", ['"[2001:DB8::5]:80"'], "2001:db8::5"),
        ("10.0.0.1", ["::ffff:198.51.100.1"], "198.51.100.1"),
        ("", ["198.51.100.1"], ""),
        ("/run/api.sock", ["198.51.100.1"], "/run/api.sock"),
    ],
)
def test_the_first_that_is_not_trusted_is_the_client(peer, forwarded_for, client):
    """From the right, proxies of the operator are gone past; what none of them wrote is never believed."""
    assert client_address(peer, forwarded_for, TRUSTED) == client


def test_a_long_list_is_not_read_to_its_end():
    """Whoever sends thousands of hops through trusted proxies costs a bounded number of looks."""
    assert client_address("10.0.0.1", [",".join(["198.51.100.1"] + ["10.0.0.2"] * 10_000)], TRUSTED) == "10.0.0.2"


@given(st.text(max_size=60), st.lists(st.text(max_size=60), max_size=4))
def test_any_text_gives_an_address_or_the_peer(peer, forwarded_for):
    """Nothing that a header may hold is a fault, and the answer is never a text that was only sent along."""
    client = client_address(peer, forwarded_for, TRUSTED)
    assert client == peer or read_address(client) is not None


@pytest.mark.parametrize(
    ("address", "counted_as"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("nobody", "nobody"),
        ("", ""),
    ],
)
def test_a_subscriber_of_ipv6_is_counted_as_a_network(address, counted_as):
    """IPv4 addresses count one by one, IPv6 ones by 64 bits."""
    assert network_of(address) == counted_as
