"""One consumer role: polls its group's records, takes them up as there is room, commits what is complete.

A record waits in its partition's hold until it is due and there is room. Partitions whose hold is full are not
asked for; the membership of the group stays alive all the while.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import structlog

from dispatcher.core.errors import UnavailableError
from dispatcher.core.records import due_ms
from dispatcher.metrics import Histogram, Metrics
from dispatcher.pipeline.expansions import MAX_OPEN, Expansions, Given
from dispatcher.pipeline.intake import OwnIntake, SourceIntake, size_of
from dispatcher.pipeline.lane_clock import TICK_SECONDS
from dispatcher.pipeline.lanes import Lanes, Verdict
from dispatcher.pipeline.log_buffer import LogBuffer
from dispatcher.pipeline.log_check import LogCheck
from dispatcher.pipeline.settlement import Settlement
from dispatcher.pipeline.work import Delivery, PartitionState, Window
from dispatcher.ports import Clock, CommitPoint, ConsumedRecord, Partition, RecordConsumer, UnreadableRecord

log = structlog.get_logger(__name__)

HOLD_RECORDS = 500
HOLD_BYTES = 4 * 1024 * 1024
POLL_RECORDS = 250
FEED_RECORDS = 16
"""Records that one turn of the loop takes up. What Kafka sends passes through some six turns until it is taken up
itself, so that each millisecond here is six that the next one waits."""
FEED_BACKLOG_RECORDS = 64
"""As many of source topics where a backlog waits there, which is worked off a seventh faster by longer turns; what is
read of own topics must not make live events wait."""
BACKLOG = 128
"""So many held records, or more, are a backlog."""
MAX_PRODUCING = 16_384
MAX_SPAN = 1_000_000
MAX_CHECKING = 2_000
COMMIT_SECONDS = 0.5
RETRY_SECONDS = 0.05
LONGEST_REST_SECONDS = 30.0
DRAIN_SECONDS = 12.0
HAND_OVER_SECONDS = 5.0
MAX_FINISHED = 2_000
"""So many deliveries of events under way are made to be handed over: an event that isn't whole keeps what was done
behind it from being committed."""
NOTED_RECORDS = 1_000
"""So many records are taken up at most before the note beside a commit says so."""
LOOKUPS = 16_384
"""After an unclean end: as many deliveries that were taken up after the last note may be unknown to the log."""


_STOP = -1


class Engine:
    """What the roles of one process share.

    Attributes:
        lanes: In flight and queued.
        window: Payload bytes.
        buffer: The delivery log.
        settlement: Where outcomes go.
        metrics: Instruments.
        clock: The time.
        gate: False while nothing may be taken up (the index is stale).
        check_for: Makes a `LogCheck` that reports to a role.
    """

    def __init__(
        self,
        lanes: Lanes,
        window: Window,
        buffer: LogBuffer,
        settlement: Settlement,
        metrics: Metrics,
        clock: Clock,
        gate: Callable[[], bool],
        check_for: Callable[[Callable[[Delivery], None]], LogCheck],
    ) -> None:
        self.lanes = lanes
        self.window = window
        self.buffer = buffer
        self.settlement = settlement
        self.metrics = metrics
        self.clock = clock
        self.gate = gate
        self.check_for = check_for
        # In the order in which they were served.
        self.blocked: dict[Role, None] = {}
        self._waking = False

    def wake(self) -> None:
        """Let blocked roles go on, soon."""
        if self.blocked and not self._waking:
            self._waking = True
            asyncio.get_running_loop().call_soon(self._feed_blocked)

    def _feed_blocked(self) -> None:
        self._waking = False
        roles = list(self.blocked)
        self.blocked.clear()
        # Who was served first comes last: where room is scarce, the first takes it.
        for role in (*roles[1:], *roles[:1]):
            role.feed()


class Role:
    """One member of one consumer group.

    Args:
        name: `source`, `retry.1m`, `overflow`, `replay`.
        consumer: Its group's consumer.
        intake: Makes deliveries of its records.
        engine: What it shares with the other roles.
        delay_ms: How long its records wait at most; None: they are due at once.
    """

    def __init__(
        self,
        name: str,
        consumer: RecordConsumer,
        intake: SourceIntake | OwnIntake,
        engine: Engine,
        delay_ms: int | None = None,
    ) -> None:
        self.name = name
        self.active: set[Delivery] = set()
        self._consumer = consumer
        self._intake = intake
        self._engine = engine
        self._delay_ms = delay_ms
        self._gives_way = name == "replay"
        self._lateness: Histogram | None = engine.metrics.retry_lateness_seconds.get(name.removeprefix("retry."))
        self._check = engine.check_for(self._checked)
        self._ready: deque[Delivery] = deque()
        self._feeding_soon = False
        self._expansions = Expansions(self, self._give)
        self._partitions: dict[Partition, PartitionState] = {}
        self._budget = 0
        self._epoch = 0
        self._accepting = False
        self._opened = False
        self._stopping = False
        self._timer: asyncio.TimerHandle | None = None
        self._hungry = asyncio.Event()

    @property
    def joined(self) -> bool:
        """True once partitions were assigned, were it none."""
        return self._epoch > 0

    @property
    def assigned_to(self) -> Sequence[Partition]:
        """The partitions that this member reads now."""
        return list(self._partitions)

    @property
    def incomplete(self) -> int:
        """How many records are being worked on."""
        return sum(len(state.tracker) for state in self._partitions.values())

    @property
    def behind_seconds(self) -> float:
        """Age of the first unfinished record of the partition that is furthest behind; of a tier's, since it was due.

        What Kafka has and was not fetched yet isn't in it; 0 where nothing waits.
        """
        now_ms = self._engine.clock.now_ms()
        since = (state.waits_since_ms for state in self._partitions.values())
        return max(0, now_ms - min((each for each in since if each > 0), default=now_ms)) / 1000

    async def run(self) -> None:
        """Join the group and work until `stop` is called.

        Raises:
            MisconfiguredError: Kafka refuses for good.
        """
        await self._consumer.start(self)
        committing = asyncio.get_running_loop().create_task(self._commit_forever())
        committing.add_done_callback(_raise_fault)
        try:
            await self._poll_until_stopped()
        finally:
            committing.cancel()

    async def stop(self) -> None:
        """Finish what is in flight, hand over what isn't finished in time, commit, leave the group."""
        self._stopping = True
        self._hungry.set()
        await self._consumer.stop()

    # --- AssignmentListener ---------------------------------------------------------------------------------------

    async def assigned(self, epoch: int, positions: Mapping[Partition, CommitPoint]) -> None:
        """Take over partitions; nothing is taken up before their positions are marked as being worked on."""
        self._epoch = epoch
        lookups = LOOKUPS if isinstance(self._intake, SourceIntake) else 0  # the others always ask
        self._partitions = {
            (topic, number): PartitionState(topic, number, point, lookups)
            for (topic, number), point in positions.items()
        }
        self._opened = False
        self._accepting = True
        self._hungry.set()
        self._engine.metrics.rebalances.labels(self.name).inc()
        log.info("partitions assigned", role=self.name, partitions=len(positions), epoch=epoch)

    async def revoked(self, epoch: int) -> None:
        """Finish or hand over everything; when this returns, what can be committed is committed."""
        if epoch != self._epoch or not self._accepting:
            return
        self._accepting = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        begun = self._expansions.finish(MAX_FINISHED)
        self._ready.clear()
        for state in self._partitions.values():
            state.hold.clear()
            state.held_bytes = 0
        self._engine.lanes.withdraw(lambda delivery: delivery.role is self)
        for delivery in begun:
            self._hand_over(delivery)
        for delivery in [each for each in self.active if not each.in_flight]:
            self._hand_over(delivery)
        await self._until(lambda: not self.active, DRAIN_SECONDS)
        for delivery in list(self.active):
            self._hand_over(delivery)
        await self._until(self._only_expanding_left, HAND_OVER_SECONDS)
        for state in self._partitions.values():
            state.end(self._engine.window)
        await self._commit(final=True)
        self._partitions = {}
        log.info("partitions given back", role=self.name, epoch=epoch)

    def _only_expanding_left(self) -> bool:
        return all(len(state.tracker) <= state.expanding for state in self._partitions.values())

    def _hand_over(self, delivery: Delivery) -> None:
        """Give an unfinished delivery to whoever reads the overflow topic; its attempt number stays.

        One of a record that isn't expanded to its end goes nowhere: the record stays incomplete and is read again.
        """
        delivery.given_away = True
        self.active.discard(delivery)
        if not delivery.work.expanding:
            self._engine.metrics.handed_over.inc()
            self._engine.settlement.spill(delivery, "handed_over", self._engine.clock.now_ms())

    # --- taking up ------------------------------------------------------------------------------------------------

    def feed(self) -> None:
        """Take up held records while they are due and there is room; comes back by itself when they will be."""
        if not self._accepting or not self._opened:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # Blocked without a timer, it would be fed by nobody; a rebalance takes the timer.
        self._engine.blocked.pop(self, None)
        if not self._engine.gate():
            self._block()
            return
        self._budget = FEED_BACKLOG_RECORDS if self._has_backlog() else FEED_RECORDS
        if not self._bring_ready():
            return
        self._expansions.begin_turn()
        self._feed_partitions(self._engine.clock.now_ms())
        if self._expansions.is_stuck or (self._expansions and self._expansions.is_idle):
            self._block()
        elif self._expansions:
            self._feed_soon()

    def _has_backlog(self) -> bool:
        is_source = isinstance(self._intake, SourceIntake)
        return is_source and sum(len(state.hold) for state in self._partitions.values()) >= BACKLOG

    def _feed_partitions(self, now_ms: int) -> None:
        next_due_ms: int | None = None
        for key, state in list(self._partitions.items()):
            due_at = self._feed_partition(state, now_ms)
            if due_at == _STOP:
                # The partitions take turns: the one that used the room up comes last.
                self._partitions[key] = self._partitions.pop(key)
                return
            if due_at is not None and (next_due_ms is None or due_at < next_due_ms):
                next_due_ms = due_at
        if not self._has_room():
            return
        if next_due_ms is not None:
            self._come_back(max(0, next_due_ms - now_ms) / 1000)

    def _feed_partition(self, state: PartitionState, now_ms: int) -> int | None:
        """Take up what is due of one partition.

        Returns:
            When its head is due, unix milliseconds; None where nothing is held; `_STOP` where the role has no room
            or has had its turn.
        """
        while state.hold:
            if not self._has_room():
                return _STOP
            if state.expanding >= MAX_OPEN // 2 and len(self._partitions) > 1:
                return None  # one partition's large events leave room for the others'
            due, record = state.hold[0]
            if due > now_ms:
                latest = now_ms + (self._delay_ms or 0)
                if due > latest:  # the clock was set back since it was fetched
                    state.hold_until_at_most(latest)
                return min(due, latest)
            if not self._budget or self._expansions.left <= 0:
                self._feed_soon()
                return _STOP
            self._budget -= 1
            state.hold.popleft()
            self._take(record, state, now_ms, due)
            if len(state.hold) <= HOLD_RECORDS // 2:
                self._hungry.set()
        return None

    def _take(self, record: ConsumedRecord | UnreadableRecord, state: PartitionState, now_ms: int, due: int) -> None:
        if not isinstance(record, UnreadableRecord):
            state.held_bytes -= size_of(record)
        if isinstance(self._intake, SourceIntake):
            expansion = self._intake.take(record, state)
            if expansion is not None:
                self._expansions.begin(expansion)
            return
        delivery = self._intake.take(record, state, self, due)
        if delivery is not None:
            if self._lateness is not None and due:
                self._lateness.observe((now_ms - due) / 1000)
            self.active.add(delivery)
            self._check.submit(delivery)
            if self._gives_way:
                self._engine.lanes.replays_left -= 1

    def _has_room(self) -> bool:
        """Say whether more may be taken up. Blocks the role where not."""
        engine = self._engine
        if (
            (self._expansions.has_room if isinstance(self._intake, SourceIntake) else engine.lanes.has_room)
            and engine.buffer.has_room
            and engine.window.has_room
            and engine.settlement.producing < MAX_PRODUCING
            and len(self._check) < MAX_CHECKING
        ):
            if not self._gives_way or self._may_replay():
                return True
            self._block(TICK_SECONDS)
            return False
        self._block()
        return False

    def _may_replay(self) -> bool:
        """Say whether one more replay leaves the others their room; those that wait for a slow lane take none."""
        waiting = sum(state.waiting for state in self._partitions.values())
        return self._engine.lanes.may_replay(len(self.active) - waiting)

    def _block(self, seconds: float = RETRY_SECONDS) -> None:
        self._engine.blocked[self] = None
        # Room may also come by time alone: a lane that is found to be slow, an index that is fresh again.
        self._come_back(seconds)

    def _bring_ready(self) -> bool:
        """Bring what the log was asked about to its lanes; False where this turn leaves some of it."""
        while self._ready:
            if not self._budget:
                self._feed_soon()
                return False
            match self._offer(self._ready[0]):
                case Given.NO_ROOM:
                    self._block()
                    return False
                case Given.LATER:
                    # Others are to go first, and here they stand behind it.
                    self._move_on(self._ready[0])
            self._budget -= 1
            self._ready.popleft()
        return True

    def _give(self, delivery: Delivery) -> Given:
        self.active.add(delivery)
        if not delivery.work.partition.lookups_left:
            return self._offer(delivery)
        if len(self._check) >= MAX_CHECKING:
            return Given.NO_ROOM
        self._check.submit(delivery)
        return Given.TAKEN

    def _offer(self, delivery: Delivery) -> Given:
        engine = self._engine
        if engine.settlement.producing >= MAX_PRODUCING or not engine.buffer.has_room:
            return Given.NO_ROOM
        match engine.lanes.offer(delivery):
            case Verdict.TAKEN:
                return Given.TAKEN
            case Verdict.FULL:
                return Given.NO_ROOM
            case Verdict.LATER if delivery.work.expanding and self._expansions.may_wait:
                return Given.LATER
        self._move_on(delivery)
        return Given.TAKEN

    def _move_on(self, delivery: Delivery) -> None:
        """Let a delivery wait where it is in nobody's way: in overflow, in its lane, in the first tier."""
        engine = self._engine
        # Each worker has a part of a rate limit: on one partition, a backlog would only ever get one part.
        spread = engine.lanes.is_rate_limited(delivery)
        if isinstance(self._intake, SourceIntake):
            engine.metrics.spilled.inc()
            engine.settlement.spill(delivery, "slow_lane", engine.clock.now_ms(), spread=spread)
        elif delivery.work.partition.waiting < HOLD_RECORDS and engine.lanes.may_hold:
            engine.lanes.hold(delivery)
        else:
            engine.settlement.park(delivery, engine.clock.now_ms(), spread=spread)

    def _checked(self, delivery: Delivery) -> None:
        self._ready.append(delivery)
        self._engine.blocked[self] = None
        self._engine.wake()

    def _feed_soon(self) -> None:
        if not self._feeding_soon:
            self._feeding_soon = True
            asyncio.get_running_loop().call_soon(self._feed_on)

    def _feed_on(self) -> None:
        self._feeding_soon = False
        self.feed()

    def _come_back(self, seconds: float) -> None:
        # Due times are the wall clock's, which may be set anew: looked at again every now and then.
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(min(seconds, LONGEST_REST_SECONDS), self._timed)

    def _timed(self) -> None:
        self._timer = None
        self.feed()

    # --- polling and committing -----------------------------------------------------------------------------------

    async def _poll_until_stopped(self) -> None:
        while not self._stopping:
            if self._accepting and not self._opened:
                await self._open()
            wanted = self._wanted()
            if not wanted:
                self._hungry.clear()
                await self._wait_hungry()
            # While some partitions are not asked for, they may become wanted any moment: look often.
            timeout_ms = 0 if not wanted else 200 if len(wanted) == len(self._partitions) else 20
            try:
                records = await self._consumer.poll(wanted, timeout_ms=timeout_ms, max_records=POLL_RECORDS)
            except UnavailableError as error:
                log.warning("Kafka is out of reach; trying again", role=self.name, error=str(error))
                await asyncio.sleep(1.0)
                continue
            if records:
                self._hold(records)
                if self not in self._engine.blocked and not self._feeding_soon:
                    self.feed()

    async def _wait_hungry(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await self._hungry.wait()

    def _wanted(self) -> list[Partition]:
        if not self._accepting or not self._opened:
            return []
        limit = MAX_SPAN // max(1, len(self._partitions))
        return [
            key
            for key, state in self._partitions.items()
            if len(state.hold) <= HOLD_RECORDS // 2 and state.held_bytes < HOLD_BYTES and state.tracker.span < limit
        ]

    def _hold(self, records: Sequence[ConsumedRecord | UnreadableRecord]) -> None:
        if not self._accepting:
            return
        for record in records:
            state = self._partitions.get((record.topic, record.partition))
            if state is None:
                continue
            if isinstance(record, UnreadableRecord):
                state.hold.append((0, record))
                continue
            state.held_bytes += size_of(record)
            due = 0
            if self._delay_ms is not None:
                # A due time further off than the tier is long can't be right: clamped, so that it blocks nobody.
                due = min(due_ms(record.headers), self._engine.clock.now_ms() + self._delay_ms)
            state.hold.append((due, record))

    async def _open(self) -> None:
        epoch = self._epoch
        points = {key: CommitPoint(state.tracker.position, state.open_note) for key, state in self._partitions.items()}
        if not points or await self._consumer.commit(epoch, points):
            self._opened = epoch == self._epoch
            # A poll that began before may have brought records already.
            self.feed()
        else:
            await asyncio.sleep(0.2)

    async def _commit_forever(self) -> None:
        while True:
            await asyncio.sleep(COMMIT_SECONDS)
            if self._accepting and self._opened:
                await self._commit(final=False)

    async def _commit(self, *, final: bool) -> None:
        points: dict[Partition, CommitPoint] = {}
        states = self._partitions
        taken_up = {key: state.tracker.position for key, state in states.items()}
        for key, state in states.items():
            offset = state.tracker.committable()
            if final and self._opened:
                points[key] = CommitPoint(offset, state.note)
            elif state.tracker.to_commit() is not None or state.tracker.position - state.noted > NOTED_RECORDS:
                # Where one record holds the offset back, what was taken up behind it is still to be noted.
                points[key] = CommitPoint(offset, state.open_note)
        if not points:
            return
        if await self._consumer.commit(self._epoch, points):
            for key, point in points.items():
                states[key].tracker.committed(point.offset)
                states[key].noted = max(states[key].noted, taken_up[key])
        else:
            self._engine.metrics.commit_failures.labels(self.name).inc()

    async def _until(self, condition: Callable[[], bool], within_seconds: float) -> None:
        deadline = asyncio.get_running_loop().time() + within_seconds
        while not condition() and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110 - many things change it
            await asyncio.sleep(0.01)


def _raise_fault(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (fault := task.exception()) is not None:
        raise fault  # a fault of this program: the loop's handler ends the process
