"""The guard in front of every connection."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from dispatcher.core.addresses import AddressPolicy
from dispatcher.core.errors import ForbiddenAddressError
from dispatcher.core.urls import parse_endpoint_url
from dispatcher.http.guard import check_target, find_addresses

POLICY = AddressPolicy(allowed_networks=(IPv4Network("10.1.0.0/16"),))
URL = parse_endpoint_url("https://example.com/")


class Names:
    """A resolver that knows one answer and counts."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.asked = []

    async def resolve(self, name, workspace_id):
        """Return the answer, and note the question."""
        self.asked.append((name, workspace_id))
        return self.addresses


async def test_checked_addresses_come_back_in_order():
    """Allowed addresses are returned as resolved, asked for in the workspace's name."""
    names = Names("2606:4700::1111", "1.1.1.1", "10.1.2.3")
    assert await find_addresses(URL, "ws", POLICY, names) == names.addresses
    assert names.asked == [("example.com", "ws")]


@pytest.mark.parametrize("bad", ["127.0.0.1", "::1", "10.2.0.1", "::ffff:127.0.0.1", "64:ff9b::a00:1"])
@pytest.mark.parametrize("place", [0, 1, 2])
async def test_one_forbidden_answer_refuses_all(bad, place):
    """Wherever the forbidden address stands among the answers, none is used."""
    addresses = ["1.1.1.1", "8.8.8.8"]
    addresses.insert(place, bad)
    with pytest.raises(ForbiddenAddressError):
        await find_addresses(URL, "ws", POLICY, Names(*addresses))


async def test_literals_are_never_looked_up():
    """An IP literal in any notation is its own address, allowed or refused without a look-up."""
    names = Names("1.1.1.1")
    assert await find_addresses(parse_endpoint_url("https://0x0a010001/"), "ws", POLICY, names) == ("10.1.0.1",)
    with pytest.raises(ForbiddenAddressError):
        await find_addresses(parse_endpoint_url("https://0x7f.1/"), "ws", POLICY, names)
    assert names.asked == []


def test_scheme_and_port_are_checked_with_the_target():
    """A scheme or port that the operator doesn't allow is refused before anything is asked."""
    for url in ("http://example.com/", "https://example.com:22/"):
        with pytest.raises(ForbiddenAddressError):
            check_target(parse_endpoint_url(url), POLICY)
    assert check_target(parse_endpoint_url("https://10.1.0.1/"), POLICY) == IPv4Address("10.1.0.1")
