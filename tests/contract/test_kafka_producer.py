"""The producer on a real broker."""

import asyncio

import pytest
from aiokafka import AIOKafkaConsumer

from dispatcher.core.errors import MisconfiguredError, UnavailableError
from dispatcher.kafka.producer import KafkaProducer
from dispatcher.ports import OutgoingRecord, RejectedRecordError
from dispatcher.settings import KafkaSettings
from tests.kafka_support import admin_client, foreign_producer, make_topic, quick


@pytest.fixture
def bootstrap(services):
    return services.kafka_bootstrap


@pytest.fixture
async def producer(bootstrap):
    made = KafkaProducer(quick(bootstrap), max_record_bytes=2_000_000, unknown_topic_grace_seconds=0.5)
    await made.start()
    yield made
    await made.stop()


async def read_all(bootstrap, topic, count):
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        return [await asyncio.wait_for(consumer.getone(), 20) for _ in range(count)]
    finally:
        await consumer.stop()


async def test_records_arrive_as_they_were_given(bootstrap, producer, unique_name):
    """Key, value, headers and order within a key are kept, over more than one batch."""
    topic = await make_topic(bootstrap, unique_name("out"), 3)
    headers = (("ce_id", b"1"), ("dispatcher-attempt", b"2"))
    records = [OutgoingRecord(topic, b"key-%d" % (n % 7), b"%d" % n * 200, headers) for n in range(2000)]
    await asyncio.gather(*(producer.produce(record) for record in records))
    found = await read_all(bootstrap, topic, len(records))
    for key in {record.key for record in records}:
        assert [r.value for r in found if r.key == key] == [r.value for r in records if r.key == key]
    assert {record.headers for record in found} == {headers}
    assert producer.healthy


async def test_keys_go_where_other_clients_put_them(bootstrap, producer, unique_name):
    """The partition of a key is that of the default partitioner; records without one are spread."""
    topic = await make_topic(bootstrap, unique_name("out"), 5)
    keys = [b"wh_%d" % number for number in range(30)]
    async with foreign_producer(bootstrap) as foreign:
        for key in keys:
            await foreign.send_and_wait(topic, b"theirs", key=key)
    await asyncio.gather(*(producer.produce(OutgoingRecord(topic, key, b"ours", ())) for key in keys))
    await asyncio.gather(*(producer.produce(OutgoingRecord(topic, None, b"no key", ())) for _ in range(10)))
    found = await read_all(bootstrap, topic, 70)
    where = {}
    for record in found:
        where.setdefault(record.key, set()).add(record.partition)
    assert where.pop(None) == set(range(5))
    assert all(len(partitions) == 1 for partitions in where.values())


async def test_spread_records_go_to_every_partition(bootstrap, producer, unique_name):
    """Records of one key that ask for it go to partitions in turn, with their key."""
    topic = await make_topic(bootstrap, unique_name("out"), 3)
    await asyncio.gather(*(producer.produce(OutgoingRecord(topic, b"k", b"", (), spread=True)) for _ in range(9)))
    found = await read_all(bootstrap, topic, 9)
    assert sorted(record.partition for record in found) == sorted([0, 1, 2] * 3)
    assert {record.key for record in found} == {b"k"}


async def test_null_values_and_null_keys_are_written(bootstrap, producer, unique_name):
    """A dead letter without bytes, or without key, is a record like any other."""
    topic = await make_topic(bootstrap, unique_name("out"))
    await producer.produce(OutgoingRecord(topic, b"k", None, ()))
    await producer.produce(OutgoingRecord(topic, None, None, (("a", b"b"),)))
    assert [(r.key, r.value) for r in await read_all(bootstrap, topic, 2)] == [(b"k", None), (None, None)]


async def test_a_record_too_large_for_us_is_rejected_at_once(bootstrap, producer, unique_name):
    """A record above the limit is refused without asking Kafka."""
    future = producer.produce(OutgoingRecord(unique_name("out"), b"k", b"x" * 2_000_001, ()))
    assert future.done()
    with pytest.raises(RejectedRecordError):
        await future


