"""Lag and single reads on a real broker."""

import asyncio
import contextlib

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import RecordsToDelete
from aiokafka.structs import TopicPartition

from dispatcher.core.errors import UnavailableError
from dispatcher.kafka.lag import LagReader
from dispatcher.kafka.reader import RecordReader
from dispatcher.ports import CommitPoint
from dispatcher.settings import KafkaSettings
from tests.kafka_support import Listener, admin_client, foreign_producer, make_topic, member, publish, quick, until

VALUES = [b"%d" % number for number in range(20)]


@pytest.fixture
def bootstrap(services):
    return services.kafka_bootstrap


@pytest.fixture
async def lags(bootstrap):
    reader = LagReader(quick(bootstrap))
    # A broker that has just started has no group coordinator for a moment.
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(UnavailableError):
                await reader.members("any")
                break
            await asyncio.sleep(0.1)
    yield reader
    await reader.stop()


@pytest.fixture
async def reader(bootstrap):
    reader = RecordReader(quick(bootstrap))
    yield reader
    await reader.stop()


async def test_lag_is_what_is_not_committed(bootstrap, lags, unique_name):
    """Without a commit everything on the topic counts, afterwards what is beyond the commit; missing topics don't."""
    group, topic = unique_name("g"), await make_topic(bootstrap, unique_name("events"), 2)
    await publish(bootstrap, topic, VALUES)
    assert await lags.lag(group, [topic, unique_name("missing")]) == {(topic, 0): 20, (topic, 1): 0}
    async with member(quick(bootstrap), group, topic, listener=Listener(commit=False)) as listener:
        await until(lambda: listener.partitions, "the assignment")
        assert await listener.consumer.commit(1, {(topic, 0): CommitPoint(15)})
        assert await lags.lag(group, [topic]) == {(topic, 0): 5, (topic, 1): 0}


async def test_lag_counts_to_the_last_stable_offset(bootstrap, lags, unique_name):
    """Records of an open transaction, which nobody can read, are no lag."""
    group, topic = unique_name("g"), await make_topic(bootstrap, unique_name("events"))
    async with foreign_producer(bootstrap, transactional_id=unique_name("tx")) as producer:
        await producer.begin_transaction()
        await producer.send_and_wait(topic, b"v", partition=0)
        assert await lags.lag(group, [topic]) == {(topic, 0): 0}
        await producer.abort_transaction()


async def test_members_are_counted(bootstrap, lags, unique_name):
    """A group has as many members as consumers joined it, and none where nobody ever did."""
    topic, group = unique_name("topic"), unique_name("group")
    await make_topic(bootstrap, topic, partitions=2)
    assert await lags.members(group) == 0
    async with contextlib.AsyncExitStack() as stack:
        for expected in (1, 2):
            consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, group_id=group)
            await consumer.start()
            stack.push_async_callback(consumer.stop)
            assert await lags.members(group) == expected
    assert await lags.members(group) == 0


async def test_ping_says_whether_a_broker_answers(bootstrap, lags, unused_tcp_port):
    """A ping is answered where Kafka lives, and refused where nothing listens."""
    assert await lags.ping()
    nobody = LagReader(KafkaSettings(f"127.0.0.1:{unused_tcp_port}"))
    assert not await nobody.ping()
    with pytest.raises(UnavailableError, match="out of reach"):
        await nobody.lag("g", ["t"])


@pytest.mark.parametrize("codec", [None, "lz4", "zstd"])
async def test_a_record_is_read_by_its_coordinates(bootstrap, reader, unique_name, codec):
    """Any record of a batch is found by its offset, with all its parts."""
    topic = await make_topic(bootstrap, unique_name("events"))
    async with foreign_producer(bootstrap, compression_type=codec, linger_ms=50) as producer:
        futures = [
            await producer.send(topic, value * 50, key=b"k", partition=0, headers=[("ce_id", value)])
            for value in VALUES
        ]
        for future in futures:
            await future
    found = await reader.read(topic, 0, 13)
    assert (found.offset, found.key, found.value, found.headers) == (13, b"k", b"13" * 50, (("ce_id", b"13"),))
    assert found.timestamp > 1_600_000_000_000


async def test_records_that_are_not_there_are_none(bootstrap, reader, unique_name):
    """Expired, future and aborted records, unknown partitions and unknown topics read as none, and make no topic."""
    topic = await make_topic(bootstrap, unique_name("events"))
    missing = unique_name("missing")
    await publish(bootstrap, topic, VALUES)
    async with foreign_producer(bootstrap, transactional_id=unique_name("tx")) as producer:
        await producer.begin_transaction()
        await producer.send_and_wait(topic, b"v", partition=0)
        await producer.abort_transaction()
    async with admin_client(bootstrap) as admin:
        await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=5)})
        assert await reader.read(topic, 0, 4) is None
        assert (await reader.read(topic, 0, 5)).value == b"5"
        assert await reader.read(topic, 0, 20) is None
        assert await reader.read(topic, 0, 500) is None
        assert await reader.read(topic, 1, 0) is None
        assert await reader.read(missing, 0, 0) is None
        assert missing not in await admin.list_topics()


async def test_a_large_record_is_read_whole(bootstrap, unique_name):
    """The fetch size bounds no record."""
    topic = await make_topic(bootstrap, unique_name("events"))
    await publish(bootstrap, topic, [b"x" * 900_000])
    reader = RecordReader(quick(bootstrap), max_bytes=1000)
    try:
        assert len((await reader.read(topic, 0, 0)).value) == 900_000
    finally:
        await reader.stop()
