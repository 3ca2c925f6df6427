"""How far consumer groups are behind and how many members they have, asked of the brokers."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from aiokafka import errors
from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.protocol.admin import DescribeGroupsRequest
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.structs import TopicPartition

from dispatcher.core.errors import UnavailableError
from dispatcher.kafka.client import CLOSE_SECONDS, as_dispatcher_error, bounded, started_client
from dispatcher.ports import Partition
from dispatcher.settings import KafkaSettings

PING_SECONDS = 3.0

_READ_COMMITTED = 1
_EARLIEST = -2
_LATEST = -1


class LagReader:
    """Reads lags with one client of its own; meant for a loop of every 10 to 15 seconds.

    Args:
        settings: Where Kafka is.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._client: AIOKafkaClient | None = None
        self._starting = asyncio.Lock()

    async def lag(self, group: str, topics: Sequence[str]) -> Mapping[Partition, int]:
        """Return how many offsets of each partition a group has not committed.

        Counted to the last stable offset: what is in open transactions can't be read yet. Offsets without a
        record (transaction markers, compaction) count. Where a group has no offset, the partition's beginning
        stands for it.

        Args:
            group: The consumer group.
            topics: Topics that don't exist are left out.

        Raises:
            UnavailableError: Kafka is out of reach.
            MisconfiguredError: It refuses.
        """
        try:
            client = await self._started()
            cluster = await client.fetch_all_metadata()
            leaders: dict[TopicPartition, int] = {}
            for topic in topics:
                for number in cluster.partitions_for_topic(topic) or ():
                    partition = TopicPartition(topic, number)
                    leader = cluster.leader_for_partition(partition)
                    if leader is not None and leader >= 0:
                        leaders[partition] = leader
            if not leaders:
                return {}
            committed, first, end = await asyncio.gather(
                self._committed(client, group, leaders),
                self._offsets(client, leaders, _EARLIEST),
                self._offsets(client, leaders, _LATEST),
            )
        except (errors.KafkaError, TimeoutError, OSError) as error:
            await self.stop()  # a client never looks at the bootstrap addresses again: the next call makes another
            raise as_dispatcher_error(error, f"reading the lag of {group}") from error
        return {
            (each.topic, each.partition): max(0, end[each] - max(committed.get(each, 0), first[each]))
            for each in leaders
            if each in end and each in first
        }

    async def members(self, group: str) -> int:
        """Return how many members a group has; 0 where it has none or isn't known.

        Raises:
            UnavailableError: Kafka is out of reach.
            MisconfiguredError: It refuses.
        """
        try:
            client = await self._started()
            node = await client.coordinator_lookup(CoordinationType.GROUP, group)
            response = await client.send(node, DescribeGroupsRequest([group]))
            code, *_, members = response.groups[0][:6]
            if code:
                raise errors.for_code(code)(group)
        except (errors.KafkaError, TimeoutError, OSError) as error:
            await self.stop()
            raise as_dispatcher_error(error, f"counting the members of {group}") from error
        return len(members)

    async def ping(self) -> bool:
        """Say whether a broker answers, within `PING_SECONDS`."""
        try:
            async with asyncio.timeout(PING_SECONDS):
                client = await self._started()
                node = client.get_random_node()
                await client.send(node, MetadataRequest([]))
        except (errors.KafkaError, UnavailableError, TimeoutError, OSError):
            await self.stop()
            return False
        return True

    async def stop(self) -> None:
        """Close."""
        client, self._client = self._client, None
        if client is not None:
            await bounded(client.close(), CLOSE_SECONDS, "lag reader")

    async def _started(self) -> AIOKafkaClient:
        async with self._starting:
            if self._client is None:
                self._client = await started_client(self._settings)
            return self._client

    async def _committed(
        self, client: AIOKafkaClient, group: str, partitions: Iterable[TopicPartition]
    ) -> dict[TopicPartition, int]:
        node = await client.coordinator_lookup(CoordinationType.GROUP, group)
        response = await client.send(node, OffsetFetchRequest(group, _by_topic(partitions)))
        found = {}
        for topic, entries in response.topics:
            for number, offset, _, code in entries:
                if code:
                    raise errors.for_code(code)(f"{group}: {topic}-{number}")
                if offset >= 0:
                    found[TopicPartition(topic, number)] = offset
        return found

    async def _offsets(
        self, client: AIOKafkaClient, leaders: Mapping[TopicPartition, int], at: int
    ) -> dict[TopicPartition, int]:
        by_node: dict[int, list[TopicPartition]] = defaultdict(list)
        for partition, node in leaders.items():
            by_node[node].append(partition)
        found = {}
        for node, partitions in by_node.items():
            wanted = [(topic, [(number, at) for number in numbers]) for topic, numbers in _by_topic(partitions)]
            response = await client.send(node, OffsetRequest(-1, _READ_COMMITTED, wanted))
            for topic, entries in response.topics:
                for number, code, _, offset in entries:
                    # A partition that is just moving is left out; it is there the next time.
                    if not code:
                        found[TopicPartition(topic, number)] = offset
        return found


def _by_topic(partitions: Iterable[TopicPartition]) -> list[tuple[str, list[int]]]:
    numbers: dict[str, list[int]] = defaultdict(list)
    for partition in partitions:
        numbers[partition.topic].append(partition.partition)
    return list(numbers.items())
