"""Dialling: from a URL to a connection that is ready for its first request.

Everything here runs once a connection and may be slow; reused connections never come by.
"""

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Final

from dispatcher.core.addresses import AddressPolicy, parse_ip_literal
from dispatcher.core.errors import NoConnectionError
from dispatcher.core.exchange import ClientCertificate, SendFailure
from dispatcher.core.urls import EndpointUrl
from dispatcher.http.client_tls import TlsContexts
from dispatcher.http.connection import Connection
from dispatcher.http.guard import check_target, find_addresses
from dispatcher.http.names import Resolver
from dispatcher.http.pool import PoolKey, make_key
from dispatcher.http.proxy import EgressProxy, open_tunnel
from dispatcher.http.tls import explain_tls_error

ADDRESS_SECONDS = 2.0
"""How long one of several addresses is tried before the next; the last has all the time that is left."""
MAX_ADDRESSES = 6
"""How many of a name's addresses are tried."""

_WORDS: Final = {
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "connection reset",
    errno.EHOSTUNREACH: "no route to the host",
    errno.ENETUNREACH: "the network is unreachable",
    errno.ETIMEDOUT: "the connection attempt timed out",
    errno.EMFILE: "this process has no file descriptor left; its operator must raise the limit",
    errno.ENFILE: "this machine has no file descriptor left; its operator must raise the limit",
    errno.EADDRNOTAVAIL: "no local port or address is left to connect from",
}


@dataclass(slots=True)
class Dialling:
    """One try to get a connection.

    Attributes:
        url: Where to.
        workspace_id: For whom.
        client: The client certificate to show, or None.
        step: What is being done now, for the words of a time-out.
    """

    url: EndpointUrl
    workspace_id: str
    client: ClientCertificate | None = None
    step: str = "starting"


class Dialer:
    """Makes connections.

    Args:
        policy: What may be connected to.
        resolver: Looks names up.
        contexts: TLS contexts of https connections.
        proxy: The egress proxy, or None.
        make_connection: Makes the protocol object of a new connection.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        policy: AddressPolicy,
        resolver: Resolver,
        contexts: TlsContexts,
        *,
        proxy: EgressProxy | None,
        make_connection: Callable[[PoolKey], Connection],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._policy = policy
        self._resolver = resolver
        self._contexts = contexts
        self._proxy = proxy
        self._make_connection = make_connection
        self._clock = clock
        self._loop = asyncio.get_running_loop()

    async def dial(self, dialling: Dialling, deadline: float) -> Connection:
        """Make a connection; the caller bounds the whole by cancelling at the deadline.

        Args:
            dialling: Where to; its step is kept current.
            deadline: In the clock's seconds; shares the time out among several addresses.

        Returns:
            A connection that is open and unused.

        Raises:
            ForbiddenAddressError: The policy refuses the URL or an address.
            NoConnectionError: It could not be made.
        """
        url = dialling.url
        key = make_key(url, dialling.client)
        context = await self._contexts.of(dialling.client)
        sock = await self._open_socket(dialling, deadline)
        try:
            if self._proxy is not None:
                dialling.step = "asking the egress proxy for a tunnel"
                await self._tunnel(sock, url)
            if url.scheme == "http":
                return await self._wrap(sock, key)
            dialling.step = "in the TLS handshake"
            return await self._wrap_tls(sock, key, context, deadline)
        except BaseException:
            sock.close()
            raise

    async def _open_socket(self, dialling: Dialling, deadline: float) -> socket.socket:
        dialling.step = "resolving the name"
        if self._proxy is None:
            port = dialling.url.port
            addresses = await find_addresses(dialling.url, dialling.workspace_id, self._policy, self._resolver)
        else:
            check_target(dialling.url, self._policy)
            port = self._proxy.port
            addresses = await self._find_proxy(self._proxy.host)
        dialling.step = "connecting"
        addresses = addresses[:MAX_ADDRESSES]
        for address in addresses[:-1]:
            left = deadline - self._clock()
            try:
                async with asyncio.timeout(min(ADDRESS_SECONDS, left / 2)):
                    return await self._connect(address, port)
            except (OSError, TimeoutError):
                continue
        try:
            return await self._connect(addresses[-1], port)
        except OSError as error:
            raise NoConnectionError(SendFailure.CONNECT, self._explain(error)) from None

    async def _find_proxy(self, host: str) -> tuple[str, ...]:
        literal = parse_ip_literal(host)
        return (str(literal),) if literal is not None else await self._resolver.resolve(host, "")

    async def _connect(self, address: str, port: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.sock_connect(sock, (address, port))
        except BaseException:
            sock.close()
            raise
        return sock

    async def _tunnel(self, sock: socket.socket, url: EndpointUrl) -> None:
        assert self._proxy is not None  # noqa: S101 - the caller asked
        try:
            await open_tunnel(sock, self._proxy, url)
        except OSError:
            raise NoConnectionError(SendFailure.CONNECT, "the connection to the egress proxy broke") from None

    async def _wrap(self, sock: socket.socket, key: PoolKey) -> Connection:
        try:
            _, connection = await self._loop.create_connection(lambda: self._make_connection(key), sock=sock)
        except OSError as error:
            raise NoConnectionError(SendFailure.CONNECT, self._explain(error)) from None
        return connection

    async def _wrap_tls(
        self, sock: socket.socket, key: PoolKey, context: ssl.SSLContext, deadline: float
    ) -> Connection:
        _, host, _, _ = key
        try:
            _, connection = await self._loop.create_connection(
                lambda: self._make_connection(key),
                sock=sock,
                ssl=context,
                server_hostname=host.removesuffix("."),
                # The caller's deadline comes first; this is the loop's own bound behind it.
                ssl_handshake_timeout=max(deadline - self._clock(), 0) + 1,
                ssl_shutdown_timeout=1,
            )
        except (OSError, ValueError) as error:
            raise NoConnectionError(SendFailure.TLS, explain_tls_error(error)) from None
        return connection

    def _explain(self, error: OSError) -> str:
        words = _WORDS.get(error.errno or 0, "the connection could not be made")
        return words if self._proxy is None else f"egress proxy: {words}"
