"""Every block of the IANA special-purpose address registries, one row each.

The rule is stricter than the registries: a block is refused whether or not it is marked globally reachable there
(PCP, TURN, AMT, AS112 and the like: no webhook lives there, and some are answered by a router near by). The one
exception is 64:ff9b::/96, which is judged by the IPv4 address inside.

Source: the registries iana-ipv4-special-registry and iana-ipv6-special-registry, as updated in October 2025.
"""

import ipaddress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dispatcher.core.addresses import AddressPolicy

STRICT = AddressPolicy()

# Name, block.
IPV4 = [
    ("this network", "0.0.0.0/8"),
    ("this host on this network", "0.0.0.0/32"),
    ("private use", "10.0.0.0/8"),
    ("shared address space", "100.64.0.0/10"),
    ("loopback", "127.0.0.0/8"),
    ("link local", "169.254.0.0/16"),
    ("private use", "172.16.0.0/12"),
    ("IETF protocol assignments", "192.0.0.0/24"),
    ("IPv4 service continuity prefix", "192.0.0.0/29"),
    ("IPv4 dummy address", "192.0.0.8/32"),
    ("port control protocol anycast", "192.0.0.9/32"),
    ("traversal using relays around NAT anycast", "192.0.0.10/32"),
    ("NAT64/DNS64 discovery", "192.0.0.170/32"),
    ("NAT64/DNS64 discovery", "192.0.0.171/32"),
    ("documentation (TEST-NET-1)", "192.0.2.0/24"),
    ("AS112-v4", "192.31.196.0/24"),
    ("AMT", "192.52.193.0/24"),
    ("deprecated (6to4 relay anycast)", "192.88.99.0/24"),
    ("6a44 relay anycast", "192.88.99.2/32"),
    ("private use", "192.168.0.0/16"),
    ("direct delegation AS112 service", "192.175.48.0/24"),
    ("benchmarking", "198.18.0.0/15"),
    ("documentation (TEST-NET-2)", "198.51.100.0/24"),
    ("documentation (TEST-NET-3)", "203.0.113.0/24"),
    ("reserved", "240.0.0.0/4"),
    ("limited broadcast", "255.255.255.255/32"),
]
IPV6 = [
    ("loopback", "::1/128"),
    ("unspecified", "::/128"),
    ("IPv4-mapped", "::ffff:0:0/96"),
    ("IPv4-IPv6 translation, local use", "64:ff9b:1::/48"),
    ("discard-only", "100::/64"),
    ("dummy IPv6 prefix", "100:0:0:1::/64"),
    ("IETF protocol assignments", "2001::/23"),
    ("TEREDO", "2001::/32"),
    ("port control protocol anycast", "2001:1::1/128"),
    ("traversal using relays around NAT anycast", "2001:1::2/128"),
    ("DNS-SD service registration anycast", "2001:1::3/128"),
    ("benchmarking", "2001:2::/48"),
    ("AMT", "2001:3::/32"),
    ("AS112-v6", "2001:4:112::/48"),
    ("deprecated (ORCHID)", "2001:10::/28"),
    ("ORCHIDv2", "2001:20::/28"),
    ("drone remote identification", "2001:30::/28"),
    ("documentation", "2001:db8::/32"),
    ("6to4", "2002::/16"),
    ("direct delegation AS112 service", "2620:4f:8000::/48"),
    ("documentation", "3fff::/20"),
    ("segment routing (SRv6) SIDs", "5f00::/16"),
    ("unique local", "fc00::/7"),
    ("link-local unicast", "fe80::/10"),
]
TRANSLATED = IPv6Network("64:ff9b::/96")

# What the rules refuse beside the two registries.
BESIDE_V4 = [IPv4Network("224.0.0.0/4"), IPv4Network("168.63.129.16/32")]
GLOBAL_V6 = IPv6Network("2000::/3")
BLOCKS = [ipaddress.ip_network(block) for _, block in IPV4 + IPV6]


def is_refused(address: IPv4Address | IPv6Address) -> bool:
    """Say what the registries, and what stands beside them, make of an address."""
    if any(address in block for block in BLOCKS):
        return True
    if isinstance(address, IPv4Address):
        return any(address in block for block in BESIDE_V4)
    if address in TRANSLATED or int(address) >> 32 & 0xFDFFFFFF == 0x5EFE:
        inside = IPv4Address(int(address) & 0xFFFFFFFF)
        return is_refused(inside) or (address not in GLOBAL_V6 and address not in TRANSLATED)
    return address not in GLOBAL_V6


