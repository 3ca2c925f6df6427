"""The keep-alive pool: idle connections, the youngest first."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
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
_LOOK_EVERY = 64
"""In so many evictions all keys are looked at once."""

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
    reached, the longest idle connection of a key that has more than its share makes room: its own, where the new one
    would be beyond it. Many connections to one endpoint so cost the others none.

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
        self._stacks: OrderedDict[PoolKey, list[T]] = OrderedDict()
        self._largest: list[T] = []
        self._next_look = 0
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
        if self.idle >= self._max_idle:
            self._make_room(self._stacks.get(connection.key, ()))
        stack = self._stacks.get(connection.key)
        if stack is None:
            stack = self._stacks[connection.key] = []
        if len(stack) >= self._max_idle_per_key:
            return False
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
        stacks, self._stacks, self.idle = self._stacks, OrderedDict(), 0
        for stack in stacks.values():
            for connection in stack:
                connection.drop()

    def _make_room(self, own: Sequence[T]) -> None:
        share = max(self._max_idle // len(self._stacks), 1)
        victim = own if len(own) >= share else self._find_victim(share)
        connection = victim[0]
        self.forget(connection)
        connection.drop()

    def _find_victim(self, share: int) -> Sequence[T]:
        self._next_look -= 1
        if len(self._largest) <= share and self._next_look <= 0:
            self._largest = max(self._stacks.values(), key=len)
            self._next_look = _LOOK_EVERY
        if len(self._largest) > share:
            return self._largest
        # Nobody is known to have more than a share: the keys give one each, in turn.
        while True:
            key, stack = self._stacks.popitem(last=False)
            if stack:
                self._stacks[key] = stack
                return stack

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