async def test_a_record_too_large_for_the_topic_is_rejected_alone(bootstrap, producer, unique_name):
    """Where the broker refuses a batch for one record, that one is rejected and its neighbours are produced."""
    topic = await make_topic(bootstrap, unique_name("out"), max_message_bytes="20000")
    records = [OutgoingRecord(topic, b"k", b"x" * size, ()) for size in (100, 30_000, 100, 40_000, 100)]
    results = await asyncio.gather(*(producer.produce(record) for record in records), return_exceptions=True)
    assert [type(result) for result in results] == [
        type(None), RejectedRecordError, type(None), RejectedRecordError, type(None)
    ]  # fmt: skip
    assert len(await read_all(bootstrap, topic, 3)) == 3


async def test_a_record_that_is_no_bytes_is_rejected_alone(bootstrap, producer, unique_name):
    """What can't be written at all is refused, and what stands in the same batch goes."""
    topic = await make_topic(bootstrap, unique_name("out"))
    good = producer.produce(OutgoingRecord(topic, b"k", b"v", ()))
    bad = producer.produce(OutgoingRecord(topic, b"k", b"v", (("name", "text"),)))
    await good
    with pytest.raises(RejectedRecordError):
        await bad


async def test_an_unknown_topic_is_a_misconfiguration_and_is_not_made(bootstrap, producer, unique_name):
    """A topic that stays unknown for the grace time fails its records, and only those."""
    missing, topic = unique_name("missing"), await make_topic(bootstrap, unique_name("out"))
    lost = producer.produce(OutgoingRecord(missing, b"k", b"v", ()))
    await producer.produce(OutgoingRecord(topic, b"k", b"v", ()))
    with pytest.raises(MisconfiguredError, match=missing):
        await lost
    async with admin_client(bootstrap) as admin:
        assert missing not in await admin.list_topics()


async def test_a_topic_that_appears_in_time_gets_its_records(bootstrap, unique_name):
    """Records for a topic that is just being made wait for it."""
    name = unique_name("late")
    producer = KafkaProducer(quick(bootstrap), max_record_bytes=1000, unknown_topic_grace_seconds=20)
    await producer.start()
    try:
        waiting = producer.produce(OutgoingRecord(name, b"k", b"v", ()))
        await make_topic(bootstrap, name)
        await asyncio.wait_for(waiting, 20)
    finally:
        await producer.stop()


async def test_a_topic_deleted_while_producing_is_a_misconfiguration(bootstrap, unique_name):
    """When a topic vanishes under its records, they fail by name instead of waiting for ever."""
    topic = await make_topic(bootstrap, unique_name("out"))
    producer = KafkaProducer(
        quick(bootstrap, request_timeout_ms=1500), max_record_bytes=1000, unknown_topic_grace_seconds=0.5
    )
    await producer.start()
    try:
        await producer.produce(OutgoingRecord(topic, b"k", b"v", ()))
        async with admin_client(bootstrap) as admin:
            await admin.delete_topics([topic])
        with pytest.raises(MisconfiguredError, match=topic):
            await asyncio.wait_for(producer.produce(OutgoingRecord(topic, b"k", b"v", ())), 30)
    finally:
        await producer.stop()


async def test_stop_waits_for_what_is_under_way(bootstrap, unique_name):
    """Records that were accepted before the stop are acknowledged; later ones are cancelled."""
    topic = await make_topic(bootstrap, unique_name("out"), 4)
    producer = KafkaProducer(quick(bootstrap), max_record_bytes=1000)
    await producer.start()
    futures = [producer.produce(OutgoingRecord(topic, b"%d" % n, b"v", ())) for n in range(500)]
    await producer.stop()
    assert all(future.done() and future.exception() is None for future in futures)
    assert producer.produce(OutgoingRecord(topic, b"k", b"v", ())).cancelled()


async def test_nobody_there_is_unavailable(unused_tcp_port):
    """Starting without a broker says so instead of waiting."""
    producer = KafkaProducer(KafkaSettings(f"127.0.0.1:{unused_tcp_port}"), max_record_bytes=1000)
    with pytest.raises(UnavailableError, match="out of reach"):
        await producer.start()


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
async def test_compressed_records_arrive(bootstrap, unique_name, compression):
    """Compression changes nothing for readers."""
    topic = await make_topic(bootstrap, unique_name("out"))
    producer = KafkaProducer(quick(bootstrap), max_record_bytes=100_000, compression=compression)
    await producer.start()
    try:
        await asyncio.gather(*(producer.produce(OutgoingRecord(topic, b"k", b"abc" * 1000, ())) for _ in range(50)))
    finally:
        await producer.stop()
    assert {record.value for record in await read_all(bootstrap, topic, 50)} == {b"abc" * 1000}
