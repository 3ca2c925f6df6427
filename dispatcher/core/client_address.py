"""Who calls, where reverse proxies stand in between; and whom callers are counted as.

Source: RFC 7239 section 5.2 and MDN, X-Forwarded-For (each proxy appends whom it was called by); RFC 4291 section 2.5.4
(a subscriber of IPv6 has a network of 64 bits).
"""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address

_MAX_HOPS = 32
_SUBSCRIBER_BITS = 64


def client_address(peer: str, forwarded_for: Sequence[str], trusted: Sequence[IPv4Network | IPv6Network]) -> str:
    """Say where a request comes from.

    From right to left, each trusted proxy is believed whom it was called by; the first that isn't trusted is the
    client. What stands left of it is anybody's word.

    Args:
        peer: The other end of the connection.
        forwarded_for: Values of X-Forwarded-For, in order.
        trusted: The operator's proxies.

    Returns:
        An address; the last that was believed, where a proxy names what is none. `peer` itself where that is none.
    """
    client = read_address(peer)
    if client is None:
        return peer
    hops = [hop for value in forwarded_for for hop in value.split(",")]
    for hop in reversed(hops[-_MAX_HOPS:]):
        if not _is_in(client, trusted):
            break
        before = read_address(hop)
        if before is None:
            break
        client = before
    return str(client)


def network_of(address: str) -> str:
    """Return what a client is counted as: its IPv4 address, or the network of 64 bits that its IPv6 address is in."""
    read = read_address(address)
    if not isinstance(read, IPv6Address):
        return address if read is None else str(read)
    return str(IPv6Network((int(read) >> _SUBSCRIBER_BITS << _SUBSCRIBER_BITS, _SUBSCRIBER_BITS)))


def read_address(text: str) -> Address | None:
    """Read an address, with a port or without, as proxies write them; an IPv4-mapped one is the IPv4 address."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _is_in(address: Address, networks: Iterable[IPv4Network | IPv6Network]) -> bool:
    return any(address in network for network in networks)
