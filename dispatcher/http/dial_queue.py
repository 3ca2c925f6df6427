"""Whose connection is made next: a turn of the loop begins so few that everything else goes on meanwhile.

An event for thousands of endpoints asks for thousands of connections at once. Each costs a good part of a millisecond
before it stands, of which a request that has a connection already must not wait for all.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable

from dispatcher.core.exchange import Request
from dispatcher.http.connection import Done

DIALS_A_TURN = 4
"""Connections that are begun in one turn of the loop: each is some tenths of a millisecond of work until it stands."""

Pending = tuple[Request, Done, float | None]
"""A request without a connection, whom to tell its outcome, and since when its time counts: None, from its dial on."""


class DialQueue:
    """Requests whose connection isn't begun yet; workspaces take turns. Make it inside the running loop.

    Args:
        begin: Begins to make a connection for a request.
    """

    __slots__ = ("_begin", "_count", "_left", "_loop", "_turning", "_waiting")

    def __init__(self, begin: Callable[[Request, Done, float | None], None]) -> None:
        self._begin = begin
        self._loop = asyncio.get_running_loop()
        self._waiting: OrderedDict[str, deque[Pending]] = OrderedDict()
        self._count = 0
        self._left = DIALS_A_TURN
        self._turning = False

    def __len__(self) -> int:
        return self._count

    def put(self, request: Request, done: Done, started: float | None) -> None:
        """Begin now where this turn has some left, or else in one of the next."""
        if self._left:
            self._left -= 1
            self._begin(request, done, started)
        else:
            self._waiting.setdefault(request.workspace_id, deque()).append((request, done, started))
            self._count += 1
        if not self._turning:
            self._turning = True
            self._loop.call_soon(self._turn)

    def clear(self) -> list[Pending]:
        """Take out everything that waits."""
        waiting = [each for queue in self._waiting.values() for each in queue]
        self._waiting.clear()
        self._count = 0
        return waiting

    def _turn(self) -> None:
        self._left = DIALS_A_TURN
        self._turning = bool(self._count)
        if self._turning:
            self._loop.call_soon(self._turn)
        while self._count and self._left:
            workspace_id, queue = self._waiting.popitem(last=False)
            pending = queue.popleft()
            if queue:
                self._waiting[workspace_id] = queue
            self._count -= 1
            self._left -= 1
            self._begin(*pending)
