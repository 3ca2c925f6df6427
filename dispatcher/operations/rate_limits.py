"""How many requests keys and workspaces may send, how many test events, and how many unknown keys an address may try.

Token buckets in this process: with several API processes each has its own.
"""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from dispatcher.core.client_address import network_of
from dispatcher.core.errors import TooManyRequestsError
from dispatcher.operations.gates import Gate
from dispatcher.ports import ApiKey, Clock
from dispatcher.settings import QuotaSettings

MAX_BUCKETS = 10_000
DOUBTFUL_AT_ONCE = 2
"""So many keys are looked up at once that come from where too many unknown ones came from."""
TESTS_AT_ONCE = 10
TESTS_UNDER_WAY = 5
"""Of one workspace."""
TESTS_UNDER_WAY_IN_ALL = 100


@dataclass(frozen=True, slots=True)
class Rate:
    """A long-term rate, and how many may come at once."""

    per_second: float
    burst: int


_DEFAULT = QuotaSettings()

REQUESTS = Rate(100, 200)
"""Of one API key."""
WORKSPACES = Rate(_DEFAULT.requests_per_second, 2 * _DEFAULT.requests_per_second)
"""Of all API keys of one workspace."""
GUESSES = Rate(5, 50)
"""Unknown, revoked or expired keys of one client: of an IPv4 address, or an IPv6 network of 64 bits."""


class Buckets:
    """Token buckets by name; a bucket that is full again is forgotten, so their number is bounded.

    Args:
        rate: How they fill.
        clock: Time.
    """

    def __init__(self, rate: Rate, clock: Clock) -> None:
        self._rate = rate
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}

    def wait_seconds(self, name: str) -> float:
        """Say how long until a token is there; 0 where one is."""
        left = self._now_left(name)
        return 0.0 if left >= 1 else (1 - left) / self._rate.per_second

    def take(self, name: str) -> None:
        """Take a token, if there is one."""
        left = self._now_left(name)
        if len(self._left) >= MAX_BUCKETS and name not in self._left:
            self._forget()
        self._left[name] = (max(left - 1, 0.0), self._clock.monotonic())

    def _now_left(self, name: str) -> float:
        left, at = self._left.get(name, (float(self._rate.burst), 0.0))
        gained = (self._clock.monotonic() - at) * self._rate.per_second
        return min(left + gained, float(self._rate.burst))

    def _forget(self) -> None:
        burst = self._rate.burst
        self._left = {name: kept for name, kept in self._left.items() if self._now_left(name) < burst}
        if len(self._left) >= MAX_BUCKETS:
            # Everybody is busy at once: the fullest half starts afresh, which lets through at most one burst each.
            ordered = sorted(self._left, key=self._now_left)
            self._left = {name: self._left[name] for name in ordered[: MAX_BUCKETS // 2]}


class RateLimits:
    """The limits of the API and the console.

    Args:
        clock: Time.
        requests: Of one API key.
        workspaces: Of all API keys of one workspace together.
        guesses: Of unknown keys from one client.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        requests: Rate = REQUESTS,
        workspaces: Rate = WORKSPACES,
        guesses: Rate = GUESSES,
    ) -> None:
        self._requests = Buckets(requests, clock)
        self._workspaces = Buckets(workspaces, clock)
        self._guesses = Buckets(guesses, clock)
        self.doubtful = asyncio.Semaphore(DOUBTFUL_AT_ONCE)
        """Holds back look-ups of keys from clients that guess."""

    def guess_problem(self, address: str) -> TooManyRequestsError | None:
        """Return what a client is told that names an unknown key and has named too many before; None: it hasn't."""
        wait = self._guesses.wait_seconds(network_of(address))
        return _too_many("too many unknown API keys came from this address", wait) if wait else None

    def count_guess(self, address: str) -> None:
        """Note that a client named an unknown key."""
        self._guesses.take(network_of(address))

    def take_request(self, key: ApiKey) -> None:
        """Let a key send a request.

        Raises:
            TooManyRequestsError: It sent too many, or its workspace's keys together did.
        """
        wait = self._requests.wait_seconds(key.id)
        if wait:
            raise _too_many("this API key sent too many requests", wait)
        wait = self._workspaces.wait_seconds(key.workspace_id)
        if wait:
            raise _too_many("the API keys of this workspace sent too many requests together", wait)
        self._requests.take(key.id)
        self._workspaces.take(key.workspace_id)


def rate_limits_of(quotas: QuotaSettings, clock: Clock) -> RateLimits:
    """Make the limits that an operator has set."""
    of_a_workspace = quotas.requests_per_second
    return RateLimits(clock, workspaces=Rate(of_a_workspace, 2 * of_a_workspace))


class EventTestLimits:
    """How many test events a workspace sends: each holds two connections for as long as its endpoint takes.

    Args:
        clock: Time.
        per_minute: Of one workspace.
        each: Under way at once, of one workspace.
        together: Under way at once, of all workspaces.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        per_minute: int = _DEFAULT.test_events_per_minute,
        each: int = TESTS_UNDER_WAY,
        together: int = TESTS_UNDER_WAY_IN_ALL,
    ) -> None:
        self._sent = Buckets(Rate(per_minute / 60, min(per_minute, TESTS_AT_ONCE)), clock)
        self._gate = Gate("test events", each=each, together=together)

    @asynccontextmanager
    async def one(self, workspace_id: str) -> AsyncIterator[None]:
        """Send one in the time of the `async with`.

        Raises:
            TooManyRequestsError: The workspace sent too many, or too many are under way.
        """
        wait = self._sent.wait_seconds(workspace_id)
        if wait:
            raise _too_many("this workspace sent too many test events in a short time", wait)
        async with self._gate.enter(workspace_id):
            self._sent.take(workspace_id)
            yield


def _too_many(what: str, wait_seconds: float) -> TooManyRequestsError:
    seconds = max(1, math.ceil(wait_seconds))
    return TooManyRequestsError(f"{what}; send the request again in {seconds} s", seconds)
