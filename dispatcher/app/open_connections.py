"""Bounds how many clients are connected: one too many ends the connection that was silent for longest.

So whoever opens connections and says nothing, or little, takes places from others that say nothing, and never from
those who send requests. Without a bound the process would run out of open files, and accept nobody.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

LONGEST_ANSWER_SECONDS = 60.0
"""So long an answer that is being made is waited for."""


class Served(Protocol):
    """What serves one connection: aiohttp's `RequestHandler`, as far as it is asked for here."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`, as all but the last."""

    def connection_lost(self, exc: BaseException | None) -> None: ...  # noqa: D102

    def data_received(self, data: bytes) -> None: ...  # noqa: D102

    def eof_received(self) -> None: ...  # noqa: D102

    def pause_writing(self) -> None: ...  # noqa: D102

    def resume_writing(self) -> None: ...  # noqa: D102

    def close(self) -> None:
        """Wait for no further request."""

    async def shutdown(self, timeout: float | None) -> None:  # noqa: ASYNC109 - its name there
        """Close the connection, after the response that is being made."""


class OpenConnections:
    """The connections of one listening socket, as the factory of their protocols.

    Args:
        serve: Makes what serves a connection.
        most: How many there may be.
    """

    def __init__(self, serve: Callable[[], Served], most: int) -> None:
        self._serve = serve
        self._most = most
        # The one that was silent for longest first.
        self._open: dict[_Connection, None] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def __call__(self) -> asyncio.Protocol:
        """Make the protocol of a new connection."""
        return _Connection(self._serve(), self)

    def heard(self, connection: "_Connection") -> None:
        """Note that a connection was made, or that something came by it."""
        self._open.pop(connection, None)
        self._open[connection] = None
        if len(self._open) > self._most:
            silent = next(iter(self._open))
            del self._open[silent]
            ending = asyncio.get_running_loop().create_task(_end(silent.served))
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)

    def lost(self, connection: "_Connection") -> None:
        """Note that a connection has ended."""
        self._open.pop(connection, None)


async def _end(served: Served) -> None:
    # What was accepted in this same turn of the loop isn't waiting for a request yet, and would not notice.
    await asyncio.sleep(0)
    served.close()
    await asyncio.sleep(0)
    await served.shutdown(LONGEST_ANSWER_SECONDS)


class _Connection(asyncio.Protocol):
    """Hands everything on."""

    def __init__(self, served: Served, among: OpenConnections) -> None:
        self.served = served
        self._among = among

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.served.connection_made(transport)
        self._among.heard(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._among.lost(self)
        self.served.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._among.heard(self)
        self.served.data_received(data)

    def eof_received(self) -> None:
        self.served.eof_received()

    def pause_writing(self) -> None:
        self.served.pause_writing()

    def resume_writing(self) -> None:
        self.served.resume_writing()
