"""The keep-alive pool: idle connections, the youngest first."""

import asyncio
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from dispatcher.core.exchange import ClientCertificate
from dispatcher.core.urls import EndpointUrl

IDLE_SECONDS = 30.0
"""How long a connection may be idle."""
MAX_AGE_SECONDS = 300.0
"""How old a connection may get; it then ends after the exchange that it is in."""
MAX_IDLE = 4096
MAX_IDLE_PER_KEY = 4096

_SWEEP_SECONDS = 5.0

PoolKey = tuple[str, str, int, str | None]
"""Scheme, host, port, and the id of the client certificate, if any. The host is the endpoint's TLS identity too, and
a sender verifies all alike and has one proxy, so that nothing else can tell two connections of one pool apart."""


def make_key(url: EndpointUrl, client: ClientCertificate | None = None) -> PoolKey:
    """Return the key under which the connections of a URL and a client certificate are kept."""
    return (url.scheme, url.host, url.port, None if client is None else client.id)


class Pooled(Protocol):
    """What the pool needs to know of a connection; times are the clock's seconds."""

    key: PoolKey
    opened_at: float
    idle_since: float

    def drop(self) -> None:
        """Close at once."""


T = TypeVar("T", bound=Pooled)


class Pool(Generic[T]):
    """Idle connections by key; make it inside the running loop.

    A key's connections are a stack, so that the fewest are kept busy and the rest time out. Where the total is
    reached, the longest idle connection of the key that was seen first makes room.

    Args:
        max_idle: Bound on all idle connections.
        max_idle_per_key: Bound on one key's.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        max_idle: int = MAX_IDLE,
        max_idle_per_key: int = MAX_IDLE_PER_KEY,
    ) -> None:
        self.idle = 0
        self._clock = clock
        self._max_idle = max_idle
        self._max_idle_per_key = max_idle_per_key
        self._loop = asyncio.get_running_loop()
        self._stacks: dict[PoolKey, list[T]] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    def take(self, key: PoolKey, now: float) -> T | None:
        """Take the connection that was used last; None where no usable one is idle."""
        stack = self._stacks.get(key)
        while stack:
            connection = stack.pop()
            self.idle -= 1
            if connection.idle_since + IDLE_SECONDS > now and connection.opened_at + MAX_AGE_SECONDS > now:
                return connection
            connection.drop()
        return None

    def put(self, connection: T, now: float) -> bool:
        """Keep a connection that has become idle.

        Returns:
            False where it is too old, its key has enough or the pool is closed: the caller closes it.
        """
        if self._closed or connection.opened_at + MAX_AGE_SECONDS <= now:
            return False
        stack = self._stacks.get(connection.key)
        if stack is None:
            stack = self._stacks[connection.key] = []
        if len(stack) >= self._max_idle_per_key:
            return False
        if self.idle >= self._max_idle:
            self._evict_one()
        connection.idle_since = now
        stack.append(connection)
        self.idle += 1
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(_SWEEP_SECONDS, self._sweep)
        return True

    def forget(self, connection: T) -> None:
        """Take a connection out that was closed; nothing happens where it isn't idle."""
        stack = self._stacks.get(connection.key)
        if stack is not None and connection in stack:
            stack.remove(connection)
            self.idle -= 1

    def close(self) -> None:
        """Close every idle connection, and keep none from now on."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        stacks, self._stacks, self.idle = self._stacks, {}, 0
        for stack in stacks.values():
            for connection in stack:
                connection.drop()

    def _evict_one(self) -> None:
        for stack in self._stacks.values():
            if stack:
                self.idle -= 1
                stack.pop(0).drop()
                return

    def _sweep(self) -> None:
        self._sweeper = None
        now = self._clock()
        for key, stack in tuple(self._stacks.items()):
            # A stack's bottom has been idle longest, but age may stand anywhere in it.
            kept: list[T] = []
            stale: list[T] = []
            for one in stack:
                fresh = one.idle_since + IDLE_SECONDS > now < one.opened_at + MAX_AGE_SECONDS
                (kept if fresh else stale).append(one)
            if stale:
                self.idle -= len(stale)
                stack[:] = kept
                for connection in stale:
                    connection.drop()
            if not stack:
                del self._stacks[key]
        if self.idle:
            self._sweeper = self._loop.call_later(_SWEEP_SECONDS, self._sweep)
