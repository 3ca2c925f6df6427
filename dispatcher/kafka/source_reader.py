"""Reads source topics by time, outside their consumer group: nothing is committed."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, errors
from aiokafka.structs import TopicPartition

from dispatcher.core.errors import UnavailableError
from dispatcher.core.reruns import SourceSpan
from dispatcher.kafka.client import CLOSE_SECONDS, as_dispatcher_error, bounded, client_arguments, why_unreachable
from dispatcher.kafka.reader import RecordReader
from dispatcher.ports import SourceRecords
from dispatcher.settings import KafkaSettings, TopicSettings

ASK_SECONDS = 20.0
_DOING = "asking for offsets of the source topics"


class KafkaSourceReader:
    """Reads what is on the source topics; implements `dispatcher.ports.SourceReader`.

    Args:
        kafka: Where Kafka is.
        topics: Which topics are the source topics.
        reader: Fetches; its caller stops it.
    """

    def __init__(self, kafka: KafkaSettings, topics: TopicSettings, reader: RecordReader) -> None:
        self._kafka = kafka
        self._names = frozenset(topics.source_topics)
        self._pattern = None if topics.source_pattern is None else re.compile(topics.source_pattern)
        self._own_prefix = f"{topics.prefix}."
        self._reader = reader

    async def spans(self, since_ms: int, until_ms: int) -> Sequence[SourceSpan]:
        """Return what is on the source topics from one time to before another, by the records' timestamps.

        Where timestamps don't rise with the offsets, a span holds records of other times as well, and ends before the
        first record that is as young as `until_ms`.

        Raises:
            UnavailableError: Kafka is out of reach.
            MisconfiguredError: It refuses.
        """
        async with asking(self._kafka, _DOING) as consumer:
            cluster = await consumer._client.fetch_all_metadata()  # noqa: SLF001 - naming a topic might make it
            partitions = [
                TopicPartition(topic, number)
                for topic in sorted(cluster.topics(exclude_internal_topics=True))
                if self._is_source(topic)
                for number in sorted(cluster.partitions_for_topic(topic) or ())
            ]
            if not partitions:
                return ()
            end = await consumer.end_offsets(partitions)
            first = await consumer.offsets_for_times(dict.fromkeys(partitions, since_ms))
            after = await consumer.offsets_for_times(dict.fromkeys(partitions, until_ms))
        spans = []
        for each in partitions:
            # None: no record is as young as that.
            begins, ends = first[each], after[each]
            stop = end[each] if ends is None else ends.offset
            if begins is not None and begins.offset < stop:
                spans.append(SourceSpan(each.topic, each.partition, begins.offset, stop))
        return spans

    async def read_span(self, span: SourceSpan) -> SourceRecords:
        """Return the next records of a span, as many as one fetch brings.

        Raises:
            UnavailableError: Kafka is out of reach, or holds back what it said it has.
            MisconfiguredError: It refuses.
        """
        fetched = await self._reader.read_from(span.topic, span.partition, span.position)
        if fetched is None:
            position = await first_kept(self._kafka, span)
            return SourceRecords((), position, position - span.position)
        if fetched.position <= span.position:
            raise UnavailableError(f"Kafka brings nothing of {span.topic}-{span.partition} at {span.position}")
        entries = [entry for entry in fetched.entries if entry.offset < span.end]
        return SourceRecords(entries, min(fetched.position, span.end))

    def _is_source(self, topic: str) -> bool:
        if self._pattern is None:
            return topic in self._names
        return self._pattern.match(topic) is not None and not topic.startswith(self._own_prefix)


async def first_kept(kafka: KafkaSettings, span: SourceSpan) -> int:
    """Return where a span goes on whose position is not on its topic; its end where nothing of it is left.

    Raises:
        UnavailableError: Kafka is out of reach.
        MisconfiguredError: It refuses.
    """
    partition = TopicPartition(span.topic, span.partition)
    async with asking(kafka, f"asking for offsets of {span.topic}") as consumer:
        cluster = await consumer._client.fetch_all_metadata()  # noqa: SLF001 - naming a topic might make it
        if span.partition not in (cluster.partitions_for_topic(span.topic) or ()):
            return span.end
        first = int((await consumer.beginning_offsets([partition]))[partition])
    # One that lies before is of a topic that was made anew: its offsets mean other records.
    return min(first, span.end) if first > span.position else span.end


@asynccontextmanager
async def asking(settings: KafkaSettings, doing: str) -> AsyncIterator[AIOKafkaConsumer]:
    """Give a consumer for some questions, in bounded time; errors become this project's.

    Args:
        settings: Where Kafka is.
        doing: What is asked, as in `asking for offsets of the source topics`.
    """
    consumer = AIOKafkaConsumer(
        **client_arguments(settings), enable_auto_commit=False, isolation_level="read_committed"
    )
    try:
        async with asyncio.timeout(ASK_SECONDS):
            try:
                await consumer.start()
            except errors.KafkaConnectionError as error:
                raise await why_unreachable(settings, error) from error
            yield consumer
    except (errors.KafkaError, TimeoutError, OSError) as error:
        raise as_dispatcher_error(error, doing) from error
    finally:
        await bounded(consumer.stop(), CLOSE_SECONDS, "offset reader")
