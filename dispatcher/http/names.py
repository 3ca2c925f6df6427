"""Name look-ups: c-ares through aiodns, bounded in time, number and memory.

The loop's own resolver runs in a thread pool, where a few silent zones stop every look-up of the process; this
one never uses it. `/etc/hosts` is read as the system's resolver reads it; search domains are not, so that a
subscriber's name means the same everywhere.
"""

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic

import aiodns
import pycares

from dispatcher.core.errors import NoConnectionError
from dispatcher.core.exchange import SendFailure

LOOKUP_SECONDS = 3.0
"""How long one look-up may take."""
MAX_CACHE_SECONDS = 60.0
"""How long an answer is kept, whatever its TTL says."""
FAILURE_CACHE_SECONDS = 5.0
"""How long a failure is kept."""
MAX_CACHED_NAMES = 10_000
LOOKUPS_PER_WORKSPACE = 64
"""Look-ups of one workspace at a time; its further ones wait."""

# Two tries fit into one look-up: c-ares doubles the time of the second.
_TRY_SECONDS = 0.9
_TRIES = 2


@dataclass(frozen=True, slots=True)
class _Answer:
    addresses: tuple[str, ...]
    problem: str
    until: float


class Resolver:
    """Resolves names to addresses; make it inside the running loop.

    Args:
        nameservers: `address:port` of the servers to ask; empty asks the system's.
        lookup_seconds: Bound on one look-up.
        per_workspace: Bound on one workspace's look-ups at a time.
        max_cached: Bound on the names kept.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        *,
        nameservers: Sequence[str] = (),
        lookup_seconds: float = LOOKUP_SECONDS,
        per_workspace: int = LOOKUPS_PER_WORKSPACE,
        max_cached: int = MAX_CACHED_NAMES,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._nameservers = tuple(nameservers)
        self._lookup_seconds = lookup_seconds
        self._per_workspace = per_workspace
        self._max_cached = max_cached
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._answers: OrderedDict[str, _Answer] = OrderedDict()
        self._flights: dict[str, asyncio.Task[_Answer]] = {}
        self._gates: dict[str, _Gate] = {}
        self._dns = self._open_channel()
        self._opened_at = clock()
        self._retired: aiodns.DNSResolver | None = None
        self._closed = False

    async def resolve(self, name: str, workspace_id: str) -> tuple[str, ...]:
        """Return a name's addresses, in the order in which they are to be tried.

        Look-ups of one name at the same time are one query. An answer is kept for its TTL, at most 60 s, a failure
        for 5 s.

        Args:
            name: An ASCII name; never an IP literal.
            workspace_id: Whose look-up it is.

        Returns:
            IPv4 and IPv6 addresses, at least one.

        Raises:
            NoConnectionError: No such name, no addresses, or no answer in time; its failure is `dns`.
        """
        key = name.lower().removesuffix(".")
        answer = self._find_answer(key)
        if answer is None:
            answer = await self._ask(key, workspace_id)
        if not answer.addresses:
            raise NoConnectionError(SendFailure.DNS, answer.problem)
        return answer.addresses

    async def close(self) -> None:
        """End every look-up and release the sockets; `resolve` fails afterwards."""
        self._closed = True
        for flight in tuple(self._flights.values()):
            flight.cancel()
        await asyncio.gather(*self._flights.values(), return_exceptions=True)
        await self._dns.close()
        if self._retired is not None:
            await self._retired.close()

    def _find_answer(self, key: str) -> _Answer | None:
        answer = self._answers.get(key)
        if answer is None or answer.until <= self._clock():
            return None
        return answer

    async def _ask(self, key: str, workspace_id: str) -> _Answer:
        flight = self._flights.get(key)
        if flight is not None:
            return await self._join(flight)
        gate = self._gates.get(workspace_id)
        if gate is None:
            gate = self._gates[workspace_id] = _Gate(self._per_workspace)
        gate.users += 1
        try:
            # The place is kept until the answer is here, even where another workspace's look-up is joined.
            async with gate.places:
                answer = self._find_answer(key)
                if answer is not None:
                    return answer
                return await self._join(self._flights.get(key) or self._start(key))
        finally:
            gate.users -= 1
            if not gate.users:
                self._gates.pop(workspace_id, None)

    async def _join(self, flight: "asyncio.Task[_Answer]") -> _Answer:
        # Shielded: one waiter that gives up must not end the look-up for the others.
        try:
            return await asyncio.shield(flight)
        except asyncio.CancelledError:
            if self._closed and flight.cancelled():
                raise NoConnectionError(SendFailure.ABORTED, "the resolver was closed") from None
            raise

    def _start(self, key: str) -> "asyncio.Task[_Answer]":
        if self._closed:
            raise NoConnectionError(SendFailure.ABORTED, "the resolver was closed")
        flight = self._loop.create_task(self._look_up(key))
        self._flights[key] = flight
        flight.add_done_callback(lambda _: self._flights.pop(key, None))
        return flight

    async def _look_up(self, key: str) -> _Answer:
        await self._renew_channel()
        try:
            async with asyncio.timeout(self._lookup_seconds):
                found = await self._dns.getaddrinfo(key, family=socket.AF_UNSPEC, type=socket.SOCK_STREAM)
        except TimeoutError:
            answer = self._fail("the name look-up got no answer in time")
        except aiodns.error.DNSError as error:
            answer = self._fail(_explain(error))
        else:
            answer = self._accept(found)
        self._keep(key, answer)
        return answer

    def _accept(self, found: pycares.AddrInfoResult) -> _Answer:
        # An address comes as bytes; a name of /etc/hosts has TTL 0 there and is cheap to ask for again.
        addresses = tuple(dict.fromkeys(node.addr[0].decode("ascii") for node in found.nodes))
        if not addresses:
            return self._fail("the name has no address")
        ttl = min((node.ttl for node in found.nodes), default=0)
        return _Answer(addresses, "", self._clock() + min(max(ttl, 1), MAX_CACHE_SECONDS))

    def _fail(self, problem: str) -> _Answer:
        return _Answer((), problem, self._clock() + FAILURE_CACHE_SECONDS)

    def _keep(self, key: str, answer: _Answer) -> None:
        self._answers[key] = answer
        self._answers.move_to_end(key)
        while len(self._answers) > self._max_cached:
            self._answers.popitem(last=False)

    def _open_channel(self) -> aiodns.DNSResolver:
        return aiodns.DNSResolver(
            nameservers=list(self._nameservers) or None,
            loop=self._loop,
            timeout=_TRY_SECONDS,
            tries=_TRIES,
            flags=pycares.ARES_FLAG_NOSEARCH,
        )

    async def _renew_channel(self) -> None:
        # c-ares keeps answers itself, for up to an hour, and aiodns has no switch for it: a new channel forgets
        # them. The old one is closed one turn later, when its last look-up has long ended.
        if self._clock() - self._opened_at < MAX_CACHE_SECONDS:
            return
        self._opened_at = self._clock()
        expired, self._retired, self._dns = self._retired, self._dns, self._open_channel()
        if expired is not None:
            await expired.close()


class _Gate:
    """A workspace's places for look-ups, and how many requests use or wait for one."""

    __slots__ = ("places", "users")

    def __init__(self, places: int) -> None:
        self.places = asyncio.Semaphore(places)
        self.users = 0


def _explain(error: aiodns.error.DNSError) -> str:
    code = error.args[0] if error.args else 0
    if code == aiodns.error.ARES_ENOTFOUND:
        return "no such name"
    if code == aiodns.error.ARES_ENODATA:
        return "the name has no address"
    if code == aiodns.error.ARES_ETIMEOUT:
        return "the name look-up got no answer in time"
    if code == aiodns.error.ARES_ECONNREFUSED:
        return "the name server can't be reached"
    if code == aiodns.error.ARES_ESERVFAIL:
        return "the name server failed (SERVFAIL)"
    return f"the name look-up failed: {error.args[1] if len(error.args) > 1 else code}"
