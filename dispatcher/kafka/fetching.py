"""One fetch of one partition, outside aiokafka's own fetching."""

from aiokafka import errors
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.structs import TopicPartition

from dispatcher.kafka.batches import Batches, read_batches

_READ_COMMITTED = 1
_FIRST_V11 = 11


async def fetch(client: AIOKafkaClient, partition: TopicPartition, offset: int, *, max_bytes: int) -> Batches:
    """Fetch what is at an offset now, without waiting for records to come.

    Args:
        client: A connected client that knows the topic.
        partition: Where from.
        offset: The first offset wanted.
        max_bytes: About how much; the first batch comes whole whatever its size (Kafka 0.10.1 and later).

    Raises:
        KafkaError: Kafka is out of reach, or refuses; `OffsetOutOfRangeError` where the offset is no more.
    """
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
            return read_batches(topic, number, bytes(rest[-1] or b""), aborted or (), offset)
    return Batches(position=offset)
