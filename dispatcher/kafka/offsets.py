"""Committed offsets and where a group starts."""

import asyncio
import datetime as dt
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, errors
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from dispatcher.core.errors import MisconfiguredError
from dispatcher.kafka.client import ErrorKind, as_dispatcher_error, kind_of
from dispatcher.ports import CommitPoint

_TRIES = 20
_RETRY_SECONDS = 0.1
_PAUSE_SECONDS = 0.25
_FENCED = (errors.UnknownMemberIdError, errors.IllegalGenerationError, errors.RebalanceInProgressError)

log = structlog.get_logger(__name__)


async def matching_topics(
    consumer: AIOKafkaConsumer, topics: Sequence[str], pattern: re.Pattern[str] | None, *, grace_seconds: float
) -> Sequence[str]:
    """Return the topics of a subscription that exist.

    All topics are asked for: asking for one by name would let a broker that makes topics by itself make it.

    Args:
        consumer: Started.
        topics: Names; each must exist.
        pattern: Or a pattern, which may match none yet.
        grace_seconds: How long to wait for names that don't exist.

    Raises:
        MisconfiguredError: A named topic doesn't exist.
        UnavailableError: Kafka is out of reach.
    """
    deadline = asyncio.get_running_loop().time() + grace_seconds
    while True:
        try:
            cluster = await consumer._client.fetch_all_metadata()  # noqa: SLF001
        except errors.KafkaError as error:
            raise as_dispatcher_error(error, "listing topics") from error
        existing = cluster.topics(exclude_internal_topics=True)
        if pattern is not None:
            return sorted(topic for topic in existing if pattern.match(topic))
        missing = sorted(set(topics) - existing)
        if not missing:
            return topics
        if asyncio.get_running_loop().time() >= deadline:
            raise MisconfiguredError(
                f"Kafka has no topic {', '.join(missing)}, or its access rights hide it. Create it, or name another."
            )
        await asyncio.sleep(_PAUSE_SECONDS)


async def commit_start(
    consumer: AIOKafkaConsumer, topics: Sequence[str], start_from: str | dt.datetime, *, timeout_ms: int
) -> Mapping[TopicPartition, int]:
    """Commit where a group starts that has no offsets at all, for every partition that exists now.

    Must run before the consumer joins: the brokers take commits from outside a group only while it has no
    members. So the first worker decides for all partitions, others find offsets or are refused, and whatever
    appears later has no offset and is read from its beginning.

    Args:
        consumer: Started, not subscribed.
        topics: Topics that exist.
        start_from: `latest`, `earliest` or an aware time.
        timeout_ms: For each request.

    Returns:
        What was committed; empty where the group has started before.

    Raises:
        KafkaError: Kafka is out of reach, or refuses.
    """
    coordinator = consumer._coordinator  # noqa: SLF001
    for attempt in range(_TRIES):
        try:
            await coordinator.ensure_coordinator_known()
            if await _has_offsets(coordinator):
                return {}
            offsets = await _offsets_at(consumer, topics, start_from, timeout_ms)
            await coordinator._do_commit_offsets(  # noqa: SLF001
                None, {partition: OffsetAndMetadata(offset, "") for partition, offset in offsets.items()}
            )
        except _FENCED:
            return {}  # another worker has joined: it has decided
        except errors.KafkaError as error:
            if not error.retriable or attempt == _TRIES - 1:
                raise
            await asyncio.sleep(_PAUSE_SECONDS)
        else:
            log.info("the group has no offsets: it starts here", start_from=str(start_from), partitions=len(offsets))
            return offsets
    return {}


