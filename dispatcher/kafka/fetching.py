"""One fetch of one partition, outside aiokafka's own fetching."""

from collections.abc import Sequence
from dataclasses import dataclass

from aiokafka import errors
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.structs import TopicPartition

from dispatcher.kafka.batches import Batches, read_batches

_READ_COMMITTED = 1
_FIRST_V11 = 11


@dataclass(frozen=True, slots=True)
class Fetched:
    """What one fetch brought, as the broker sent it.

    Attributes:
        data: A message set; empty where there is nothing at the offset now.
        aborted: Producer id and first offset of each aborted transaction in it.
    """

    data: bytes = b""
    aborted: Sequence[tuple[int, int]] = ()


async def fetch(client: AIOKafkaClient, partition: TopicPartition, offset: int, *, max_bytes: int) -> Batches:
    """Fetch what is at an offset now, without waiting for records to come, and read it.

    Args:
        client: A connected client that knows the topic.
        partition: Where from.
        offset: The first offset wanted.
        max_bytes: About how much; the first batch comes whole whatever its size (Kafka 0.10.1 and later).

    Raises:
        KafkaError: Kafka is out of reach, or refuses; `OffsetOutOfRangeError` where the offset is no more.
    """
    fetched = await fetch_bytes(client, partition, offset, max_bytes=max_bytes)
    return read_batches(partition.topic, partition.partition, fetched.data, fetched.aborted, offset)


async def fetch_bytes(client: AIOKafkaClient, partition: TopicPartition, offset: int, *, max_bytes: int) -> Fetched:
    """Fetch what is at an offset now, and leave it as it is; otherwise like `fetch`."""
    node = client.cluster.leader_for_partition(partition)
    if node is None or node == -1:
        client.force_metadata_update()
        raise errors.LeaderNotAvailableError(f"{partition.topic}-{partition.partition}")
    wanted = [(partition.topic, [(partition.partition, offset, max_bytes)])]
    response = await client.send(node, FetchRequest(0, 1, max_bytes, _READ_COMMITTED, wanted))
    for topic, partitions in response.topics:
        for number, code, _, *rest in partitions:
            error = errors.for_code(code)
            if error is not errors.NoError:
                if error.invalid_metadata:
                    client.force_metadata_update()
                raise error(f"{topic}-{number} at {offset}")
            aborted = rest[2] if response.API_VERSION >= _FIRST_V11 else rest[-2]
            return Fetched(bytes(rest[-1] or b""), aborted or ())
    return Fetched()
