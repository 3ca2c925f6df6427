"""How many requests a key may send, and how many unknown keys an address may try.

Token buckets in this process: with several API processes each has its own.
"""

import math
from dataclasses import dataclass

from dispatcher.core.errors import TooManyRequestsError
from dispatcher.ports import Clock

MAX_BUCKETS = 10_000


@dataclass(frozen=True, slots=True)
class Rate:
    """A long-term rate, and how many may come at once."""

    per_second: float
    burst: int


REQUESTS = Rate(100, 200)
"""Of one API key."""
GUESSES = Rate(5, 50)
"""Unknown, revoked or expired keys of one client address."""


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
        guesses: Of unknown keys from one client address; while it has tried too many, only keys that
            are known already get through from there.
    """

    def __init__(self, clock: Clock, *, requests: Rate = REQUESTS, guesses: Rate = GUESSES) -> None:
        self._requests = Buckets(requests, clock)
        self._guesses = Buckets(guesses, clock)

    def check_address(self, address: str) -> None:
        """Let an address name a key.

        Raises:
            TooManyRequestsError: It named too many unknown ones.
        """
        wait = self._guesses.wait_seconds(address)
        if wait:
            raise _too_many("this address tried too many unknown API keys", wait)

    def count_guess(self, address: str) -> None:
        """Note that an address named an unknown key."""
        self._guesses.take(address)

    def take_request(self, key_id: str) -> None:
        """Let a key send a request.

        Raises:
            TooManyRequestsError: It sent too many.
        """
        wait = self._requests.wait_seconds(key_id)
        if wait:
            raise _too_many("this API key sent too many requests", wait)
        self._requests.take(key_id)


def _too_many(what: str, wait_seconds: float) -> TooManyRequestsError:
    seconds = max(1, math.ceil(wait_seconds))
    return TooManyRequestsError(f"{what}; send the request again in {seconds} s", seconds)
