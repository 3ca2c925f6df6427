"""The lanes of all subscriptions: who may be in flight, who waits, and who is in the way of others.

The process may be the bottleneck (no free slot anywhere) or a lane may be (its endpoint is slow, or it holds more
than its share). The first means back-pressure: the caller waits. The second must not stop anybody else: the caller
moves the delivery elsewhere.
"""

from collections import deque
from collections.abc import Callable, Collection, Mapping
from enum import Enum
from itertools import islice

from dispatcher.core.model import Status, Subscription
from dispatcher.pipeline.lane import Lane, Workspace
from dispatcher.pipeline.lane_clock import TICK_SECONDS, LaneClock
from dispatcher.pipeline.shares import LONG_SECONDS, RECENT_SECONDS, Shares
from dispatcher.pipeline.work import Delivery, Window

QUEUE = 512
"""Deliveries that wait in one lane, at most; those of own topics that are held there come besides."""

LANE_BYTES_SHARE = 1 / 8
"""What one lane may take of the payload window."""

HELD_SHARE = 1 / 4
"""What deliveries of own topics that wait for their lane may take of the payload window."""

HELD_RESERVE = 1 / 16
"""What is left of the slots, while any of those waits, by everything that is newly offered."""

REPLAY_SHARE = 1 / 16
"""What replays may take of the slots, under way and on their way there, while other deliveries have work."""

REPLAYS_A_TICK = 8
"""As many replays are taken up between two ticks while other deliveries have work: each is time that those wait."""

SLOW_SECONDS = 1.0
"""A lane is slow where an attempt takes longer, or one more delivery would wait longer."""

REMEMBERED = 10_000
"""Idle lanes whose endpoint's latency and failures are remembered, at most."""

REMEMBERED_SECONDS = 60.0
PUMPED_AT_ONCE = 1_000
STARTED_AT_ONCE = 32
"""Attempts that waited and are started in one turn of the loop, or settled without one: some two milliseconds."""

JUDGED_AT_ONCE = 1_000


class Verdict(Enum):
    """What became of an offered delivery."""

    TAKEN = "taken"
    """It is in flight or queued."""
    FULL = "full"
    """The process has no room for now: offer it again."""
    SLOW = "slow"
    """Its lane has no room: move the delivery elsewhere."""
    LATER = "later"
    """Its workspace has its share, of endpoints of which nothing is known yet and others of which answer: offer it
    again, and let others go first."""


