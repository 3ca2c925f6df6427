# ruff: noqa: D102 - the ports say what each method promises
"""Kafka in memory: topics, groups' commits, consumers whose rebalances and a producer whose answers a test decides."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dispatcher.core.errors import UnavailableError
from dispatcher.core.model import RecordHeaders
from dispatcher.ports import (
    AssignmentListener,
    CommitPoint,
    ConsumedRecord,
    OutgoingRecord,
    Partition,
    UnreadableRecord,
)


@dataclass(frozen=True)
class StoredRecord:
    """A record on a topic."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: RecordHeaders

    def header(self, name: str) -> str | None:
        """Return one header as text."""
        found = dict(self.headers).get(f"dispatcher-{name}")
        return None if found is None else found.decode()


class MemoryBroker:
    """Topics of one or more partitions, and what groups have committed.

    Attributes:
        history: What happened, in order; other fakes may write into it too.
        on_commit: Called after a commit, with the group and its points.
    """

    def __init__(self, history: list[tuple[Any, ...]] | None = None) -> None:
        self.history = [] if history is None else history
        self.partitions: dict[Partition, list[StoredRecord | UnreadableRecord]] = defaultdict(list)
        self.commits: dict[str, dict[Partition, CommitPoint]] = defaultdict(dict)
        self.on_commit: Callable[[str, Mapping[Partition, CommitPoint]], None] = lambda _group, _points: None
        self._waiters: set[asyncio.Future[None]] = set()

    def append(
        self,
        topic: str,
        value: bytes | None,
        *,
        partition: int = 0,
        key: bytes | None = None,
        headers: RecordHeaders = (),
        timestamp: int | None = None,
    ) -> StoredRecord:
        """Put a record on a topic."""
        records = self.partitions[topic, partition]
        at_ms = int(time.time() * 1000) if timestamp is None else timestamp
        record = StoredRecord(topic, partition, len(records), at_ms, key, value, headers)
        records.append(record)
        self._tell()
        return record

    def append_unreadable(self, topic: str, problem: str, *, partition: int = 0, too_large: bool = False) -> None:
        """Put a record on a topic that can't be read."""
        records = self.partitions[topic, partition]
        records.append(UnreadableRecord(topic, partition, len(records), problem, too_large))
        self._tell()

    def on_topic(self, topic: str) -> list[StoredRecord]:
        """Return a topic's readable records."""
        found = [records for (name, _), records in sorted(self.partitions.items()) if name == topic]
        return [record for records in found for record in records if isinstance(record, StoredRecord)]

    def committed(self, group: str, topic: str, partition: int = 0) -> CommitPoint:
        """Return what a group committed last."""
        return self.commits[group].get((topic, partition), CommitPoint(0))

    def lag(self, group: str, topic: str) -> int:
        """Return how many records of a topic lie behind a group's commits."""
        mine = [(key, records) for key, records in list(self.partitions.items()) if key[0] == topic]
        return sum(len(records) - self.committed(group, *key).offset for key, records in mine)

    def commit(self, group: str, points: Mapping[Partition, CommitPoint]) -> None:
        """Take a commit."""
        self.commits[group].update(points)
        self.history.extend(("committed", group, key, point.offset) for key, point in points.items())
        self.on_commit(group, points)

    async def appended(self, within_seconds: float) -> None:
        """Return when something was appended, or the time is over."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await asyncio.wait({waiter}, timeout=within_seconds)
        finally:
            self._waiters.discard(waiter)

    def _tell(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)


class MemoryConsumer:
    """A `RecordConsumer`; the test decides about assignments.

    Attributes:
        commits_fail: While True, no commit stands.
        out_of_reach: While True, polls raise `UnavailableError`.
        fault: Raised by polls.
    """

    def __init__(self, broker: MemoryBroker, group: str) -> None:
        self.broker = broker
        self.group = group
        self.epoch = 0
        self.commits_fail = False
        self.out_of_reach = False
        self.fault: Exception | None = None
        self.stopped = False
        self._listener: AssignmentListener | None = None
        self._next: dict[Partition, int] = {}
        self._open = False
        self._pollable = False
        self._started = asyncio.Event()

    async def start(self, listener: AssignmentListener) -> None:
        self._listener = listener
        self._started.set()

    async def assign(self, *partitions: Partition) -> None:
        """Give partitions to this member, at what its group committed."""
        await self._started.wait()
        assert self._listener is not None
        positions = {key: self.broker.committed(self.group, *key) for key in partitions}
        self.epoch += 1
        self._next = {key: point.offset for key, point in positions.items()}
        self._open = True
        await self._listener.assigned(self.epoch, positions)
        self._pollable = True

    async def revoke(self) -> None:
        """Take every partition away."""
        self._pollable = False
        if self._open:
            assert self._listener is not None
            await self._listener.revoked(self.epoch)
        self._open = False
        self._next = {}

    def vanish(self) -> None:
        """Be gone without a word, as a killed process is."""
        self._pollable = self._open = False

    async def poll(
        self, wanted: Sequence[Partition], *, timeout_ms: int, max_records: int
    ) -> Sequence[ConsumedRecord | UnreadableRecord]:
        deadline = time.monotonic() + timeout_ms / 1000
        while True:
            if self.fault is not None:
                raise self.fault
            if self.out_of_reach:
                raise UnavailableError("Kafka is out of reach")
            found: list[Any] = []
            for key in wanted if self._pollable else ():
                at = self._next.get(key)
                if at is not None:
                    some = self.broker.partitions[key][at : at + max_records - len(found)]
                    self._next[key] = at + len(some)
                    found.extend(some)
            left = deadline - time.monotonic()
            if found or left <= 0:
                return found
            await self.broker.appended(left)

    async def commit(self, epoch: int, points: Mapping[Partition, CommitPoint]) -> bool:
        await asyncio.sleep(0)
        if self.commits_fail or epoch != self.epoch or not self._open:
            return False
        self.broker.commit(self.group, points)
        return True

    async def stop(self) -> None:
        await self.revoke()
        self.stopped = True


@dataclass
class Produced:
    """A record that was handed to the producer, and the future that its caller waits for."""

    record: OutgoingRecord
    future: "asyncio.Future[None]" = field(repr=False)

    def header(self, name: str) -> str | None:
        """Return one header as text."""
        found = dict(self.record.headers).get(f"dispatcher-{name}")
        return None if found is None else found.decode()


class MemoryProducer:
    """A `RecordProducer` that puts what it acknowledges on a broker's topics.

    Attributes:
        held: What is not acknowledged yet, while `holding`.
        holding: While True nothing is acknowledged; `release` ends that.
        refuses: Says what a record's future fails with; None: nothing.
        produced: How many records were handed in.
        spread: Topics of those that were to be spread over partitions.
    """

    def __init__(self, broker: MemoryBroker) -> None:
        self.broker = broker
        self.held: list[Produced] = []
        self.holding = False
        self.refuses: Callable[[OutgoingRecord], Exception | None] = lambda _record: None
        self.produced = 0
        self.spread: list[str] = []

    def produce(self, record: OutgoingRecord) -> "asyncio.Future[None]":
        self.produced += 1
        if record.spread:
            self.spread.append(record.topic)
        produced = Produced(record, asyncio.get_running_loop().create_future())
        if self.holding:
            self.held.append(produced)
        else:
            asyncio.get_running_loop().call_soon(self._end, produced)
        return produced.future

    def release(self, count: int | None = None) -> None:
        """Acknowledge what is held: the first few, or all, and then hold nothing back any more."""
        if count is None:
            self.holding = False
        some, self.held = self.held[:count], [] if count is None else self.held[count:]
        for produced in some:
            self._end(produced)

    def _end(self, produced: Produced) -> None:
        if produced.future.done():
            return
        record = produced.record
        if (error := self.refuses(record)) is not None:
            produced.future.set_exception(error)
            return
        self.broker.append(record.topic, record.value, key=record.key, headers=record.headers)
        step = ("acknowledged", record.topic, produced.header("delivery-id"), produced.header("attempt"))
        self.broker.history.append(step)
        produced.future.set_result(None)