@pytest.mark.parametrize(("name", "block"), IPV4 + IPV6, ids=[f"{block} {name}" for name, block in IPV4 + IPV6])
def test_a_special_purpose_block_is_refused_to_its_edges(name, block):
    """First, last and middle address of a block are refused, and its neighbours are what their own blocks say."""
    network = ipaddress.ip_network(block)
    first, last = network[0], network[-1]
    for address in (first, network[network.num_addresses // 2], last):
        assert STRICT.check_address(address), name
        assert STRICT.check_address(str(address)), name
    low, high = type(first)(0), type(first)(2**first.max_prefixlen - 1)
    for neighbour in ([first - 1] if first > low else []) + ([last + 1] if last < high else []):
        assert bool(STRICT.check_address(neighbour)) is is_refused(neighbour), neighbour


@pytest.mark.parametrize(
    ("first_free", "block"),
    [
        ("1.0.0.0", "0.0.0.0/8"), ("9.255.255.255", "10.0.0.0/8"), ("11.0.0.0", "10.0.0.0/8"),
        ("100.63.255.255", "100.64.0.0/10"), ("100.128.0.0", "100.64.0.0/10"), ("126.255.255.255", "127.0.0.0/8"),
        ("128.0.0.0", "127.0.0.0/8"), ("169.253.255.255", "169.254.0.0/16"), ("169.255.0.0", "169.254.0.0/16"),
        ("172.15.255.255", "172.16.0.0/12"), ("172.32.0.0", "172.16.0.0/12"), ("192.0.1.0", "192.0.0.0/24"),
        ("192.0.3.0", "192.0.2.0/24"), ("192.31.195.255", "192.31.196.0/24"), ("192.167.255.255", "192.168.0.0/16"),
        ("192.169.0.0", "192.168.0.0/16"), ("198.17.255.255", "198.18.0.0/15"), ("198.20.0.0", "198.18.0.0/15"),
        ("223.255.255.255", "224.0.0.0/4"), ("2001:200::", "2001::/23"), ("2001:db7:ffff::", "2001:db8::/32"),
        ("2001:db9::", "2001:db8::/32"), ("2003::", "2002::/16"), ("2620:4f:7fff::", "2620:4f:8000::/48"),
        ("2620:4f:8001::", "2620:4f:8000::/48"), ("3ffe:ffff::", "3fff::/20"), ("3fff:1000::", "3fff::/20"),
    ],
)  # fmt: skip
def test_the_address_beside_a_block_is_open(first_free, block):
    """A block is refused and no more than the block: the next public address is allowed."""
    assert ipaddress.ip_address(first_free) not in ipaddress.ip_network(block)
    assert STRICT.check_address(first_free) is None


@given(st.integers(0, 2**32 - 1).map(IPv4Address))
@example(IPv4Address("192.88.99.2"))
def test_every_ipv4_address_is_as_the_table_says(address):
    """Any IPv4 address is refused exactly where a block of the table, multicast or a platform's service has it."""
    assert bool(STRICT.check_address(address)) is is_refused(address)


IPV4_VALUES = st.integers(0, 2**32 - 1) | st.sampled_from([int(IPv4Network(block)[-1]) for _, block in IPV4])
PREFIXES = st.sampled_from([0, 0x64FF9B << 96, 0x64FF9B0001 << 80, 0xFFFF << 32, 0x2A01 << 112, 0x2606 << 112])


@given(
    st.integers(0, 2**128 - 1).map(IPv6Address)
    | st.integers(2**125, 2**126 - 1).map(IPv6Address)
    | st.builds(lambda prefix, value: IPv6Address(prefix | value), PREFIXES, IPV4_VALUES)
    | st.builds(lambda prefix, value: IPv6Address(prefix | 0x5EFE << 32 | value), PREFIXES, IPV4_VALUES)
)
def test_every_ipv6_address_is_as_the_table_says(address):
    """Any IPv6 address is refused exactly where a block has it, it isn't global, or the address inside is refused."""
    assert bool(STRICT.check_address(address)) is is_refused(address)


def test_the_table_is_not_shorter_than_the_standard_library():
    """Every network that `ipaddress` calls private or not global is in a block of the table."""
    known = [*ipaddress._IPv4Constants._private_networks, *ipaddress._IPv6Constants._private_networks]
    assert known
    for network in known:
        assert any(network.version == block.version and network.subnet_of(block) for block in BLOCKS), network


@pytest.mark.parametrize("group", ["5efe", "200:5efe"])
@pytest.mark.parametrize("prefix", ["2a01:4f8:0:1", "2606:4700:0:0"])
def test_isatap_is_judged_by_the_address_inside(prefix, group):
    """An ISATAP address of a private IPv4 address is refused under any prefix, and one of a public address is not."""
    group = f"0:{group}" if group == "5efe" else group
    assert "private" in (STRICT.check_address(f"{prefix}:{group}:10.0.0.1") or "")
    assert "loopback" in (STRICT.check_address(f"{prefix}:{group}:127.0.0.1") or "")
    assert STRICT.check_address(f"{prefix}:{group}:8.8.8.8") is None
    opened = AddressPolicy(allowed_networks=(IPv4Network("10.0.0.0/8"),))
    assert opened.check_address(f"{prefix}:{group}:10.0.0.1") is None


CLOSED = AddressPolicy(
    allowed_networks=(IPv4Network("10.0.0.0/8"), IPv6Network("2002::/16")),
    forbidden_networks=(IPv4Network("9.9.9.0/24"), IPv4Network("10.9.0.0/16"), IPv6Network("2606:4700::/32")),
)


@pytest.mark.parametrize(
    "address",
    [
        "9.9.9.9", "10.9.1.1", "::ffff:9.9.9.9", "64:ff9b::9.9.9.9", "2a01::5efe:9.9.9.9", "2a01::200:5efe:9.9.9.9",
        "2002:909:909::1", "::ffff:10.9.1.1", "2606:4700::1111",
    ],
)  # fmt: skip
def test_closed_networks_are_refused_in_every_form(address):
    """What the operator closes is refused though it is public or within an allowed network, in every IPv6 form."""
    assert "operator has closed" in (CLOSED.check_address(address) or "")


@pytest.mark.parametrize("address", ["9.9.8.9", "10.8.1.1", "::ffff:10.8.1.1", "64:ff9b::9.9.8.9", "2606:4701::1"])
def test_closing_closes_nothing_else(address):
    """The neighbours of a closed network stay as they are."""
    assert CLOSED.check_address(address) is None
