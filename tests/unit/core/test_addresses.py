"""Which addresses, ports and schemes an endpoint may have."""

import ipaddress
import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.addresses import AddressPolicy, parse_ip_literal
from dispatcher.core.urls import parse_endpoint_url

STRICT = AddressPolicy()
LOOPBACK = AddressPolicy(allow_http=True, allowed_networks=(IPv4Network("127.0.0.0/8"),))
OCTETS = st.tuples(*[st.integers(0, 255)] * 4)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("127.0.1", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("0x7f000001", "127.0.0.1"),
        ("0X7F.0x0.1", "127.0.0.1"),
        ("0177.0.0.01", "127.0.0.1"),
        ("017700000001", "127.0.0.1"),
        ("0", "0.0.0.0"),
        ("0x", "0.0.0.0"),
        ("192.168.257", "192.168.1.1"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("::ffff:127.0.0.1", "::ffff:127.0.0.1"),
    ],
)
def test_every_notation_of_a_literal_is_read(text, address):
    """Short, octal, hexadecimal and single-number forms are the address that a resolver makes of them."""
    assert parse_ip_literal(text) == ipaddress.ip_address(address)


@pytest.mark.parametrize(
    "text",
    ["", ".", "example.com", "1.2.3.4.5", "256.1.1.1", "1.2.3.256", "4294967296", "08.1.1.1", "0x1g", "1..2",
     "-1", "+1", " 1", "1.2.3.4..", "١٢٧.0.0.1", "9" * 100, "dead:beef", ":::", "12ab"],
)  # fmt: skip
def test_what_is_no_literal_is_none(text):
    """Names, and numbers that no resolver takes for an address, are no literals."""
    assert parse_ip_literal(text) is None


@given(OCTETS, st.sampled_from(["{}", "{:#x}", "0{:o}"]), st.integers(1, 4))
def test_generated_notations_agree_with_the_system(octets, form, parts):
    """However an IPv4 address is written, it reads as inet_aton(3) reads it."""
    value = int.from_bytes(bytes(octets))
    last = value & ((1 << 8 * (5 - parts)) - 1)
    text = ".".join(form.format(number) for number in [*octets[: parts - 1], last])
    assert parse_ip_literal(text) == IPv4Address(value) == IPv4Address(socket.inet_aton(text))


@given(st.integers(0, 2**128 - 1), st.booleans())
def test_ipv6_forms_agree_with_ipaddress(value, exploded):
    """However an IPv6 address is written, it reads as `ipaddress` reads it."""
    address = IPv6Address(value)
    assert parse_ip_literal(address.exploded if exploded else address.compressed) == address


@given(st.text(alphabet="0123456789abcdefx.:[]%-", max_size=24))
def test_no_text_is_read_more_laxly_or_raises(text):
    """Any text that the system takes for an IPv4 address is read as that address."""
    found = parse_ip_literal(text)
    try:
        packed = socket.inet_aton(text)
    except OSError:
        return
    assert found == IPv4Address(packed)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.255.255",
        "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.0.1",
        "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1",
        "255.255.255.255", "168.63.129.16",
        "::", "::1", "::2", "::7f00:1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:8.8.8.8",
        "64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b:1::8.8.8.8", "100::1", "100:0:0:1::1", "2001::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:2::1", "2001:10::1", "2001:20::1", "2001:1ff::1",
        "2001:db8::1", "2002:7f00:1::", "2002:808:808::1", "3fff::1", "3fff:fff::1", "5f00::1", "4000::1",
        "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "ffff::1",
    ],
)  # fmt: skip
def test_special_addresses_are_forbidden(address):
    """Every special-purpose range is refused, in words that don't repeat it."""
    reason = STRICT.check_address(address)
    assert reason
    assert f" {address}" not in reason


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1", "192.0.1.1", "192.167.1.1",
        "198.17.0.1", "198.20.0.1", "223.255.255.255", "2606:4700::1111", "2001:4860:4860::8888", "2001:200::1",
        "2a00:1450::1", "64:ff9b::8.8.8.8",
    ],
)  # fmt: skip
def test_public_addresses_are_allowed(address):
    """Public addresses beside the special ranges are open, a NAT64 form by the address inside."""
    assert STRICT.check_address(address) is None
    assert STRICT.check_address(ipaddress.ip_address(address)) is None


