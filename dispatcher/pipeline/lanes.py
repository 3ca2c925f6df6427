"""One lane a subscription: how many of its requests are in flight, and what waits behind them.

The process may be the bottleneck (no free slot anywhere) or a lane may be (its endpoint is slow). The first means
back-pressure: the caller waits. The second must not stop anybody else: the caller moves the delivery elsewhere.
"""

from collections import deque
from collections.abc import Callable
from enum import Enum

from dispatcher.pipeline.work import Delivery

LANE_IN_FLIGHT = 128
LANE_QUEUE = 512
SLOW_SECONDS = 1.0
_SMOOTHING = 0.1
_MAX_REMEMBERED = 10_000


class Verdict(Enum):
    """What became of an offered delivery."""

    TAKEN = "taken"
    """It is in flight or queued."""
    FULL = "full"
    """No room for now: offer it again."""
    SLOW = "slow"
    """The lane is slow and full: move the delivery elsewhere."""


class Lane:
    """One subscription's requests.

    Attributes:
        in_flight: Requests under way.
        queue: Deliveries that wait for a free slot, oldest first.
        latency_seconds: Smoothed duration of its attempts.
        last_done_at: Loop time when an attempt last ended, or when the lane last got busy.
    """

    __slots__ = ("in_flight", "last_done_at", "latency_seconds", "queue")

    def __init__(self, now: float) -> None:
        self.in_flight = 0
        self.queue: deque[Delivery] = deque()
        self.latency_seconds = 0.0
        self.last_done_at = now

    def is_slow(self, now: float) -> bool:
        """Say whether one more delivery would have to wait too long here."""
        if self.latency_seconds > SLOW_SECONDS or now - self.last_done_at > SLOW_SECONDS:
            return True
        return (len(self.queue) + 1) * self.latency_seconds > SLOW_SECONDS * LANE_IN_FLIGHT


class Lanes:
    """The lanes of all subscriptions, within one bound for the process.

    Args:
        start: Starts an attempt; returns False where there was none to make, and the slot is free again.
        max_in_flight: Bound on requests under way, and on deliveries queued or under way.
        time: The loop's clock, seconds.
    """

    def __init__(self, start: Callable[[Delivery], bool], max_in_flight: int, time: Callable[[], float]) -> None:
        self._start = start
        self._max = max_in_flight
        self._time = time
        self._lanes: dict[str, Lane] = {}
        self.in_flight = 0
        self.queued = 0

    @property
    def has_room(self) -> bool:
        """True while the process may take up another delivery."""
        return self.in_flight + self.queued < self._max

    def offer(self, delivery: Delivery) -> Verdict:
        """Start a delivery's attempt, queue it, or say why not."""
        if not self.has_room:
            return Verdict.FULL
        lane = self._lanes.get(delivery.subscription_id)
        if lane is None:
            lane = self._lanes[delivery.subscription_id] = Lane(self._time())
        if lane.in_flight < LANE_IN_FLIGHT and not lane.queue:
            self._take_slot(lane, delivery)
            return Verdict.TAKEN
        if lane.is_slow(self._time()):
            return Verdict.SLOW
        if len(lane.queue) >= LANE_QUEUE:
            return Verdict.FULL
        lane.queue.append(delivery)
        self.queued += 1
        return Verdict.TAKEN

    def finished(self, delivery: Delivery, seconds: float) -> None:
        """Give a slot back, and start what waited for it.

        Args:
            delivery: Whose attempt ended.
            seconds: How long it took.
        """
        lane = self._lanes[delivery.subscription_id]
        lane.in_flight -= 1
        self.in_flight -= 1
        lane.latency_seconds += (seconds - lane.latency_seconds) * _SMOOTHING
        lane.last_done_at = self._time()
        while lane.queue and lane.in_flight < LANE_IN_FLIGHT:
            self.queued -= 1
            self._take_slot(lane, lane.queue.popleft())
        if not lane.in_flight and not lane.queue:
            self._rest(delivery.subscription_id, lane)

    def withdraw(self, wanted: Callable[[Delivery], bool]) -> list[Delivery]:
        """Take queued deliveries out of their lanes."""
        taken: list[Delivery] = []
        for lane in self._lanes.values():
            if lane.queue:
                taken.extend(delivery for delivery in lane.queue if wanted(delivery))
                lane.queue = deque(delivery for delivery in lane.queue if not wanted(delivery))
        self.queued -= len(taken)
        return taken

    def _take_slot(self, lane: Lane, delivery: Delivery) -> None:
        if not lane.in_flight:
            lane.last_done_at = self._time()
        lane.in_flight += 1
        self.in_flight += 1
        if not self._start(delivery):
            lane.in_flight -= 1
            self.in_flight -= 1
            if not lane.in_flight and not lane.queue:
                self._rest(delivery.subscription_id, lane)

    def _rest(self, subscription_id: str, lane: Lane) -> None:
        # A slow endpoint is remembered, so that the next burst doesn't have to find it out again.
        if lane.latency_seconds <= SLOW_SECONDS:
            self._lanes.pop(subscription_id, None)
        elif len(self._lanes) > _MAX_REMEMBERED:
            self._lanes = {key: kept for key, kept in self._lanes.items() if kept.in_flight or kept.queue}
