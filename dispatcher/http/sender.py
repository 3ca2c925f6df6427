"""The outgoing HTTP sender: one request in, one response out, by callback.

No redirects, no cookies, no decompression, no proxy from the environment. What a request may connect to is the
policy's business, decided where the connection is made.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from dispatcher.core.addresses import AddressPolicy
from dispatcher.core.errors import ForbiddenAddressError, NoConnectionError
from dispatcher.core.exchange import Request, Response, SendFailure
from dispatcher.http.answer import fail
from dispatcher.http.client_tls import TlsContexts
from dispatcher.http.connection import Connection, Done
from dispatcher.http.dial import Dialer, Dialling
from dispatcher.http.dial_queue import DialQueue
from dispatcher.http.names import Resolver
from dispatcher.http.pool import Pool, PoolKey
from dispatcher.http.proxy import parse_egress_proxy

_ABORTED = "the sender was closed before an answer came"
_DRAIN_STEP_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class SenderStats:
    """What a sender has at one moment, and its totals.

    Attributes:
        open: Open connections.
        idle: Those of them that wait for a request.
        in_flight: Requests without an outcome, those that wait for a connection included.
        connecting: Requests that wait for a connection.
        connects_total: Connections made.
        reused_total: Requests sent on a connection that had carried one before.
        resent_total: Requests sent once more since their reused connection had been closed.
    """

    open: int
    idle: int
    in_flight: int
    connecting: int
    connects_total: int
    reused_total: int
    resent_total: int


class Sender:
    """Sends requests over kept-alive connections; make it inside the running loop.

    Args:
        policy: What may be connected to.
        resolver: Looks names up; closed with the sender. None makes one that asks the system's name servers.
        ca_bundle: PEM file of authorities to trust beside the system's.
        egress_proxy: `http://[user:password@]host:port`; all requests then go through its tunnels. It resolves
            the names, so that only the URL itself is checked here.
        clock: Seconds that never go back.

    Raises:
        SettingsError: The egress proxy has another form.
        OSError: The bundle can't be read.
    """

    def __init__(
        self,
        policy: AddressPolicy,
        *,
        resolver: Resolver | None = None,
        ca_bundle: Path | None = None,
        egress_proxy: str | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._clock = clock
        self._resolver = resolver or Resolver(clock=clock)
        self._pool: Pool[Connection] = Pool(clock=clock)
        self._connections: set[Connection] = set()
        self._dials: set[asyncio.Task[Connection]] = set()
        self._undialled = DialQueue(self._dial)
        self._dialer = Dialer(
            policy,
            self._resolver,
            TlsContexts(ca_bundle),
            proxy=parse_egress_proxy(egress_proxy) if egress_proxy else None,
            make_connection=self._make_connection,
            clock=clock,
        )
        self._connects = self._reused = self._resent = 0
        self._closed = self._aborting = False

    def send(self, request: Request, done: Done) -> None:
        """Send a request.

        A request that failed on a reused connection before any byte of the answer came is sent once more on a
        new one, within the same time. Nothing else is tried again.

        Args:
            request: What to send, rendered.
            done: Called exactly once with the outcome, from the loop, never from within this call. It is called
                when the body was read or given up; the outcome and the duration are those at complete headers.
        """
        now = self._clock()
        url = request.url
        client = request.client
        identity = None if client is None else client.id
        connection = self._pool.take((url.scheme, url.host, url.port, identity), now)
        if connection is not None:
            self._reused += 1
            connection.start(request, done, now)
        else:
            self._send_on_new(request, done)

    async def exchange(self, request: Request) -> Response:
        """Send a request and wait for its outcome."""
        future: asyncio.Future[Response] = self._loop.create_future()

        def settle(response: Response) -> None:
            if not future.done():
                future.set_result(response)

        self.send(request, settle)
        return await future

    async def close(self, *, drain_seconds: float = 0) -> None:
        """Stop: wait for what is in flight, then abort the rest and close every connection.

        Requests sent after this call began fail as aborted.

        Args:
            drain_seconds: How long to wait for outcomes. What has none by then fails as aborted.
        """
        self._closed = True
        self._pool.close()
        until = self._clock() + drain_seconds
        while self._count_in_flight() and self._clock() < until:  # noqa: ASYNC110 - counting costs the hot path less
            await asyncio.sleep(_DRAIN_STEP_SECONDS)
        self._aborting = True
        for _, done, _ in self._undialled.clear():
            self._loop.call_soon(done, fail(SendFailure.ABORTED, _ABORTED, 0))
        dials = tuple(self._dials)
        for task in dials:
            task.cancel()
        for connection in tuple(self._connections):
            connection.abort(_ABORTED)
        await asyncio.gather(*dials, return_exceptions=True)
        await self._resolver.close()

    def stats(self) -> SenderStats:
        """Count what there is now; costs a walk over the connections."""
        return SenderStats(
            open=len(self._connections),
            idle=self._pool.idle,
            in_flight=self._count_in_flight(),
            connecting=len(self._undialled) + len(self._dials),
            connects_total=self._connects,
            reused_total=self._reused,
            resent_total=self._resent,
        )

    def _count_in_flight(self) -> int:
        return len(self._undialled) + len(self._dials) + sum(connection.busy for connection in self._connections)

    # A request without a connection.

    def _send_on_new(self, request: Request, done: Done) -> None:
        if self._closed:
            self._loop.call_soon(done, fail(SendFailure.ABORTED, _ABORTED, 0))
        else:
            # The wait for its dial is this process's, not the endpoint's.
            self._undialled.put(request, done, None)

    def _resend(self, request: Request, done: Done, started: float) -> None:
        self._resent += 1
        self._undialled.put(request, done, started)

    def _dial(self, request: Request, done: Done, since: float | None) -> None:
        started = self._clock() if since is None else since
        task = self._loop.create_task(self._connect(request, started))
        self._dials.add(task)
        task.add_done_callback(lambda ended: self._dialled(ended, request, done, started))

    async def _connect(self, request: Request, started: float) -> Connection:
        deadline = started + request.timeout_seconds
        dialling = Dialling(request.url, request.workspace_id, request.client)
        try:
            async with asyncio.timeout(max(deadline - self._clock(), 0)):
                return await self._dialer.dial(dialling, deadline)
        except TimeoutError:
            words = f"{dialling.step} took longer than {request.timeout_seconds:g} s"
            raise NoConnectionError(SendFailure.TIMEOUT, words) from None

    def _dialled(self, task: "asyncio.Task[Connection]", request: Request, done: Done, started: float) -> None:
        self._dials.discard(task)
        if task.cancelled() or self._aborting:
            failure, detail = SendFailure.ABORTED, _ABORTED
        elif (error := task.exception()) is not None:
            failure, detail = self._explain(error)
        elif not (connection := task.result()).ended:
            connection.start(request, done, started)
            return
        elif connection.tls_problem:
            failure, detail = SendFailure.TLS, connection.tls_problem
        else:
            failure, detail = SendFailure.CLOSED, "the endpoint closed the connection before the request was sent"
        done(fail(failure, detail, (self._clock() - started) * 1000))

    def _explain(self, error: BaseException) -> tuple[SendFailure, str]:
        if isinstance(error, NoConnectionError):
            return SendFailure(error.failure), str(error)
        if isinstance(error, ForbiddenAddressError):
            return SendFailure.FORBIDDEN_ADDRESS, str(error)
        self._loop.call_exception_handler({"message": "connecting failed unexpectedly", "exception": error})
        return SendFailure.CONNECT, "the connection could not be made"

    def _make_connection(self, key: PoolKey) -> Connection:
        return Connection(
            key,
            self._pool,
            resend=self._resend,
            opened=self._opened,
            closed=self._connections.discard,
            clock=self._clock,
        )

    def _opened(self, connection: Connection) -> None:
        self._connects += 1
        self._connections.add(connection)
