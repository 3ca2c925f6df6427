"""One member of one consumer group, on aiokafka 0.14.

What it adds: an epoch for each assignment, which fences commits; positions with the committer's notes; polls and
commits that are bounded in time and can be cancelled; records that can't be read as values; and it says so when
a part of aiokafka has died, which aiokafka keeps to itself.

Its reading is done with `getmany(timeout_ms=0)`, which never suspends, and waiting apart from it: a `getmany`
that is cancelled while it waits leaves a counter behind that disables max_poll_interval.
"""

# aiokafka is pinned to 0.14, and a test looks whether what is used of its insides is there.
# ruff: noqa: SLF001

import asyncio
import datetime as dt
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import KafkaError, OffsetOutOfRangeError
from aiokafka.structs import TopicPartition

from dispatcher.kafka.assignment import Assignment
from dispatcher.kafka.client import (
    CLOSE_SECONDS,
    ErrorKind,
    as_dispatcher_error,
    bounded,
    client_arguments,
    kind_of,
    why_unreachable,
)
from dispatcher.kafka.fetching import fetch
from dispatcher.kafka.offsets import commit_points, commit_start, committed_points, matching_topics
from dispatcher.ports import AssignmentListener, CommitPoint, ConsumedRecord, Partition, UnreadableRecord
from dispatcher.settings import KafkaSettings

COMMIT_SECONDS = 5.0
FETCH_MAX_WAIT_MS = 200
FETCH_MAX_BYTES = 16 * 1024 * 1024
MISSING_TOPIC_GRACE_SECONDS = 10.0

_LOOK_SECONDS = 1.0  # longest wait between two looks at aiokafka's state
_RETRY_SECONDS = 0.1
_STOP_SECONDS = 5.0

log = structlog.get_logger(__name__)


