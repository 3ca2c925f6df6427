"""Which endpoints may be connected to: schemes, ports and network addresses.

The rules keep a subscriber's URL from reaching into the operator's own network (server-side request forgery).
They are applied twice: to the URL at registration, for a message at once, and to every resolved address where the
connection is made, which is what protects.

Source: RFC 6890 and the IANA special-purpose address registries (IPv4, IPv6); inet_aton(3) for the notations of
an IPv4 literal.
"""

import ipaddress
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from dispatcher.core.urls import EndpointUrl

Network = IPv4Network | IPv6Network

_FORBIDDEN_V4: tuple[tuple[IPv4Network, str], ...] = tuple(
    (IPv4Network(network), what)
    for network, what in (
        ("0.0.0.0/8", "unspecified (RFC 1122)"),
        ("10.0.0.0/8", "private (RFC 1918)"),
        ("100.64.0.0/10", "shared by carrier-grade NAT (RFC 6598)"),
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "a cloud platform's internal service"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private (RFC 1918)"),
        ("192.0.0.0/24", "reserved for protocol assignments"),
        ("192.0.2.0/24", "reserved for documentation"),
        ("192.31.196.0/24", "a sink for stray name look-ups (AS112)"),
        ("192.52.193.0/24", "a multicast relay (AMT)"),
        ("192.88.99.0/24", "a 6to4 relay"),
        ("192.168.0.0/16", "private (RFC 1918)"),
        ("192.175.48.0/24", "a sink for stray name look-ups (AS112)"),
        ("198.18.0.0/15", "reserved for benchmarks"),
        ("198.51.100.0/24", "reserved for documentation"),
        ("203.0.113.0/24", "reserved for documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved (class E)"),
    )
)
_GLOBAL_V6 = IPv6Network("2000::/3")
_FORBIDDEN_V6: tuple[tuple[IPv6Network, str], ...] = tuple(
    (IPv6Network(network), what)
    for network, what in (
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("::ffff:0:0/96", "an IPv4 address in IPv6 form"),
        ("::/8", "reserved (::/8)"),
        ("64:ff9b:1::/48", "a local NAT64 translation"),
        ("100::/64", "the discard prefix"),
        ("2001::/32", "a Teredo tunnel"),
        ("2001:2::/48", "reserved for benchmarks"),
        ("2001:10::/28", "an ORCHID identifier"),
        ("2001:20::/28", "an ORCHID identifier"),
        ("2001::/23", "reserved for protocol assignments"),
        ("2001:db8::/32", "reserved for documentation"),
        ("2002::/16", "a 6to4 tunnel"),
        ("2620:4f:8000::/48", "a sink for stray name look-ups (AS112)"),
        ("3fff::/20", "reserved for documentation"),
        ("5f00::/16", "a segment routing identifier"),
        ("fc00::/7", "private (unique local)"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")
_MAPPED = IPv6Network("::ffff:0:0/96")
_6TO4 = IPv6Network("2002::/16")
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})
"""Bits 64 to 95 of an ISATAP address under any prefix; the IPv4 address behind them is where a router takes it."""
_CLOSED = "in a network that the operator has closed"
_LOW_PORTS = 1024
_USUAL_PORTS = frozenset({80, 443})
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]*|[0-9]+")
_MAX_PARTS = 4
_MAX_DIGITS = 64


def parse_ip_literal(host: str) -> IPv4Address | IPv6Address | None:
    """Read an IP literal in every notation that a resolver takes as an address and doesn't look up.

    IPv4 may have one to four parts, each decimal, octal (`0177`) or hexadecimal (`0x7f`), the last of which fills
    the remaining bytes: `127.1`, `2130706433`, `0x7f000001`. One trailing dot is ignored, and so is the zone of
    an IPv6 address.

    Args:
        host: A host as it stands in a URL, with or without brackets.

    Returns:
        The address, or None where the host is a name.
    """
    if ":" in host:
        try:
            return IPv6Address(host.strip("[]").partition("%")[0])
        except ValueError:
            return None
    parts = host.removesuffix(".").split(".")
    if len(parts) > _MAX_PARTS:
        return None
    numbers = [_parse_number(part) for part in parts]
    value = 0
    for number in numbers[:-1]:
        if number is None or number > 255:  # noqa: PLR2004 - one byte
            return None
        value = value << 8 | number
    last_bits = 8 * (_MAX_PARTS + 1 - len(parts))
    last = numbers[-1]
    if last is None or last >> last_bits:
        return None
    return IPv4Address(value << last_bits | last)


