"""Reads single records again, by their coordinates."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TypeVar

from aiokafka import errors
from aiokafka.client import AIOKafkaClient
from aiokafka.structs import TopicPartition

from dispatcher.kafka.batches import Batches
from dispatcher.kafka.client import CLOSE_SECONDS, ErrorKind, as_dispatcher_error, bounded, kind_of, started_client
from dispatcher.kafka.fetching import Fetched, fetch, fetch_bytes
from dispatcher.ports import ConsumedRecord, Coordinates, UnreadableRecord
from dispatcher.settings import KafkaSettings

READ_SECONDS = 10.0
_PAUSE_SECONDS = 0.1

T = TypeVar("T")


class RecordReader:
    """Reads records by topic, partition and offset; one client, any number of reads at once.

    Args:
        settings: Where Kafka is.
        max_bytes: About how much one fetch brings; a larger record comes alone.
    """

    def __init__(self, settings: KafkaSettings, *, max_bytes: int = 64 * 1024) -> None:
        self._settings = settings
        self._max_bytes = max_bytes
        self._client: AIOKafkaClient | None = None
        self._starting = asyncio.Lock()

    async def read(self, topic: str, partition: int, offset: int) -> ConsumedRecord | None:
        """Read one record.

        Returns:
            The record; None where it isn't there (any more), was aborted, or can't be read. A topic may have been
            made anew: whether it still is the same record is the caller's to compare.

        Raises:
            UnavailableError: Kafka is out of reach.
            MisconfiguredError: It refuses.
        """
        fetched = await self._bounded(TopicPartition(topic, partition), offset)
        for entry in () if fetched is None else fetched.entries:
            if entry.offset == offset:
                return None if isinstance(entry, UnreadableRecord) else entry
        return None

    async def read_many(self, wanted: Iterable[Coordinates]) -> Mapping[Coordinates, ConsumedRecord]:
        """Read records in the order of their coordinates; what one fetch brings is used for all of them.

        Returns:
            Those that are there; see `read`.

        Raises:
            UnavailableError: Kafka is out of reach.
            MisconfiguredError: It refuses.
        """
        found: dict[Coordinates, ConsumedRecord] = {}
        seen: dict[Coordinates, ConsumedRecord] = {}
        here, position = None, 0
        for topic, partition, offset in sorted(set(wanted)):
            if here != (topic, partition) or offset >= position:
                here, position, seen = (topic, partition), offset + 1, {}
                fetched = await self._bounded(TopicPartition(topic, partition), offset)
                if fetched is not None:
                    position = max(position, fetched.position)
                    seen = {
                        (topic, partition, entry.offset): entry
                        for entry in fetched.entries
                        if not isinstance(entry, UnreadableRecord)
                    }
            if (record := seen.get((topic, partition, offset))) is not None:
                found[topic, partition, offset] = record
        return found

    async def read_from(self, topic: str, partition: int, offset: int) -> Batches | None:
        """Read what one fetch brings from an offset on; None where the offset, or the partition, is not there.

        Raises:
            UnavailableError: Kafka is out of reach.
            MisconfiguredError: It refuses.
        """
        return await self._bounded(TopicPartition(topic, partition), offset)

    async def bytes_from(self, topic: str, partition: int, offset: int) -> Fetched | None:
        """Fetch what is at an offset, and leave it as it is; otherwise like `read_from`."""
        return await self._fetched(
            TopicPartition(topic, partition),
            offset,
            lambda client, at: fetch_bytes(client, at, offset, max_bytes=self._max_bytes),
        )

    async def stop(self) -> None:
        """Close."""
        client, self._client = self._client, None
        if client is not None:
            await bounded(client.close(), CLOSE_SECONDS, "record reader")

    async def _bounded(self, partition: TopicPartition, offset: int) -> Batches | None:
        return await self._fetched(
            partition, offset, lambda client, at: fetch(client, at, offset, max_bytes=self._max_bytes)
        )

    async def _fetched(
        self, partition: TopicPartition, offset: int, get: Callable[[AIOKafkaClient, TopicPartition], Awaitable[T]]
    ) -> T | None:
        """Fetch in bounded time; None where the offset, or the partition, is not there."""
        try:
            async with asyncio.timeout(READ_SECONDS):
                return await self._tried(partition, get)
        except (errors.KafkaError, TimeoutError, OSError) as error:
            doing = f"reading {partition.topic}-{partition.partition} at {offset}"
            raise as_dispatcher_error(error, doing) from error

    async def _tried(
        self, partition: TopicPartition, get: Callable[[AIOKafkaClient, TopicPartition], Awaitable[T]]
    ) -> T | None:
        client = await self._started()
        while True:
            if not await self._known(client, partition):
                return None
            try:
                return await get(client, partition)
            except errors.OffsetOutOfRangeError:
                return None
            except errors.KafkaError as error:
                if kind_of(error) is not ErrorKind.RETRIABLE or not error.retriable:
                    raise
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _known(self, client: AIOKafkaClient, partition: TopicPartition) -> bool:
        """See whether a partition exists, without making a broker create its topic."""
        if partition.partition in (client.cluster.partitions_for_topic(partition.topic) or ()):
            return True
        cluster = await client.fetch_all_metadata()
        if partition.partition not in (cluster.partitions_for_topic(partition.topic) or ()):
            return False
        await client.add_topic(partition.topic)
        return True

    async def _started(self) -> AIOKafkaClient:
        async with self._starting:
            if self._client is None:
                self._client = await started_client(self._settings)
            return self._client
