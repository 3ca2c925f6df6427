"""The guard: which addresses a connection may be made to, decided where it is made.

A name is resolved here and the connection goes to the very addresses that were checked, so that a second,
different answer of the name server changes nothing.
"""

from ipaddress import IPv4Address, IPv6Address

from dispatcher.core.addresses import AddressPolicy, parse_ip_literal
from dispatcher.core.errors import ForbiddenAddressError
from dispatcher.core.urls import EndpointUrl
from dispatcher.http.names import Resolver

IpAddress = IPv4Address | IPv6Address


def check_target(url: EndpointUrl, policy: AddressPolicy) -> IpAddress | None:
    """Check what a URL says by itself: scheme, port and IP literal.

    Returns:
        The address where the host is an IP literal, else None.

    Raises:
        ForbiddenAddressError: The policy refuses it.
    """
    reason = policy.check_url(url)
    if reason is not None:
        raise ForbiddenAddressError(reason)
    return parse_ip_literal(url.host)


async def find_addresses(
    url: EndpointUrl, workspace_id: str, policy: AddressPolicy, resolver: Resolver
) -> tuple[str, ...]:
    """Resolve a URL's host and check every address.

    Args:
        url: Where a connection is wanted.
        workspace_id: Whose look-up it is.
        policy: The operator's rules.
        resolver: Looks names up.

    Returns:
        Checked addresses in the order in which they are to be tried; at least one.

    Raises:
        ForbiddenAddressError: The URL or ANY of its addresses is refused.
        NoConnectionError: The name can't be resolved.
    """
    literal = check_target(url, policy)
    if literal is not None:
        return (str(literal),)
    addresses = await resolver.resolve(url.host, workspace_id)
    for address in addresses:
        reason = policy.check_address(address)
        if reason is not None:
            raise ForbiddenAddressError(f"the name resolves to an address that is refused: {reason}")
    return addresses
