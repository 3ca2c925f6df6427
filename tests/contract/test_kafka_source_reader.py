"""Reading source topics by time, on a real broker."""

import asyncio

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from dispatcher.core.errors import UnavailableError
from dispatcher.core.reruns import SourceSpan
from dispatcher.kafka.reader import RecordReader
from dispatcher.kafka.source_reader import KafkaSourceReader
from dispatcher.settings import TopicSettings
from tests.kafka_support import admin_client, foreign_producer, make_topic, quick

START_MS = 1_768_473_000_000


@pytest.fixture
def bootstrap(services):
    return services.kafka_bootstrap


@pytest.fixture
async def reader_of(bootstrap):
    records = RecordReader(quick(bootstrap), max_bytes=4096)
    yield lambda **topics: KafkaSourceReader(quick(bootstrap), TopicSettings(**topics), records)
    await records.stop()


async def fill(bootstrap, topic, count, partition=0, **arguments):
    """Publish records a second apart."""
    async with foreign_producer(bootstrap, **arguments) as producer:
        sends = [
            await producer.send(topic, b"%d" % number, partition=partition, timestamp_ms=START_MS + number * 1000)
            for number in range(count)
        ]
        await asyncio.gather(*sends)


async def read(reader, span):
    """Read a span to its end; gives the offsets."""
    found = []
    while span.position < span.end:
        read = await reader.read_span(span)
        assert span.position < read.position <= span.end
        found += [entry.offset for entry in read.entries]
        span = SourceSpan(span.topic, span.partition, read.position, span.end)
    return found


async def test_span_is_by_time_and_read_in_order(bootstrap, reader_of, unique_name):
    """In each partition from the first record of the time to before the first later one; empty ones are left out."""
    topic = await make_topic(bootstrap, unique_name("span"), 3)
    await fill(bootstrap, topic, 500)
    await fill(bootstrap, topic, 15, partition=2)
    reader = reader_of(source_topics=(topic,))
    spans = await reader.spans(START_MS + 9_500, START_MS + 400_000)
    assert spans == [SourceSpan(topic, 0, 10, 400), SourceSpan(topic, 2, 10, 15)]
    assert await read(reader, spans[0]) == list(range(10, 400))
    assert await reader.spans(START_MS + 900_000, START_MS + 901_000) == []
    assert await reader.spans(START_MS - 2000, START_MS) == []


async def test_pattern_leaves_own_topics_out(bootstrap, reader_of, unique_name):
    """Source topics may be a pattern; own topics never match, nor do topics that aren't there."""
    name = unique_name("by")
    for topic in (f"{name}-events", f"{name}.replay"):
        await make_topic(bootstrap, topic)
        await fill(bootstrap, topic, 2)
    reader = reader_of(source_topics=(), source_pattern=f"^{name}", prefix=name)
    assert await reader.spans(START_MS, START_MS + 10_000) == [SourceSpan(f"{name}-events", 0, 0, 2)]
    assert await reader_of(source_topics=(f"{name}-none",)).spans(START_MS, START_MS + 10_000) == ()


async def test_dropped_records_are_told_as_gone(bootstrap, reader_of, unique_name):
    """What expired since the span was made is counted once, and the rest is read; of a deleted topic all is gone."""
    topic = await make_topic(bootstrap, unique_name("span"))
    await fill(bootstrap, topic, 10)
    reader = reader_of(source_topics=(topic,))
    (span,) = await reader.spans(START_MS, START_MS + 60_000)
    async with admin_client(bootstrap) as admin:
        await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=6)})
        dropped = await reader.read_span(span)
        assert (list(dropped.entries), dropped.position, dropped.gone) == ([], 6, 6)
        assert await read(reader, SourceSpan(topic, 0, 6, 10)) == [6, 7, 8, 9]
        beyond = await reader.read_span(SourceSpan(topic, 0, 50, 60))
        assert (beyond.position, beyond.gone) == (60, 10)
        missing = await reader.read_span(SourceSpan(unique_name("none"), 0, 3, 5))
        assert (missing.position, missing.gone) == (5, 2)


async def test_aborted_transactions_are_passed_over(bootstrap, reader_of, unique_name):
    """A span that ends in aborted records is read to its end without them; the marker is of a later time."""
    topic = await make_topic(bootstrap, unique_name("span"))
    await fill(bootstrap, topic, 2)
    async with foreign_producer(bootstrap, transactional_id=unique_name("tx")) as producer:
        await producer.begin_transaction()
        await producer.send_and_wait(topic, b"aborted", partition=0, timestamp_ms=START_MS + 5000)
        await producer.abort_transaction()
    reader = reader_of(source_topics=(topic,))
    (span,) = await reader.spans(START_MS, START_MS + 60_000)
    assert (span.position, span.end) == (0, 3)
    assert await read(reader, span) == [0, 1]


async def test_broker_out_of_reach_is_told(reader_of, unused_tcp_port):
    """Nothing hangs: the caller tries again later."""
    kafka = quick(f"127.0.0.1:{unused_tcp_port}")
    with pytest.raises(UnavailableError):
        await KafkaSourceReader(kafka, TopicSettings(), RecordReader(kafka)).spans(0, 1)