class KafkaConsumer:
    """A `RecordConsumer`.

    Args:
        settings: Where Kafka is, and the group's time limits.
        group: The consumer group.
        topics: Names of topics; each must exist.
        pattern: Or a pattern starting with `^`; may match none yet.
        excluded_prefix: Topics under this prefix never match the pattern.
        start_from: Where a group without any offset starts; None where that is the beginning.
        max_partition_fetch_bytes: What one fetch brings of one partition; a larger record comes alone.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        group: str,
        topics: Sequence[str] = (),
        pattern: str | None = None,
        excluded_prefix: str | None = None,
        start_from: str | dt.datetime | None = None,
        max_partition_fetch_bytes: int = 1024 * 1024,
    ) -> None:
        self._settings = settings
        self._group = group
        self._topics = tuple(topics)
        self._pattern = None if pattern is None else _compile(pattern, excluded_prefix)
        self._start_from = start_from
        self._max_partition_fetch_bytes = max_partition_fetch_bytes
        self._listener: AssignmentListener
        self._consumer: Any = None
        self._epoch = 0
        self._notes: dict[Partition, str] = {}  # beside what was committed last
        self._open = False  # between assigned and the end of revoked
        self._pollable = False  # between the end of assigned and the beginning of revoked
        self._stopping = False
        self._failure: BaseException | None = None
        self._assignment = Assignment()
        self._revoking = asyncio.Lock()
        self._committing = asyncio.Lock()
        self._gap_task: asyncio.Task[None] | None = None
        self._gaps_looked_at = 0.0
        self._member_at = -math.inf  # when the last heartbeat that was answered was sent
        self._loop: asyncio.AbstractEventLoop

    async def start(self, listener: AssignmentListener) -> None:
        """Connect and begin to join the group; the listener is told when partitions are there.

        Raises:
            UnavailableError: Kafka is out of reach.
            MisconfiguredError: It refuses the credentials or the group, or a named topic doesn't exist.
        """
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        settings = self._settings
        consumer = AIOKafkaConsumer(
            **client_arguments(settings),
            group_id=self._group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            session_timeout_ms=settings.session_timeout_ms,
            heartbeat_interval_ms=settings.heartbeat_interval_ms,
            # JoinGroup waits for the slowest member and obeys the request timeout.
            rebalance_timeout_ms=min(settings.rebalance_timeout_ms, settings.request_timeout_ms - 1000),
            max_poll_interval_ms=settings.max_poll_interval_ms,
            partition_assignment_strategy=(RoundRobinPartitionAssignor,),
            fetch_max_wait_ms=FETCH_MAX_WAIT_MS,
            fetch_max_bytes=FETCH_MAX_BYTES,
            max_partition_fetch_bytes=self._max_partition_fetch_bytes,
        )
        try:
            try:
                await consumer.start()
            except KafkaError as error:
                raise await why_unreachable(settings, error) from error
            existing = await matching_topics(
                consumer, self._topics, self._pattern, grace_seconds=MISSING_TOPIC_GRACE_SECONDS
            )
            if self._start_from is not None and existing:
                try:
                    await commit_start(consumer, existing, self._start_from, timeout_ms=settings.request_timeout_ms)
                except KafkaError as error:
                    raise as_dispatcher_error(error, f"starting the group {self._group}") from error
        except BaseException:
            await bounded(consumer.stop(), CLOSE_SECONDS, "consumer")
            raise
        self._consumer = consumer
        self._watch_heartbeats(consumer._coordinator)
        rebalances = _Rebalances(self)
        if self._pattern is None:
            consumer.subscribe(topics=self._topics, listener=rebalances)
        else:
            consumer.subscribe(pattern=self._pattern.pattern, listener=rebalances)

    async def poll(
        self, wanted: Sequence[Partition], *, timeout_ms: int, max_records: int
    ) -> Sequence[ConsumedRecord | UnreadableRecord]:
        """Return records of the wanted partitions; see `RecordConsumer`. May be cancelled at any point."""
        deadline = self._loop.time() + timeout_ms / 1000
        while True:
            self._keep_alive()
            if records := await self._take(wanted, max_records):
                return records
            left = deadline - self._loop.time()
            if left <= 0:
                return ()
            await self._wait(min(left, _LOOK_SECONDS))

    async def commit(self, epoch: int, points: Mapping[Partition, CommitPoint]) -> bool:
        """Commit positions; see `RecordConsumer`. Takes at most `COMMIT_SECONDS`, and may be cancelled.

        Raises:
            ValueError: A partition is not of this assignment.
        """
        if self._fenced(epoch):
            return False
        if strange := points.keys() - self._assignment.partitions.keys():
            raise ValueError(f"not assigned: {sorted(strange)}")
        try:
            async with asyncio.timeout(COMMIT_SECONDS), self._committing:
                self._notes.update({key: point.metadata for key, point in points.items()})
                return await self._commit(epoch, points)
        except TimeoutError:
            log.warning("Kafka didn't confirm a commit in time", group=self._group, seconds=COMMIT_SECONDS)
            return False

    @property
    def is_member(self) -> bool:
        """Whether the group can't have given this member's partitions to others for want of heartbeats."""
        return self._loop.time() - self._member_at < self._settings.session_timeout_ms / 1000

    @property
    def failure(self) -> BaseException | None:
        """Why this member will never work again, or None; the process should end.

        That is: the listener raised, Kafka refuses for good, or one of aiokafka's tasks has ended.
        """
        if self._failure is not None or self._consumer is None or self._stopping:
            return self._failure
        return dead_task(self._consumer)

    async def stop(self) -> None:
        """Let the listener finish, leave the group, close."""
        if self._consumer is None or self._stopping:
            return
        self._stopping = True
        self._pollable = False
        keeper = self._loop.create_task(self._stay_alive())
        try:
            await self._end_epoch()
        finally:
            keeper.cancel()
            consumer = self._consumer
            if not await bounded(consumer.stop(), _STOP_SECONDS, "consumer"):
                await bounded(consumer._client.close(), CLOSE_SECONDS, "connections")
                for task in (consumer._coordinator._coordination_task, consumer._fetcher._fetch_task):
                    task.cancel()

    # Reading

    def _keep_alive(self) -> None:
        """Count as a poll for max_poll_interval, and raise what aiokafka's coordinator has to say.

        Both are what `getmany` does first; it can't be called while a rebalance goes on (it would wait for its
        end, whatever the timeout) nor with no partitions wanted (which means all).

        Raises:
            MisconfiguredError: Kafka refuses for good.
            UnavailableError: It doesn't for now.
        """
        if self._failure is not None:
            raise self._failure
        try:
            self._consumer._coordinator.check_errors()
        except KafkaError as error:
            raise as_dispatcher_error(error, f"in the group {self._group}") from error
        with self._consumer._subscription.fetch_context():
            pass

    async def _take(self, wanted: Sequence[Partition], max_records: int) -> Sequence[ConsumedRecord | UnreadableRecord]:
        if not self._can_read():
            return ()
        assignment = self._assignment
        entries = assignment.take_ready(wanted, max_records) if assignment.ready else ()
        partitions = assignment.fetchable(wanted)
        if entries or not partitions:
            return entries
        try:
            found = await self._consumer.getmany(*partitions, timeout_ms=0, max_records=max_records)
        except Exception as error:
            if kind_of(error) is ErrorKind.MISCONFIGURED:
                raise as_dispatcher_error(error, f"reading for {self._group}") from error
            await self._read_one_by_one(partitions, error)
            return assignment.take_ready(wanted, max_records)
        if not found:
            self._look_for_gaps()
        records = assignment.hand_out(found)
        if records is None:
            log.error("offsets went back: a topic was made anew; the group rejoins", group=self._group)
            self._pollable = False
            self._consumer._coordinator.request_rejoin()
        return records or ()

    async def _read_one_by_one(self, partitions: Sequence[TopicPartition], error: Exception) -> None:
        """Read on where aiokafka can't.

        A call of `getmany` that fails has lost what it took of any of its partitions, so all of them are set back
        to what was handed out last, and read once here.

        Raises:
            UnavailableError: Kafka is out of reach; the next poll begins again.
        """
        log.warning("records can't be read the usual way; reading them one by one", error=repr(error))
        assignment = self._assignment
        for partition in partitions:
            self._consumer.seek(partition, assignment.handed_out[partition])
        for partition in partitions:
            try:
                found = await fetch(
                    self._consumer._client,
                    partition,
                    assignment.handed_out[partition],
                    max_bytes=self._max_partition_fetch_bytes,
                )
            except OffsetOutOfRangeError:
                continue  # aiokafka finds the beginning
            except KafkaError as failure:
                raise as_dispatcher_error(failure, f"reading {partition.topic}") from failure
            if assignment is not self._assignment or not self._can_read():
                return
            self._consumer.seek(partition, found.position)
            assignment.keep_ready(partition, found)

    def _can_read(self) -> bool:
        # Fetching takes no membership: after a cut it would bring what others have long taken over and done.
        return self._pollable and self.is_member and not self._consumer._subscription.reassignment_in_progress

    def _watch_heartbeats(self, coordinator: Any) -> None:
        """Note when the group last heard of this member at the latest: aiokafka keeps that to itself."""
        beat = coordinator._do_heartbeat

        async def noted() -> bool:
            sent_at = self._loop.time()
            if answered := await beat():
                self._member_at = sent_at
            return bool(answered)

        coordinator._do_heartbeat = noted

    async def _wait(self, seconds: float) -> None:
        """Wait until something was fetched, of whatever partition."""
        waiter = self._consumer._fetcher._create_fetch_waiter()
        try:
            await asyncio.wait({waiter}, timeout=seconds)
            if waiter.done() and (error := waiter.exception()) is not None:
                # It also stands in the coordinator, where it has to be taken from.
                log.debug("waiting for records was interrupted", error=repr(error))
        finally:
            waiter.cancel()

    async def _stay_alive(self) -> None:
        """Remain a member while the listener finishes at the end."""
        while True:
            try:
                self._keep_alive()
            except Exception:
                log.exception("Kafka has trouble while this consumer stops", group=self._group)
            await asyncio.sleep(_LOOK_SECONDS)

    # Committing

    def _fenced(self, epoch: int) -> bool:
        return epoch != self._epoch or not self._open

    async def _commit(self, epoch: int, points: Mapping[Partition, CommitPoint]) -> bool:
        """Commit; the lock is held."""
        assignment = self._assignment
        points = {each: assignment.past_gap(each, point) for each, point in points.items()}
        try:
            stands = await commit_points(
                self._consumer,
                {assignment.partitions[each]: point for each, point in points.items()},
                fenced=lambda: self._fenced(epoch),
            )
        except KafkaError as error:
            self._failure = as_dispatcher_error(error, f"committing for {self._group}")
            return False
        if stands:
            assignment.committed.update({each: point.offset for each, point in points.items()})
        return stands

    def _look_for_gaps(self) -> None:
        """Start committing over offsets that hold no record, at most once a second."""
        now = self._loop.time()
        if now - self._gaps_looked_at >= _LOOK_SECONDS and (self._gap_task is None or self._gap_task.done()):
            self._gaps_looked_at = now
            if self._assignment.find_gaps(self._position):
                self._gap_task = self._loop.create_task(self._commit_gaps(self._epoch))

    def _position(self, partition: TopicPartition) -> int | None:
        assignment = self._consumer._subscription.subscription.assignment
        state = assignment.state_value(partition) if assignment is not None else None
        return state.position if state is not None and state.has_valid_position else None

    async def _commit_gaps(self, epoch: int) -> None:
        try:
            async with asyncio.timeout(COMMIT_SECONDS), self._committing:
                assignment = self._assignment
                gaps = assignment.find_gaps(self._position)
                # The committer's note stays: it says whether somebody works there.
                points = {key: CommitPoint(end, self._notes.get(key, "")) for key, (_, end) in gaps.items()}
                if points and not self._fenced(epoch) and await self._commit(epoch, points):
                    assignment.pass_gaps(gaps)
        except TimeoutError:
            log.warning("Kafka didn't confirm a commit in time", group=self._group, seconds=COMMIT_SECONDS)

    # Rebalances

    async def _begin_epoch(self, assigned: Sequence[TopicPartition]) -> None:
        """Take over partitions; heartbeats rest meanwhile, so it must not take long."""
        joined_at = self._loop.time()  # no heartbeat is sent before this returns
        try:
            async with asyncio.timeout(self._settings.session_timeout_ms / 1000):
                points = await committed_points(self._consumer, assigned, timeout_ms=self._settings.request_timeout_ms)
        except (KafkaError, TimeoutError) as error:
            log.warning("positions can't be read; the group rejoins", group=self._group, error=repr(error))
            if kind_of(error) is ErrorKind.MISCONFIGURED:
                self._failure = as_dispatcher_error(error, f"in the group {self._group}")
            await asyncio.sleep(_RETRY_SECONDS)
            self._consumer._coordinator.request_rejoin()
            return
        if self._stopping:
            return
        for partition, point in points.items():
            self._consumer.seek(partition, point.offset)
        self._assignment = Assignment.at(points)
        self._notes = {(each.topic, each.partition): point.metadata for each, point in points.items()}
        self._epoch += 1
        self._member_at = joined_at
        self._open = True
        try:
            await self._listener.assigned(self._epoch, {(each.topic, each.partition): p for each, p in points.items()})
        except Exception as error:
            log.exception("taking over partitions failed", group=self._group)
            self._failure = error
            return
        self._pollable = not self._stopping

    async def _end_epoch(self) -> None:
        """Let the listener finish; afterwards no commit counts. Does it once for each epoch."""
        self._pollable = False
        async with self._revoking:
            if not self._open:
                return
            try:
                await self._listener.revoked(self._epoch)
            except Exception as error:
                log.exception("handing over partitions failed", group=self._group)
                self._failure = error
            finally:
                self._open = False
                self._assignment = Assignment()


class _Rebalances(ConsumerRebalanceListener):  # type: ignore[misc]
    """Passes aiokafka's calls on; aiokafka logs and forgets what they raise."""

    def __init__(self, owner: KafkaConsumer) -> None:
        self._owner = owner

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:  # noqa: ARG002 - always all
        await self._owner._end_epoch()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        await self._owner._begin_epoch(sorted(assigned))


def dead_task(consumer: Any) -> BaseException | None:
    """Find a task inside aiokafka's consumer that has ended though it should run, and say why; None where all do."""
    coordinator = consumer._coordinator
    tasks = {
        "coordinator": coordinator._coordination_task,
        "fetcher": consumer._fetcher._fetch_task,
        "metadata": consumer._client._sync_task,
    }
    for name, task in tasks.items():
        if task is not None and task.done():
            error: BaseException | None = None if task.cancelled() else task.exception()
            return error or RuntimeError(f"the {name} task of the Kafka consumer ended")
    heartbeat = coordinator._heartbeat_task
    if heartbeat is None or not heartbeat.done() or heartbeat.cancelled():
        return None
    # aiokafka starts another only after a rebalance, of which it learns by heartbeats.
    died: BaseException | None = heartbeat.exception()
    return died


def _compile(pattern: str, excluded_prefix: str | None) -> re.Pattern[str]:
    if excluded_prefix is None:
        return re.compile(pattern)
    return re.compile(rf"^(?!{re.escape(excluded_prefix)}\.)(?:{pattern})")