@given(st.integers(0, 2**32 - 1).map(IPv4Address) | st.integers(0, 2**128 - 1).map(IPv6Address))
def test_nothing_that_ipaddress_calls_private_is_allowed(address):
    """The rules are at least as strict as `ipaddress`: what is allowed is global and no multicast there."""
    if STRICT.check_address(address) is None and address not in IPv6Network("64:ff9b::/96"):
        assert address.is_global
        assert not address.is_multicast
        assert not address.is_reserved


@given(st.integers(0, 2**32 - 1).map(IPv4Address))
def test_embedded_addresses_are_never_opener_than_the_address_inside(inside):
    """An IPv4 address in any IPv6 form is refused wherever the plain address is."""
    value = int(inside)
    forms = [value, 0xFFFF << 32 | value, 0x64FF9B << 96 | value, 0x2002 << 112 | value << 80]
    for form in forms:
        if STRICT.check_address(inside):
            assert STRICT.check_address(IPv6Address(form))


@given(OCTETS)
def test_allowed_networks_open_their_addresses_in_every_form(octets):
    """What the operator opens is open, plain and IPv4-mapped; the rest of the range stays closed."""
    policy = AddressPolicy(allowed_networks=(IPv4Network("10.1.0.0/16"), IPv6Network("fd00::/8")))
    address = IPv4Address(bytes(octets))
    opened = IPv4Address(int.from_bytes(bytes((10, 1, *octets[2:]))))
    assert policy.check_address(opened) is None
    assert policy.check_address(f"::ffff:{opened}") is None
    assert policy.check_address("fd12::1") is None
    if address not in IPv4Network("10.1.0.0/16"):
        assert policy.check_address(address) == STRICT.check_address(address)


def test_text_that_is_no_address_is_the_callers_fault():
    """A name where an address belongs raises instead of passing."""
    with pytest.raises(ValueError, match=r"example\.com"):
        STRICT.check_address("example.com")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.1", "0x7f000001", "2130706433", "0177.0.0.1", "[::ffff:127.0.0.1]", "[::1]", "localhost",
        "LOCALHOST.", "foo.localhost", "10.0.0.1", "169.254.169.254", "0", "1.2.3.256", "4294967296", "foo.0x7f",
        "127.0.0.1.", "a.08",
    ],
)  # fmt: skip
def test_forbidden_hosts_are_refused_from_the_url_alone(host):
    """A literal in any notation, localhost, or a host that ends in a number is refused without a look-up."""
    assert STRICT.check_url(parse_endpoint_url(f"https://{host}/"))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "0x7f000001", "[::ffff:127.0.0.1]", "localhost"])
def test_allowed_networks_count_for_urls(host):
    """What the operator opened is accepted in a URL, in every notation."""
    assert LOOPBACK.check_url(parse_endpoint_url(f"http://{host}:8080/")) is None


def test_plain_http_is_refused_unless_allowed():
    """Plain HTTP needs the operator's word."""
    url = parse_endpoint_url("http://example.com/")
    assert "https" in (STRICT.check_url(url) or "")
    assert LOOPBACK.check_url(url) is None


@pytest.mark.parametrize(
    ("port", "allowed"), [(443, True), (80, True), (1024, True), (65535, True), (22, False), (1023, False), (25, True)]
)
def test_low_ports_are_refused_unless_allowed(port, allowed):
    """Below 1024 only 80, 443 and what the operator allows are open."""
    policy = AddressPolicy(allowed_ports=frozenset({25}))
    reason = policy.check_url(parse_endpoint_url(f"https://example.com:{port}/"))
    assert (reason is None) is allowed
    assert allowed or str(port) in reason
