"""What the tests of the Kafka part share: topics, foreign producers, and a listener that remembers."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from dispatcher.kafka.consumer import KafkaConsumer
from dispatcher.ports import CommitPoint, Partition
from dispatcher.settings import KafkaSettings

DEADLINE_SECONDS = 30.0


def quick(bootstrap: str, **changes: Any) -> KafkaSettings:
    """Give settings with time limits that a test can wait for."""
    limits: dict[str, Any] = {
        "session_timeout_ms": 6000,
        "heartbeat_interval_ms": 300,
        "rebalance_timeout_ms": 10_000,
        "request_timeout_ms": 12_000,
    }
    return KafkaSettings(bootstrap, **{**limits, **changes})


async def until(condition: Callable[[], Any], what: str, seconds: float = DEADLINE_SECONDS) -> None:
    """Wait until a condition holds, looking often."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def admin_client(bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    """Give an admin client."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def make_topic(bootstrap: str, name: str, partitions: int = 1, **configs: str) -> str:
    """Make a topic and wait until it can be written to; configs with `_` for `.`."""
    async with admin_client(bootstrap) as admin:
        named = {key.replace("_", "."): value for key, value in configs.items()}
        response = await admin.create_topics([NewTopic(name, partitions, 1, topic_configs=named)])
        assert [code for _, code, *_ in response.topic_errors] == [0], response
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            (topic,) = await admin.describe_topics([name])
            found = topic["partitions"]
            if len(found) == partitions and all(each["leader"] >= 0 for each in found):
                return name
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def foreign_producer(bootstrap: str, **arguments: Any) -> AsyncIterator[AIOKafkaProducer]:
    """Give somebody else's producer."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", **arguments)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def publish(
    bootstrap: str, topic: str, values: Sequence[bytes | None], partition: int = 0, **arguments: Any
) -> None:
    """Publish values to one partition."""
    async with foreign_producer(bootstrap, **arguments) as producer:
        futures = [await producer.send(topic, value, key=b"k", partition=partition) for value in values]
        await asyncio.gather(*futures)


class Listener:
    """Remembers what a consumer tells it, and commits everything received when revoked, as the pipeline does."""

    def __init__(self, *, commit: bool = True) -> None:
        self.consumer: KafkaConsumer | None = None
        self.commit = commit
        self.assignments: list[Mapping[Partition, CommitPoint]] = []
        self.epochs: list[int] = []
        self.revoked_epochs: list[int] = []
        self.received: list[Any] = []
        self.done: dict[Partition, int] = {}
        self.commit_answers: list[bool] = []
        self.on_revoked: Callable[[int], Any] | None = None

    async def assigned(self, epoch: int, positions: Mapping[Partition, CommitPoint]) -> None:
        """See `AssignmentListener`."""
        self.epochs.append(epoch)
        self.assignments.append(dict(positions))
        self.done = {}

    async def revoked(self, epoch: int) -> None:
        """See `AssignmentListener`."""
        if self.on_revoked is not None:
            await self.on_revoked(epoch)
        if self.commit and self.consumer is not None:
            points = {partition: CommitPoint(offset) for partition, offset in self.done.items()}
            self.commit_answers.append(await self.consumer.commit(epoch, points))
        self.revoked_epochs.append(epoch)

    @property
    def partitions(self) -> Sequence[Partition]:
        """What is assigned now."""
        if not self.assignments or len(self.revoked_epochs) == len(self.assignments):
            return ()
        return tuple(self.assignments[-1])

    async def read(self, *, timeout_ms: int = 200, max_records: int = 500) -> Sequence[Any]:
        """Poll everything assigned once, and count what comes as done."""
        assert self.consumer is not None
        records = await self.consumer.poll(self.partitions, timeout_ms=timeout_ms, max_records=max_records)
        for record in records:
            self.received.append(record)
            self.done[record.topic, record.partition] = record.offset + 1
        return records

    async def read_until(self, condition: Callable[[], Any], what: str, seconds: float = DEADLINE_SECONDS) -> None:
        """Poll until a condition holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}; received {len(self.received)}"
            await self.read()

    async def commit_done(self) -> bool:
        """Commit everything received."""
        assert self.consumer is not None
        points = {partition: CommitPoint(offset) for partition, offset in self.done.items()}
        return await self.consumer.commit(self.epochs[-1], points)


@contextlib.asynccontextmanager
async def member(
    settings: KafkaSettings, group: str, *topics: str, listener: Listener | None = None, **arguments: Any
) -> AsyncIterator[Listener]:
    """Give a started member of a group, through its listener."""
    listener = listener or Listener()
    listener.consumer = KafkaConsumer(settings, group=group, topics=topics, **arguments)
    await listener.consumer.start(listener)
    try:
        yield listener
    finally:
        await listener.consumer.stop()


async def committed(bootstrap: str, group: str) -> dict[Partition, tuple[int, str]]:
    """Ask the broker what a group has committed."""
    async with admin_client(bootstrap) as admin:
        found = await admin.list_consumer_group_offsets(group)
    return {(each.topic, each.partition): (point.offset, point.metadata) for each, point in found.items()}
