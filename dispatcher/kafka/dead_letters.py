"""Reads the dead-letter topic from its beginning to its present end."""

from collections.abc import AsyncIterator
from typing import Any

from aiokafka import AIOKafkaConsumer

from dispatcher.core.records import BadRecord, decode_dead_letter
from dispatcher.core.topics import TopicNames
from dispatcher.kafka.client import client_arguments
from dispatcher.settings import KafkaSettings, TopicSettings

_POLL_MS = 500


async def read_dead_letters(kafka: KafkaSettings, topics: TopicSettings) -> AsyncIterator[dict[str, Any]]:
    """Yield what each dead letter's headers say, partition by partition; ends where the topic ended at the start.

    Raises:
        UndecodableError: A record's headers can't be read.
    """
    name = TopicNames(topics.prefix, topics.tiers).dead_letter
    # Without a group, the member takes every partition of the topic.
    consumer = AIOKafkaConsumer(
        name,
        **client_arguments(kafka),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    await consumer.start()
    try:
        partitions = sorted(consumer.assignment())
        ends = await consumer.end_offsets(partitions)
        for partition in partitions:
            while await consumer.position(partition) < ends[partition]:
                found = await consumer.getmany(partition, timeout_ms=_POLL_MS)
                for record in found.get(partition, ()):
                    yield _shown(decode_dead_letter(record.headers), record.partition, record.offset)
    finally:
        await consumer.stop()


def _shown(letter: Any, partition: int, offset: int) -> dict[str, Any]:
    origin = letter.origin
    shown = {"partition": partition, "offset": offset, "reason": letter.reason, "error": letter.error}
    if not isinstance(letter, BadRecord):
        shown |= {"delivery_id": letter.delivery_id, "attempts": letter.attempt, "http_status": letter.http_status}
    return shown | {"origin": f"{origin.topic}-{origin.partition}-{origin.offset}"}
