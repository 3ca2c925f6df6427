"""Requests that come by a reverse proxy: whose they are is said by the proxies that the operator trusts."""

from collections.abc import Sequence

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from dispatcher.core.client_address import client_address
from dispatcher.settings import Network

FORWARDED_FOR = "X-Forwarded-For"


def believe_proxies(trusted: Sequence[Network]) -> Middleware:
    """Let every handler see the client's address as `request.remote`; must stand before all others.

    Args:
        trusted: Proxies whose X-Forwarded-For is believed; nobody else's is.
    """

    @web.middleware
    async def see(request: web.Request, handler: Handler) -> web.StreamResponse:
        peer = request.remote or ""
        if trusted and FORWARDED_FOR in request.headers:
            client = client_address(peer, request.headers.getall(FORWARDED_FOR), trusted)
            if client != peer:
                request = request.clone(remote=client)
        return await handler(request)

    return see
