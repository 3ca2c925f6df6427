"""The producer: a record's future ends when all in-sync replicas have it, however long that takes.

Records wait in one queue a partition; one task a queue fills a batch, sends it, and fills the next from what came
meanwhile. aiokafka's own `send` makes two coroutines, a future and a partition look-up of each record; giving it
whole batches costs a fifth of that, and a batch that failed can be built again from its records.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, ProducerClosed, UnknownTopicOrPartitionError
from aiokafka.partitioner import murmur2

from dispatcher.core.errors import MisconfiguredError
from dispatcher.kafka.client import (
    CLOSE_SECONDS,
    UNKNOWN_TOPIC_GRACE_SECONDS,
    ErrorKind,
    as_dispatcher_error,
    bounded,
    client_arguments,
    kind_of,
    why_unreachable,
)
from dispatcher.ports import OutgoingRecord, RejectedRecordError
from dispatcher.settings import KafkaSettings

LINGER_SECONDS = 0.005
MAX_BATCH_BYTES = 256 * 1024
UNAVAILABLE_AFTER_SECONDS = 5.0
"""How long a batch may wait for its acknowledgement before the producer counts as unhealthy."""

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_MAX_CACHED_HASHES = 200_000
_RECORD_OVERHEAD_BYTES = 128  # batch header and varints, generously

log = structlog.get_logger(__name__)

_Waiting = tuple[OutgoingRecord, "asyncio.Future[None]"]


@dataclass(slots=True, eq=False)
class _Queue:
    """What waits for one partition.

    Attributes:
        singly: How many of the next records go in a batch of their own, because one among them was refused.
        waits_since: Loop time since when nothing was acknowledged though something waits.
        task: Sends; None while nothing waits.
    """

    topic: "_Topic"
    partition: int
    records: deque[_Waiting] = field(default_factory=deque)
    singly: int = 0
    waits_since: float = 0.0
    task: "asyncio.Task[None] | None" = None


@dataclass(slots=True, eq=False)
class _Topic:
    """A topic, and what waits until its partitions are known.

    Attributes:
        partitions: How many it has; 0 while that is unknown.
        waits_since: As in `_Queue`.
    """

    name: str
    partitions: int = 0
    queues: dict[int, _Queue] = field(default_factory=dict)
    unplaced: deque[_Waiting] = field(default_factory=deque)
    waits_since: float = 0.0
    task: "asyncio.Task[None] | None" = None


class KafkaProducer:
    """Produces records durably; a `RecordProducer`.

    Idempotence is off: with it, aiokafka never lets a batch expire, and its `send` and `stop` can hang
    (aiokafka #1101, #1017). A record that is acknowledged late may so be there twice, which is allowed here.

    Args:
        settings: Where Kafka is.
        max_record_bytes: Records above this size of key, value and headers are rejected at once.
        compression: `lz4`, `zstd`, `snappy`, `gzip` or None.
        unknown_topic_grace_seconds: For how long the brokers may say that a topic doesn't exist before that
            is believed.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        max_record_bytes: int,
        compression: str | None = None,
        unknown_topic_grace_seconds: float = UNKNOWN_TOPIC_GRACE_SECONDS,
    ) -> None:
        self._settings = settings
        self._max_record_bytes = max_record_bytes
        self._compression = compression
        self._grace_seconds = unknown_topic_grace_seconds
        self._topics: dict[str, _Topic] = {}
        self._hashes: dict[bytes, int] = {}
        self._turn = 0
        self._stopping = False
        self._loop: asyncio.AbstractEventLoop
        self._producer: Any = None

    async def start(self) -> None:
        """Connect.

        Raises:
            UnavailableError: Kafka is out of reach.
            MisconfiguredError: It refuses the credentials.
        """
        self._loop = asyncio.get_running_loop()
        producer = AIOKafkaProducer(
            **client_arguments(self._settings),
            acks="all",
            enable_idempotence=False,
            compression_type=self._compression,
            max_batch_size=MAX_BATCH_BYTES,
            max_request_size=self._max_record_bytes + _RECORD_OVERHEAD_BYTES,
        )
        try:
            await producer.start()
        except BaseException as error:
            await bounded(producer.stop(), CLOSE_SECONDS, "producer")
            if isinstance(error, KafkaError):
                raise await why_unreachable(self._settings, error) from error
            raise
        self._producer = producer

    def produce(self, record: OutgoingRecord) -> "asyncio.Future[None]":
        """Produce a record; see `RecordProducer`. After `stop`, what is not acknowledged is cancelled."""
        future: asyncio.Future[None] = self._loop.create_future()
        if self._stopping:
            future.cancel()
            return future
        size = _size(record)
        if size > self._max_record_bytes:
            future.set_exception(
                RejectedRecordError(f"the record has {size} bytes, {self._max_record_bytes} are allowed")
            )
            return future
        topic = self._topics.get(record.topic)
        if topic is None:
            topic = self._topics[record.topic] = _Topic(record.topic)
        if topic.partitions:
            self._place(topic, (record, future))
        else:
            topic.unplaced.append((record, future))
            if topic.task is None:
                topic.waits_since = self._loop.time()
                topic.task = self._loop.create_task(self._learn(topic))
        return future

    @property
    def unavailable_since(self) -> float | None:
        """Loop time since when records wait in vain, or None: nothing waits, or not for long."""
        waiting = [topic.waits_since for topic in self._topics.values() if topic.task is not None]
        waiting += [
            queue.waits_since
            for topic in self._topics.values()
            for queue in topic.queues.values()
            if queue.task is not None
        ]
        oldest = min(waiting, default=None)
        if oldest is None or self._loop.time() - oldest < UNAVAILABLE_AFTER_SECONDS:
            return None
        return oldest

    @property
    def healthy(self) -> bool:
        """Whether what waits is being acknowledged."""
        return self.failure is None and self.unavailable_since is None

    @property
    def failure(self) -> BaseException | None:
        """Why this producer will never send again (a dead task inside aiokafka), or None; the process should end."""
        if self._producer is None or self._stopping:
            return None
        for task in (self._producer._sender.sender_task, self._producer.client._sync_task):  # noqa: SLF001
            if task is not None and task.done():
                error = None if task.cancelled() else task.exception()
                return error or RuntimeError("a task of the Kafka producer ended")
        return None

    async def stop(self, timeout_seconds: float = 5.0) -> None:
        """Wait for what is under way, then close.

        Args:
            timeout_seconds: For how long; what isn't acknowledged by then is cancelled, and may or may not be
                on its topic.
        """
        if self._producer is None:
            return
        deadline = self._loop.time() + timeout_seconds
        while tasks := self._tasks():
            left = deadline - self._loop.time()
            if left <= 0:
                break
            await asyncio.wait(tasks, timeout=left)
        self._stopping = True
        for task in (tasks := self._tasks()):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_SECONDS)
        for topic in self._topics.values():
            for _, future in (*topic.unplaced, *(entry for q in topic.queues.values() for entry in q.records)):
                future.cancel()
        producer, self._producer = self._producer, None
        # Else its flush waits for batches to expire.
        producer._message_accumulator.fail_all(ProducerClosed())  # noqa: SLF001
        if not await bounded(producer.stop(), CLOSE_SECONDS, "producer"):
            await bounded(producer._sender.close(), CLOSE_SECONDS, "sender")  # noqa: SLF001
            await bounded(producer.client.close(), CLOSE_SECONDS, "connections")

    def _tasks(self) -> set["asyncio.Task[None]"]:
        tasks = {topic.task for topic in self._topics.values()}
        tasks |= {queue.task for topic in self._topics.values() for queue in topic.queues.values()}
        return {task for task in tasks if task is not None}

    def _place(self, topic: _Topic, waiting: _Waiting) -> None:
        key = waiting[0].key
        if key is None or waiting[0].spread:
            self._turn += 1
            partition = self._turn % topic.partitions
        else:
            number = self._hashes.get(key)
            if number is None:
                if len(self._hashes) >= _MAX_CACHED_HASHES:
                    self._hashes.clear()
                # As the Java client's default partitioner does it.
                number = self._hashes[key] = murmur2(key) & 0x7FFFFFFF
            partition = number % topic.partitions
        queue = topic.queues.get(partition)
        if queue is None:
            queue = topic.queues[partition] = _Queue(topic, partition)
        queue.records.append(waiting)
        if queue.task is None:
            queue.waits_since = self._loop.time()
            queue.task = self._loop.create_task(self._drain(queue))

    async def _learn(self, topic: _Topic) -> None:
        """Find out how many partitions a topic has, then place what waits for it.

        Asks for all topics: asking for one by name would let a broker that makes topics by itself make it.
        """
        unknown_since = None
        pause = _FIRST_PAUSE_SECONDS
        try:
            while not topic.partitions:
                try:
                    cluster = await self._producer.client.fetch_all_metadata()
                    topic.partitions = len(cluster.partitions_for_topic(topic.name) or ())
                    if topic.partitions:
                        await self._producer.client.add_topic(topic.name)
                        break
                except (KafkaError, OSError, TimeoutError) as error:
                    if kind_of(error) is ErrorKind.MISCONFIGURED:
                        _fail(topic.unplaced, as_dispatcher_error(error, f"producing to {topic.name}"))
                        return
                    log.warning("Kafka is out of reach; records wait", topic=topic.name, error=repr(error))
                else:
                    unknown_since = unknown_since or self._loop.time()
                    waited, unknown = self._loop.time() - unknown_since, UnknownTopicOrPartitionError()
                    kind = kind_of(unknown, waited_seconds=waited, grace_seconds=self._grace_seconds)
                    if kind is ErrorKind.MISCONFIGURED:
                        _fail(topic.unplaced, _no_topic(topic.name))
                        return
                    log.warning("the topic doesn't exist; records wait", topic=topic.name)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
            while topic.unplaced:
                self._place(topic, topic.unplaced.popleft())
        finally:
            topic.task = None

    async def _drain(self, queue: _Queue) -> None:
        """Send what waits for a partition until nothing does."""
        pause = _FIRST_PAUSE_SECONDS
        try:
            await asyncio.sleep(LINGER_SECONDS)
            while queue.records:
                taken, batch = self._fill(queue)
                if not taken:
                    continue
                try:
                    acknowledged = await self._producer.send_batch(batch, queue.topic.name, partition=queue.partition)
                    await acknowledged
                except asyncio.CancelledError:
                    queue.records.extendleft(reversed(taken))
                    raise
                except Exception as error:  # noqa: BLE001 - whatever it is, the records stay
                    queue.records.extendleft(reversed(taken))
                    if self._give_up(queue, len(taken), error):
                        continue
                    if isinstance(error, UnknownTopicOrPartitionError | AssertionError):
                        self._learn_anew(queue)
                        return
                    log.warning(
                        "Kafka doesn't take records; they wait",
                        topic=queue.topic.name,
                        partition=queue.partition,
                        records=len(queue.records),
                        error=repr(error),
                    )
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
                else:
                    queue.waits_since = self._loop.time()
                    pause = _FIRST_PAUSE_SECONDS
                    for _, future in taken:
                        if not future.done():
                            future.set_result(None)
        finally:
            queue.task = None

    def _fill(self, queue: _Queue) -> tuple[list[_Waiting], Any]:
        """Take as many waiting records as one batch holds."""
        batch = self._producer.create_batch()
        taken: list[_Waiting] = []
        records = queue.records
        while records:
            record, future = records[0]
            if future.done():  # the caller gave it up
                records.popleft()
                continue
            try:
                added = batch.append(timestamp=None, key=record.key, value=record.value, headers=list(record.headers))
            except (TypeError, ValueError, AttributeError) as error:
                records.popleft()
                future.set_exception(RejectedRecordError(f"the record can't be written: {error}"))
                continue
            if added is None:
                break
            taken.append(records.popleft())
            if queue.singly:
                queue.singly -= 1
                break
        batch.close()
        return taken, batch

    def _give_up(self, queue: _Queue, sent: int, error: Exception) -> bool:
        """Fail what a permanent error concerns; False where waiting is right."""
        kind = kind_of(error)
        if kind is ErrorKind.MISCONFIGURED:
            log.error("Kafka refuses records for good", topic=queue.topic.name, error=repr(error))
            _fail(queue.records, as_dispatcher_error(error, f"producing to {queue.topic.name}"))
        elif kind is ErrorKind.RECORD and sent == 1:
            future = queue.records.popleft()[1]
            if not future.done():
                future.set_exception(RejectedRecordError(f"Kafka refuses the record: {type(error).__name__}: {error}"))
        elif kind is ErrorKind.RECORD:
            queue.singly = sent  # one of them is at fault; which one shows when they go alone
        else:
            return False
        return True

    def _learn_anew(self, queue: _Queue) -> None:
        """Look at the topic again: it, or this partition of it, is gone."""
        topic = queue.topic
        topic.partitions = 0
        topic.unplaced.extend(queue.records)
        queue.records.clear()
        if topic.task is None:
            topic.waits_since = queue.waits_since
            topic.task = self._loop.create_task(self._learn(topic))


def _size(record: OutgoingRecord) -> int:
    size = len(record.key or b"") + len(record.value or b"")
    for name, value in record.headers:
        size += len(name) + len(value or b"") + 4
    return size


def _fail(waiting: deque[_Waiting], error: Exception) -> None:
    while waiting:
        _, future = waiting.popleft()
        if not future.done():
            future.set_exception(error)


def _no_topic(name: str) -> MisconfiguredError:
    return MisconfiguredError(
        f"Kafka has no topic {name}. Own topics are made with: dispatcher topics ensure; "
        "a source topic is its owner's to make"
    )
