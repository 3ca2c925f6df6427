"""Looks at the replay topic from outside its consumer group: where it ends, and what carries a replay's id."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from dispatcher.core.errors import UnavailableError
from dispatcher.core.records import DELIVERY_ID, REPLAY_ID
from dispatcher.core.reruns import SourceSpan
from dispatcher.core.topics import TopicNames
from dispatcher.kafka.dead_letters import PATIENCE_SECONDS, PAUSE_SECONDS, topic_spans
from dispatcher.kafka.reader import RecordReader
from dispatcher.kafka.source_reader import first_kept
from dispatcher.ports import UnreadableRecord
from dispatcher.settings import KafkaSettings, TopicSettings


class ReplayTopicReader:
    """Reads the replay topic; implements `dispatcher.ports.ReplayTopicReader`.

    Args:
        kafka: Where Kafka is.
        topics: How the own topics are named.
        reader: Fetches; its caller stops it.
    """

    def __init__(self, kafka: KafkaSettings, topics: TopicSettings, reader: RecordReader) -> None:
        self._kafka = kafka
        self._topic = TopicNames(topics.prefix, topics.tiers).replay
        self._reader = reader

    async def ends(self) -> Mapping[int, int]:
        """Return the end offset of each partition that holds anything; of the others it is 0.

        Raises:
            UnavailableError: Kafka is out of reach.
            MisconfiguredError: It refuses, or has no such topic.
        """
        return {span.partition: span.end for span in await topic_spans(self._kafka, self._topic)}

    async def delivery_ids(self, replay_id: str, since: Mapping[int, int]) -> frozenset[str]:
        """Return the deliveries whose records carry a replay's id.

        Args:
            replay_id: `rpl_…`.
            since: Partition to the first offset looked at; 0 where a partition isn't named.

        Raises:
            UnavailableError: Kafka is out of reach.
            MisconfiguredError: It refuses, or has no such topic.
        """
        found: set[str] = set()
        wanted = replay_id.encode()
        for span in await topic_spans(self._kafka, self._topic):
            ahead = replace(span, position=max(span.position, since.get(span.partition, 0)))
            while ahead.position < ahead.end:
                ahead = replace(ahead, position=await self._collect(ahead, wanted, found))
        return frozenset(found)

    async def _collect(self, span: SourceSpan, wanted: bytes, found: set[str]) -> int:
        """Take in what one fetch brings; returns the offset behind it. Kafka may need a moment."""
        deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        while True:
            fetched = await self._reader.read_from(span.topic, span.partition, span.position)
            if fetched is None:
                return await first_kept(self._kafka, span)
            if fetched.position > span.position:
                break
            if asyncio.get_running_loop().time() > deadline:
                raise UnavailableError(
                    f"Kafka brings nothing of {span.topic}-{span.partition} at {span.position}, though it says that it "
                    f"has records up to {span.end}; try again when its replicas are in sync"
                )
            await asyncio.sleep(PAUSE_SECONDS)
        for entry in fetched.entries:
            if isinstance(entry, UnreadableRecord):
                continue
            headers = dict(entry.headers)
            delivery_id = headers.get(DELIVERY_ID)
            if headers.get(REPLAY_ID) == wanted and delivery_id is not None:
                found.add(delivery_id.decode("ascii", "replace"))
        return fetched.position