class Lanes:
    """The lanes, within one bound for the process.

    Args:
        start: Starts an attempt in a lane; returns False where there was none to make, and the slot is free again.
        look_up: Says what a delivery's subscription is today; None where there is none any more.
        max_in_flight: Bound on requests under way, and on deliveries queued or under way.
        max_per_lane: Bound on one lane's requests under way.
        window: The payload bytes held.
        clock: What endpoints are measured with.
        gate: False while nothing may be sent of what waits (what is known of subscriptions is stale).

    Attributes:
        in_flight: Requests under way.
        queued: Deliveries that wait in their lane.
        held: Deliveries of own topics that wait in their lane besides, however full it is.
        slow_seconds: `SLOW_SECONDS`, as it was when these lanes were made.
        rate_share: This process's part of each subscription's rate limit; changed by `share_rates`.
        replays_left: How many replays may be taken up until the next tick, while other deliveries have work.
    """

    def __init__(
        self,
        start: Callable[[Delivery, Lane], bool],
        look_up: Callable[[Delivery], Subscription | None],
        max_in_flight: int,
        max_per_lane: int,
        window: Window,
        clock: LaneClock,
        gate: Callable[[], bool],
    ) -> None:
        self._gate = gate
        self._start = start
        self._look_up = look_up
        self._max = max_in_flight
        self._half = max_in_flight // 2
        self._reserve = int(max_in_flight * HELD_RESERVE)
        self._replay_slots = max(1, int(max_in_flight * REPLAY_SHARE))
        self._max_per_lane = max_per_lane
        self._window = window
        self._clock = clock
        self._lanes: dict[str, Lane] = {}
        self._idle: dict[str, float] = {}  # since when, the longest first
        self._waiting: dict[str, Lane] = {}  # whose queue isn't empty, in the order of their turn
        self._to_judge: list[Lane] = []
        self._shares = Shares(max_in_flight, window)
        self._max_lane_bytes = window.limit_bytes * LANE_BYTES_SHARE
        self._held_bytes = 0
        self._live_at = -RECENT_SECONDS
        self.slow_seconds = SLOW_SECONDS
        self.in_flight = 0
        self.queued = 0
        self.held = 0
        self.rate_share = 1.0
        self.replays_left = REPLAYS_A_TICK
        self._started = 0
        self._some_left = False

    @property
    def now(self) -> float:
        """The lane clock's time."""
        return self._clock.now

    @property
    def slow_in_flight(self) -> int:
        """Requests under way in slow lanes."""
        return self._shares.slow_in_flight

    @property
    def has_room(self) -> bool:
        """True while the process may take up another delivery; slots in which requests hang are made up for."""
        taken = self.in_flight + self.queued + (self._reserve if self.held else 0)
        return taken < self._max or taken < self._max + self._shares.hanging

    @property
    def may_hold(self) -> bool:
        """True while another delivery of an own topic may wait for its lane."""
        return self._held_bytes < self._window.limit_bytes * HELD_SHARE

    def may_replay(self, active: int) -> bool:
        """Say whether one more replay may be taken up beside so many that are under way, or on their way to a slot.

        Whoever takes it up takes it from `replays_left`.
        """
        if self._clock.now - self._live_at >= RECENT_SECONDS:
            return active < self._max
        return active < self._replay_slots and self.replays_left > 0

    @property
    def known(self) -> Collection[Lane]:
        """Every lane that works or is remembered."""
        return self._lanes.values()

    def count_states(self) -> Mapping[str, float]:
        """Return how many lanes there are by what their endpoint is like."""
        counts = {"healthy": 0.0, "slow": 0.0, "circuit_open": 0.0}
        for lane in self.known:
            counts["circuit_open" if lane.breaker.is_open else "slow" if lane.is_slow else "healthy"] += 1
        return counts

    def is_rate_limited(self, delivery: Delivery) -> bool:
        """Say whether a delivery's lane has a rate limit."""
        lane = self._lanes.get(delivery.subscription_id)
        return lane is not None and lane.rate is not None

    def offer(self, delivery: Delivery) -> Verdict:
        """Start a delivery's attempt, queue it, or say why not."""
        now = self._clock.now
        if not delivery.run:
            self._live_at = now
        lane = self._lanes.get(delivery.subscription_id) or self._make(delivery, now)
        if lane is None:
            return Verdict.TAKEN
        if lane.breaker.is_open and lane.breaker.refuses(now):
            # Nothing is sent, so it needs no room.
            self._take_slot(lane, delivery)
            return Verdict.TAKEN
        latency = lane.limit.latency_seconds
        # Two numbers tell for nearly all deliveries that there is nothing to judge.
        unsure = lane.is_slow or latency > self.slow_seconds or now - lane.last_done_at > self.slow_seconds
        slow = unsure and self._judge(lane, now)
        self._shares.note(lane.workspace, now, healthy=not slow)
        if not lane.is_fast and self._shares.is_over(lane, now):
            answers = not latency and now - lane.workspace.last_done_at <= self.slow_seconds
            return Verdict.LATER if answers and not slow else Verdict.SLOW
        taken = self.in_flight + self.queued
        if taken >= self._half:
            if slow and taken >= self._max:
                return Verdict.SLOW
            # What hangs is made up for, so that a lane's pause stops nobody where nothing else is short of slots.
            scarce = slow or taken - self._shares.hanging >= self._half
            if not self.has_room or (scarce and lane.is_quiet(now)):
                return Verdict.SLOW if slow else Verdict.FULL
        return self._enter(lane, delivery, now, slow=slow)

    def _enter(self, lane: Lane, delivery: Delivery, now: float, *, slow: bool) -> Verdict:
        queue = lane.queue
        room = lane.held_bytes < self._max_lane_bytes
        if room and not queue and lane.may_send(now):
            self._take_slot(lane, delivery)
            return Verdict.TAKEN
        if slow or lane.would_wait(self.slow_seconds):
            return Verdict.SLOW
        if not room or (queue is not None and len(queue) >= QUEUE):
            return Verdict.SLOW if self._is_in_the_way(lane, now, large=not room) else Verdict.FULL
        self._enqueue(lane, delivery)
        self.queued += 1
        return Verdict.TAKEN

    def _is_in_the_way(self, lane: Lane, now: float, *, large: bool) -> bool:
        """Say whether a full lane keeps other workspaces from a process that has time for them.

        Where the process is busy, what looks like a slow endpoint may be the process's own doing; not so where the
        lane has all the requests that it may ever have.
        """
        if not self._shares.others_have_work(lane, now):
            return False
        if self._clock.is_busy:
            return lane.limit.is_at_bound and not large
        return large or lane.limit.is_strained

    def hold(self, delivery: Delivery) -> None:
        """Let a delivery of an own topic wait in its lane, however full that is; the caller bounds how many do."""
        lane = self._lanes.get(delivery.subscription_id) or self._make(delivery, self._clock.now)
        if lane is None:
            return
        delivery.held = True
        self._enqueue(lane, delivery)
        self.held += 1
        self._held_bytes += delivery.work.size_bytes
        delivery.work.partition.waiting += 1

    def finished(
        self,
        delivery: Delivery,
        lane: Lane,
        *,
        seconds: float,
        succeeded: bool,
        overloaded: bool,
        is_current: bool = True,
    ) -> None:
        """Give a slot back, learn from the attempt, and start what waited for it.

        Args:
            delivery: Whose attempt ended.
            lane: Where it was started.
            seconds: How long it took.
            succeeded: Whether the endpoint took it.
            overloaded: Whether the endpoint asks for less.
            is_current: Whether it was sent to the lane's present URL; an older one's answer teaches nothing.
        """
        now = self._clock.now
        if is_current:
            self._learn(delivery, lane, now, seconds=seconds, succeeded=succeeded, overloaded=overloaded)
        # A lane that has more than its share gives the slot to who is next, instead of keeping it for ever.
        is_over = not lane.is_fast and self._shares.is_over(lane, now)
        self._free_slot(lane, delivery)
        if lane.queue:
            if not is_over and self._gate():
                self._pump(lane, now)
        elif not lane.in_flight:
            self._rest(lane)

    def _learn(
        self, delivery: Delivery, lane: Lane, now: float, *, seconds: float, succeeded: bool, overloaded: bool
    ) -> None:
        # While this process stood still, its endpoints didn't: that time is not theirs.
        seconds = min(seconds, now - delivery.started_at + 2 * TICK_SECONDS)
        lane.limit.ended(lane.in_flight, seconds, overloaded=overloaded, succeeded=succeeded)
        lane.last_done_at = lane.workspace.last_done_at = now
        fast = not lane.is_slow and lane.limit.latency_seconds <= LONG_SECONDS
        if fast is not lane.is_fast:
            self._shares.mark_fast(lane, fast=fast)
        if delivery.probe:
            lane.breaker.probe_ended(now, succeeded=succeeded)
            if not lane.breaker.is_open:
                lane.limit.restart()
        else:
            lane.breaker.record(now, delivery.id, succeeded=succeeded)

    def withdraw(self, wanted: Callable[[Delivery], bool]) -> list[Delivery]:
        """Take waiting deliveries out of their lanes."""
        taken: list[Delivery] = []
        for lane in list(self._waiting.values()):
            queue = lane.queue or ()
            mine = [delivery for delivery in queue if wanted(delivery)]
            lane.queue = deque(delivery for delivery in queue if not wanted(delivery))
            for delivery in mine:
                self._leave(lane, delivery)
            taken += mine
            if not lane.queue:
                del self._waiting[lane.subscription_id]
                if not lane.in_flight:
                    self._rest(lane)
        return taken

    def tick(self) -> bool:
        """Start what waited for time to pass: for a rate limit, a share, a slot. Called every `TICK_SECONDS`.

        Returns:
            Whether some may be left: call `pump` in the loop's next turn, and go on while that says so. False where
            that is still being done since an earlier tick: it goes on as it is.
        """
        now = self._clock.now
        self.replays_left = REPLAYS_A_TICK
        some_left = not self._some_left and self.pump()
        if self.in_flight >= self._half:
            self._judge_some(now)
        for subscription_id, since in list(islice(self._idle.items(), PUMPED_AT_ONCE)):
            if now - since < REMEMBERED_SECONDS:
                break
            self._forget(subscription_id)
        return some_left

    def pump(self) -> bool:
        """Start what waits and may be sent now; True where that was enough for one turn of the loop."""
        self._some_left = self._gate() and self._pump_in_turn()
        return self._some_left

    def meet(self, lane: Lane, subscription: Subscription) -> None:
        """Let a lane take over what its subscription says today."""
        endpoint = lane.limit
        lane.meet(subscription, self.rate_share, self._clock.now)
        if lane.limit is not endpoint:
            self._shares.mark_fast(lane, fast=False)

    def share_rates(self, rate_share: float) -> None:
        """Take over which part of each rate limit is this process's own."""
        self.rate_share = rate_share
        for lane in self._lanes.values():
            if lane.rate is not None and lane.subscription is not None:
                self.meet(lane, lane.subscription)

    # --- lanes ----------------------------------------------------------------------------------------------------

    def _make(self, delivery: Delivery, now: float) -> Lane | None:
        """Make a delivery's lane; None where nothing may be sent, and the delivery is settled without one."""
        subscription = self._look_up(delivery)
        workspace_id = delivery.event.workspace_id
        if (
            subscription is None
            or subscription.status != Status.ACTIVE
            or subscription.workspace_id != workspace_id
        ):  # fmt: skip
            # Whoever names a subscription of another tenant must not make its lane.
            self._start(delivery, Lane(delivery.subscription_id, Workspace(workspace_id, now), self._max_per_lane, now))
            return None
        workspaces = self._shares.workspaces
        workspace = workspaces.get(workspace_id)
        if workspace is None:
            workspace = workspaces[workspace_id] = Workspace(workspace_id, now)
        workspace.lanes += 1
        lane = Lane(delivery.subscription_id, workspace, self._max_per_lane, now)
        self._lanes[lane.subscription_id] = lane
        self._rest(lane)
        self.meet(lane, subscription)
        return lane

    def _renew(self, lane: Lane) -> None:
        """Let a lane that waits for its rate limit know what became of that meanwhile."""
        head = lane.queue[0] if lane.queue else None
        subscription = None if head is None else self._look_up(head)
        if subscription is None or subscription.status != Status.ACTIVE:
            lane.lift_rate()
        elif subscription is not lane.subscription:
            self.meet(lane, subscription)

    def _forget(self, subscription_id: str) -> None:
        del self._idle[subscription_id]
        workspace = self._lanes.pop(subscription_id).workspace
        workspace.lanes -= 1
        if not workspace.lanes:
            del self._shares.workspaces[workspace.id]

    def _rest(self, lane: Lane) -> None:
        self._idle.pop(lane.subscription_id, None)
        self._idle[lane.subscription_id] = self._clock.now
        if len(self._idle) > REMEMBERED:
            oldest = next(iter(self._idle))
            self._forget(oldest)

    def _judge(self, lane: Lane, now: float) -> bool:
        slow = lane.is_hanging(now, self.slow_seconds)
        if slow is not lane.is_slow:
            if slow and lane.limit.latency_seconds <= self.slow_seconds:
                # One late answer must not pass for a fast endpoint, by whose measure it would get every slot.
                lane.limit.doubt_latency()
            self._shares.mark_slow(lane, slow=slow)
        return slow

    def _judge_some(self, now: float) -> None:
        """Look whether lanes hang that nothing is offered to: each may hold one slot only, and all together most."""
        if not self._to_judge:
            self._to_judge = [lane for lane in self._lanes.values() if lane.in_flight]
        for lane in self._to_judge[-JUDGED_AT_ONCE:]:
            self._judge(lane, now)
        del self._to_judge[-JUDGED_AT_ONCE:]

    # --- slots ----------------------------------------------------------------------------------------------------

    def _take_slot(self, lane: Lane, delivery: Delivery) -> None:
        now = self._clock.now
        if not lane.in_flight:
            lane.last_done_at = now
            self._idle.pop(lane.subscription_id, None)
        lane.in_flight += 1
        self.in_flight += 1
        self._started += 1
        size = delivery.work.size_bytes
        lane.held_bytes += size
        if not lane.is_fast:
            lane.workspace.long_in_flight += 1
            if lane.is_slow:
                self._shares.slow_in_flight += 1
                self._shares.slow_bytes += size
        delivery.started_at = now
        bucket = lane.bucket
        paid = bucket is not None and bucket.take(now)
        started = self._start(delivery, lane)
        if bucket is None and lane.bucket is not None:
            lane.bucket.take(now)  # its limit was learnt with this very one
        if not started:
            if paid and bucket is not None:
                bucket.give_back()
            self._free_slot(lane, delivery)
            if not lane.in_flight and not lane.queue:
                self._rest(lane)

    def _free_slot(self, lane: Lane, delivery: Delivery) -> None:
        lane.in_flight -= 1
        self.in_flight -= 1
        size = delivery.work.size_bytes
        lane.held_bytes -= size
        if not lane.is_fast:
            lane.workspace.long_in_flight -= 1
            if lane.is_slow:
                self._shares.slow_in_flight -= 1
                self._shares.slow_bytes -= size

    def _enqueue(self, lane: Lane, delivery: Delivery) -> None:
        if lane.queue is None:
            lane.queue = deque()
        lane.queue.append(delivery)
        lane.held_bytes += delivery.work.size_bytes
        if lane.is_slow:
            self._shares.slow_bytes += delivery.work.size_bytes
        self._idle.pop(lane.subscription_id, None)
        self._waiting[lane.subscription_id] = lane

    def _leave(self, lane: Lane, delivery: Delivery) -> None:
        lane.held_bytes -= delivery.work.size_bytes
        if lane.is_slow:
            self._shares.slow_bytes -= delivery.work.size_bytes
        if delivery.held:
            delivery.held = False
            self.held -= 1
            self._held_bytes -= delivery.work.size_bytes
            delivery.work.partition.waiting -= 1
        else:
            self.queued -= 1

    def _pump_in_turn(self) -> bool:
        now = self._clock.now
        enough = self._started + STARTED_AT_ONCE
        for subscription_id, lane in list(islice(self._waiting.items(), PUMPED_AT_ONCE)):
            # The lanes take turns: who was pumped comes last.
            self._waiting[subscription_id] = self._waiting.pop(subscription_id)
            if lane.rate is not None:
                self._renew(lane)
            self._pump(lane, now)
            if self._started >= enough:
                return True
        if self._waiting:
            # All had a turn, in the same order: another one is the first of the next.
            first = next(iter(self._waiting))
            self._waiting[first] = self._waiting.pop(first)
        return False

    def _pump(self, lane: Lane, now: float) -> None:
        """Start what waits in a lane, as far as its endpoint, its share and the process allow."""
        queue = lane.queue
        enough = self._started + STARTED_AT_ONCE
        while queue and self._started < enough:
            if not (lane.breaker.is_open and lane.breaker.refuses(now)):
                slow = self._judge(lane, now)
                if self.in_flight >= self._max + (0 if slow else self._shares.hanging):
                    break
                if not lane.is_fast and self._shares.is_over(lane, now):
                    break
                if not lane.may_send(now):
                    break
            delivery = queue.popleft()
            self._leave(lane, delivery)
            self._take_slot(lane, delivery)
            queue = lane.queue
        if not queue:
            self._waiting.pop(lane.subscription_id, None)
