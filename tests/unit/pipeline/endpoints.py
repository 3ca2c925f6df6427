"""Lanes over endpoints that answer when the test says so."""

import time
from dataclasses import dataclass, field
from types import SimpleNamespace

from dispatcher.pipeline.lanes import Lanes, Verdict
from dispatcher.pipeline.work import Delivery, Window
from tests.unit.pipeline.world import subscription


@dataclass
class Endpoints:
    """What was started, and lanes over it with a clock that the test sets."""

    max_in_flight: int = 400
    max_per_lane: int = 400
    limit_bytes: int = 64 * 1024 * 1024
    started: list[tuple[Delivery, object]] = field(default_factory=list)
    clock: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(now=100.0, is_busy=False))
    rates: dict[str, float] = field(default_factory=dict)
    settled: list[Delivery] = field(default_factory=list)
    gate_open: bool = True

    def __post_init__(self) -> None:
        self.subscriptions: dict[str, object] = {}
        self.lanes = Lanes(
            self.start,
            self.look_up,
            self.max_in_flight,
            self.max_per_lane,
            Window(self.limit_bytes),
            self.clock,
            lambda: self.gate_open,
        )

    def look_up(self, delivery):
        """Return today's subscription."""
        name = delivery.subscription_id
        if name not in self.subscriptions:
            workspace = delivery.event.workspace_id
            self.subscriptions[name] = subscription(name, rate_limit=self.rates.get(name), workspace_id=workspace)
        return self.subscriptions[name]

    def start(self, delivery, lane) -> bool:
        """Start an attempt."""
        known = self.look_up(delivery)
        if known is None or known.workspace_id != delivery.event.workspace_id:
            self.settled.append(delivery)
            return False
        if lane.subscription is not known:
            self.lanes.meet(lane, known)
        self.started.append((delivery, lane))
        return True

    def delivery(self, subscription_id="wh_a", workspace="ws", size=100) -> Delivery:
        """Make a delivery."""
        partition = SimpleNamespace(waiting=0)
        work = SimpleNamespace(size_bytes=size, partition=partition)
        event = SimpleNamespace(workspace_id=workspace)
        return Delivery(event, subscription_id, None, f"del_{time.monotonic_ns()}", work, None)

    def offer(self, count=1, subscription_id="wh_a", workspace="ws", size=100) -> list[Verdict]:
        """Offer deliveries to one lane."""
        return [self.lanes.offer(self.delivery(subscription_id, workspace, size)) for _ in range(count)]

    def finish(self, count=None, seconds=0.01, *, succeeded=True, overloaded=False) -> None:
        """End the oldest attempts."""
        ended, self.started = self.started[:count], self.started[len(self.started) if count is None else count :]
        for delivery, lane in ended:
            self.lanes.finished(delivery, lane, seconds=seconds, succeeded=succeeded, overloaded=overloaded)

    def tick(self) -> None:
        """Let a tick pass, and the turns of the loop in which what it may start is started."""
        if self.lanes.tick():
            while self.lanes.pump():
                pass

    def slow(self, subscription_id, workspace="ws") -> None:
        """Make a lane known as slow, with nothing in flight."""
        for _ in range(60):
            self.offer(1, subscription_id, workspace)
            self.clock.now += 9
            self.finish(seconds=9.0)