def _parse_number(text: str) -> int | None:
    if len(text) > _MAX_DIGITS or not _NUMBER.fullmatch(text):
        return None
    if text[:2] in {"0x", "0X"}:
        return int(text[2:] or "0", 16)
    try:
        return int(text, 8 if text[0] == "0" else 10)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """What the operator lets deliveries connect to.

    Attributes:
        allow_http: Whether plain HTTP is allowed.
        allowed_networks: Networks that are open although the rules forbid them. An IPv4 network opens the
            IPv4-mapped IPv6 form of its addresses as well.
        allowed_ports: Ports below 1024 that are open beside 80 and 443.
        forbidden_networks: Networks that are closed although they are public, or within an allowed network. An
            IPv4 network closes every IPv6 form of its addresses as well.
    """

    allow_http: bool = False
    allowed_networks: tuple[Network, ...] = ()
    allowed_ports: frozenset[int] = frozenset()
    forbidden_networks: tuple[Network, ...] = ()

    def check_url(self, url: EndpointUrl) -> str | None:
        """Say why a URL can't be an endpoint, as far as can be told without a look-up.

        Args:
            url: The URL, taken apart.

        Returns:
            The reason, to be shown to the subscriber; None where nothing is wrong.
        """
        if url.scheme != "https" and not self.allow_http:
            return "plain HTTP is not allowed here; use https://"
        if url.port < _LOW_PORTS and url.port not in _USUAL_PORTS and url.port not in self.allowed_ports:
            return f"port {url.port} is not allowed; use 443, or a port from {_LOW_PORTS} up"
        literal = parse_ip_literal(url.host)
        if literal is not None:
            return self.check_address(literal)
        labels = url.host.removesuffix(".").rsplit(".", 1)
        if labels[-1] == "localhost":
            return self.check_address(IPv4Address(0x7F000001))
        if _NUMBER.fullmatch(labels[-1]):
            return "the host ends in a number but is no IPv4 address; use a name or a dotted address"
        return None

    def check_address(self, address: str | IPv4Address | IPv6Address) -> str | None:
        """Say why an address must not be connected to.

        An IPv6 address that stands for an IPv4 one (IPv4-mapped, NAT64, ISATAP) is judged by the address inside.
        IPv4-mapped addresses are refused all the same unless the address inside is in an allowed network; 6to4 and
        Teredo addresses are refused whatever is inside.

        Args:
            address: The address that a connection would be made to.

        Returns:
            The rule that forbids it, in words that don't name the address; None where it is allowed.

        Raises:
            ValueError: The text is no IP address: a fault of the caller.
        """
        if isinstance(address, str):
            address = ipaddress.ip_address(address.partition("%")[0])
        what = self._find_v4(address) if isinstance(address, IPv4Address) else self._find_v6(IPv6Address(int(address)))
        return None if what is None else f"the address is {what}, which deliveries may not connect to"

    def _find_v4(self, address: IPv4Address) -> str | None:
        if self._is_closed(address):
            return _CLOSED
        if self._is_opened(address):
            return None
        return next((what for network, what in _FORBIDDEN_V4 if address in network), None)

    def _find_v6(self, address: IPv6Address) -> str | None:
        inside = _find_inside(address)
        if self._is_closed(address) or (inside is not None and self._is_closed(inside)):
            return _CLOSED
        if self._is_opened(address):
            return None
        if inside is not None and address not in _6TO4:
            what = self._find_v4(inside)
            if address in _NAT64 or what is not None:
                return what
            if address in _MAPPED:
                return None if self._is_opened(inside) else "an IPv4 address in IPv6 form"
        for network, what in _FORBIDDEN_V6:
            if address in network:
                return what
        return None if address in _GLOBAL_V6 else "not a public address"

    def _is_opened(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in self.allowed_networks)

    def _is_closed(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in self.forbidden_networks)


def _find_inside(address: IPv6Address) -> IPv4Address | None:
    value = int(address)
    if address in _6TO4:
        return IPv4Address(value >> 80 & 0xFFFFFFFF)
    if address in _MAPPED or address in _NAT64 or value >> 32 & 0xFFFFFFFF in _ISATAP:
        return IPv4Address(value & 0xFFFFFFFF)
    return None