async def committed_points(
    consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition], *, timeout_ms: int
) -> Mapping[TopicPartition, CommitPoint]:
    """Return from where each partition is to be read, with what was noted at the commit.

    A partition without an offset starts at its beginning. An offset that isn't on the topic any more (its
    records expired, or the topic was made anew) becomes the beginning too, and is logged as what it is: a loss.

    Raises:
        KafkaError: Kafka is out of reach, or refuses.
    """
    if not partitions:
        return {}
    fetcher, coordinator = consumer._fetcher, consumer._coordinator  # noqa: SLF001
    committed, first, end = await asyncio.gather(
        coordinator.fetch_committed_offsets(partitions),
        fetcher.beginning_offsets(partitions, timeout_ms),
        fetcher.end_offsets(partitions, timeout_ms),
    )
    points = {}
    for partition in partitions:
        noted = committed.get(partition)
        if noted is None:
            points[partition] = CommitPoint(first[partition])
        elif first[partition] <= noted.offset <= end[partition]:
            points[partition] = CommitPoint(noted.offset, noted.metadata or "")
        else:
            points[partition] = CommitPoint(first[partition])
            log.error(
                "the committed offset is not on the topic: records expired unread, or the topic was made anew",
                topic=partition.topic,
                partition=partition.partition,
                committed=noted.offset,
                first=first[partition],
                end=end[partition],
            )
    return points


async def commit_points(
    consumer: AIOKafkaConsumer, points: Mapping[TopicPartition, CommitPoint], *, fenced: Callable[[], bool]
) -> bool:
    """Commit with aiokafka's own request; retriable errors are waited out: bound it.

    aiokafka's `commit` looks at the assignment first, which a change of a pattern's topics empties before the
    revocation.

    Args:
        consumer: Started.
        points: What to commit.
        fenced: Says whether the assignment is over.

    Returns:
        Whether it stands; False where the assignment is over.

    Raises:
        KafkaError: Kafka refuses for good.
    """
    coordinator = consumer._coordinator  # noqa: SLF001
    offsets = {each: OffsetAndMetadata(point.offset, point.metadata) for each, point in points.items()}
    while True:
        try:
            await coordinator.ensure_coordinator_known()
            if fenced() or coordinator.generation < 0:
                # Thrown out: sent like this, the commit would count as one from outside, which brokers take
                # while a group is empty.
                return False
            await coordinator._do_commit_offsets(None, offsets)  # noqa: SLF001
        except _FENCED:
            return False
        except errors.OffsetMetadataTooLargeError:
            log.exception("the note beside a commit is too large; committing without", group=coordinator.group_id)
            offsets = {each: OffsetAndMetadata(point.offset, "") for each, point in offsets.items()}
        except errors.KafkaError as error:
            if kind_of(error) is ErrorKind.MISCONFIGURED:
                raise
            await asyncio.sleep(_RETRY_SECONDS)
        else:
            return True


async def _has_offsets(coordinator: Any) -> bool:
    response = await coordinator._send_req(OffsetFetchRequest(coordinator.group_id, None))  # noqa: SLF001
    code = getattr(response, "error_code", 0)
    if code:
        error = errors.for_code(code)
        if error is errors.NotCoordinatorForGroupError:
            coordinator.coordinator_dead()
        raise error(coordinator.group_id)
    return any(offset >= 0 for _, partitions in response.topics for _, offset, _, _ in partitions)


async def _offsets_at(
    consumer: AIOKafkaConsumer, topics: Sequence[str], start_from: str | dt.datetime, timeout_ms: int
) -> dict[TopicPartition, int]:
    partitions = []
    for topic in topics:
        numbers = await consumer._client._wait_on_metadata(topic)  # noqa: SLF001
        partitions += [TopicPartition(topic, number) for number in sorted(numbers)]
    fetcher = consumer._fetcher  # noqa: SLF001
    if start_from == "earliest":
        return dict(await fetcher.beginning_offsets(partitions, timeout_ms))
    end = dict(await fetcher.end_offsets(partitions, timeout_ms))
    if isinstance(start_from, dt.datetime):
        at_ms = int(start_from.timestamp() * 1000)
        found = await fetcher.get_offsets_by_times(dict.fromkeys(partitions, at_ms), timeout_ms)
        # None: no record is as young as that.
        end.update({partition: at.offset for partition, at in found.items() if at is not None})
    return end
