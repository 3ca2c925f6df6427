"""One lane: a subscription's requests in flight, what waits behind them, and what its endpoint is like."""

from collections import deque

from dispatcher.core.breaker import CircuitBreaker
from dispatcher.core.in_flight_limit import InFlightLimit
from dispatcher.core.model import Subscription
from dispatcher.core.token_bucket import TokenBucket
from dispatcher.pipeline.work import Delivery

QUIET_SECONDS = 0.1
"""An endpoint from which nothing came for so long, and for so many of its usual latencies, may be hanging."""

QUIET_LATENCIES = 4


class Workspace:
    """What the lanes of one tenant have in common.

    Attributes:
        long_in_flight: Requests under way in those of its lanes that aren't known to be fast.
        lanes: How many lanes there are.
        last_done_at: When an attempt of theirs last ended, or when the first of them was made.
    """

    __slots__ = ("id", "lanes", "last_done_at", "long_in_flight")

    def __init__(self, workspace_id: str, now: float) -> None:
        self.id = workspace_id
        self.last_done_at = now
        self.long_in_flight = 0
        self.lanes = 0


class Lane:
    """One subscription's requests.

    Args:
        subscription_id: `wh_…`.
        workspace: Its tenant.
        highest: Bound on requests in flight.
        now: The lane clock's time.

    Attributes:
        in_flight: Requests under way.
        queue: Deliveries that wait, oldest first; None where none ever did.
        held_bytes: Payload bytes of what is in flight and waits.
        limit: How many may be in flight.
        breaker: Whether anything is sent at all.
        bucket: The rate limit's; None without one.
        rate: This process's part of the rate limit, a second.
        is_slow: As of the last look.
        is_fast: Known to give its slots back soon; a lane from which nothing came yet isn't.
        subscription: As of the last attempt.
        last_done_at: When an attempt last ended, or when the lane last got busy.
    """

    __slots__ = (
        "_highest",
        "breaker",
        "bucket",
        "held_bytes",
        "in_flight",
        "is_fast",
        "is_slow",
        "last_done_at",
        "limit",
        "queue",
        "rate",
        "subscription",
        "subscription_id",
        "workspace",
    )

    def __init__(self, subscription_id: str, workspace: Workspace, highest: int, now: float) -> None:
        self.subscription_id = subscription_id
        self.workspace = workspace
        self.in_flight = 0
        self.queue: deque[Delivery] | None = None
        self.held_bytes = 0
        self.limit = InFlightLimit(highest)
        self.breaker = CircuitBreaker()
        self.bucket: TokenBucket | None = None
        self.rate: float | None = None
        self.subscription: Subscription | None = None
        self._highest = highest
        self.is_slow = False
        self.is_fast = False
        self.last_done_at = now

    def meet(self, subscription: Subscription, rate_share: float, now: float) -> None:
        """Take over what the subscription says today; another URL is another endpoint, and begins anew.

        Args:
            subscription: Today's.
            rate_share: This process's part of the subscription's rate limit.
            now: The lane clock's time.
        """
        if self.subscription is not None and self.subscription.url != subscription.url:
            self.limit = InFlightLimit(self._highest)
            self.breaker = CircuitBreaker()
            self.last_done_at = now
        self.subscription = subscription
        rate = None if subscription.rate_limit is None else subscription.rate_limit * rate_share
        if rate != self.rate:
            self.rate = rate
            if rate is None:
                self.bucket = None
            elif self.bucket is None:
                self.bucket = TokenBucket(rate, now)
            else:
                self.bucket.set_rate(rate, now)

    def lift_rate(self) -> None:
        """Forget the rate limit: what waits is not to be sent any more."""
        self.rate = self.bucket = None

    def is_hanging(self, now: float, seconds: float) -> bool:
        """Say whether its endpoint takes longer, by what came or by what doesn't come."""
        return self.limit.latency_seconds > seconds or (self.in_flight > 0 and now - self.last_done_at > seconds)

    def is_quiet(self, now: float) -> bool:
        """Say whether nothing has come from its endpoint for long enough to be careful: it may be hanging.

        It gets no more of the second half of the slots until that is known; many that hang at once would have them all.
        """
        return (
            self.in_flight > 0
            and now - self.last_done_at > QUIET_SECONDS + QUIET_LATENCIES * self.limit.latency_seconds
        )

    def would_wait(self, seconds: float) -> bool:
        """Say whether one more delivery would have to wait longer here."""
        ahead = 1 + (len(self.queue) if self.queue else 0)
        if self.rate is not None and ahead > seconds * self.rate:
            return True
        return ahead * self.limit.latency_seconds > seconds * self.limit.current

    def may_send(self, now: float) -> bool:
        """Say whether its endpoint may get one more request now; one probe may go beside older requests."""
        if self.bucket is not None and not self.bucket.has_token(now):
            return False
        return self.in_flight < self.limit.current or self.breaker.is_open
