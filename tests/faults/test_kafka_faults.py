"""What the Kafka part does while its broker is stopped, killed, frozen or has corrupt data."""

import asyncio
import struct
import time

import pytest
from aiokafka.record.util import calc_crc32c

from dispatcher.core.errors import UnavailableError
from dispatcher.kafka import producer as producer_module
from dispatcher.kafka.lag import LagReader
from dispatcher.kafka.producer import KafkaProducer
from dispatcher.ports import CommitPoint, OutgoingRecord, UnreadableRecord
from tests.kafka_support import Listener, committed, foreign_producer, make_topic, member, publish, quick, until

VALUES = [b"%d" % number for number in range(20)]
HEADER = struct.Struct(">qiibIhiqqqhii")
CRC_AT, ATTRIBUTES_AT = 17, 21


@pytest.fixture
async def stack(local_stack_factory):
    return await local_stack_factory(mongo=False)


@pytest.fixture
def bootstrap(stack):
    return stack.kafka_bootstrap


async def test_records_wait_for_a_broker_that_is_gone(stack, bootstrap, unique_name, monkeypatch):
    """Through a freeze and a kill, every record waits and is produced in the end; health says so meanwhile."""
    monkeypatch.setattr(producer_module, "UNAVAILABLE_AFTER_SECONDS", 0.5)
    topic = await make_topic(bootstrap, unique_name("out"))
    producer = KafkaProducer(quick(bootstrap, request_timeout_ms=1500), max_record_bytes=1000)
    await producer.start()
    kafka = stack.kafka_process
    try:

        def produce():
            return [producer.produce(OutgoingRecord(topic, b"k", b"%d" % n, ())) for n in range(50)]

        await asyncio.gather(*produce())
        for down, up in ((kafka.pause, kafka.resume), (kafka.kill, kafka.start)):
            if (begun := down()) is not None:
                await begun
            waiting = produce()
            await until(lambda: not producer.healthy, "notice")
            await asyncio.sleep(2)  # longer than aiokafka lets a batch live
            assert not any(future.done() for future in waiting)
            if (begun := up()) is not None:
                await begun
            await asyncio.wait_for(asyncio.gather(*waiting), 30)
            await until(lambda: producer.healthy, "recovery")
    finally:
        await producer.stop()


async def test_everything_stops_in_time_with_a_frozen_broker(stack, bootstrap, unique_name, monkeypatch):
    """With a broker that takes connections and never answers, commits and stops come to an end."""
    monkeypatch.setattr("dispatcher.kafka.consumer.COMMIT_SECONDS", 1.0)
    monkeypatch.setattr("dispatcher.kafka.consumer._STOP_SECONDS", 1.0)
    monkeypatch.setattr("dispatcher.kafka.lag.PING_SECONDS", 1.0)
    settings = quick(bootstrap)
    topic = await make_topic(bootstrap, unique_name("out"))
    await publish(bootstrap, topic, VALUES)
    producer = KafkaProducer(settings, max_record_bytes=1000)
    await producer.start()
    await producer.produce(OutgoingRecord(topic, b"k", b"v", ()))
    lags = LagReader(settings)
    assert await lags.ping()
    listener = Listener(commit=False)
    async with asyncio.timeout(60):
        async with member(settings, unique_name("g"), topic, listener=listener):
            await listener.read_until(lambda: len(listener.received) >= 20, "all")
            stack.kafka_process.pause()
            try:
                waiting = producer.produce(OutgoingRecord(topic, b"k", b"v", ()))
                assert not await listener.commit_done()
                assert not await lags.ping()
                await producer.stop(timeout_seconds=0.2)
                assert waiting.cancelled()
                await lags.stop()
                await listener.consumer.stop()
                assert listener.revoked_epochs == [1]
            finally:
                stack.kafka_process.resume()


async def test_a_member_outlives_its_broker(stack, bootstrap, unique_name, monkeypatch):
    """A member whose broker is killed and comes back goes on, and loses no record."""
    monkeypatch.setattr("dispatcher.kafka.consumer.COMMIT_SECONDS", 1.0)
    settings = quick(bootstrap)
    group, topic = unique_name("g"), await make_topic(bootstrap, unique_name("events"), 2)
    await publish(bootstrap, topic, VALUES)
    async with member(settings, group, topic) as listener:
        await listener.read_until(lambda: len(listener.received) == 20, "the first")
        assert await listener.commit_done()
        await stack.kafka_process.kill()
        end = time.monotonic() + 1
        while time.monotonic() < end:
            try:
                await listener.read()
            except UnavailableError:
                await asyncio.sleep(0.1)
        assert not await listener.commit_done()
        await stack.kafka_process.start()
        await publish(bootstrap, topic, VALUES, partition=1)
        wanted = {(0, n) for n in range(20)} | {(1, n) for n in range(20)}
        await listener.read_until(lambda: {(r.partition, r.offset) for r in listener.received} == wanted, "the rest")
        deadline = time.monotonic() + 20
        while not await listener.commit_done():
            assert time.monotonic() < deadline
            await listener.read()
        assert listener.consumer.failure is None
    assert sum(offset for offset, _ in (await committed(bootstrap, group)).values()) == 40


async def test_corrupt_batches_cost_only_themselves(stack, bootstrap, unique_name):
    """A flipped bit, an unknown codec and broken compression become unreadable records; their neighbours come."""
    settings = quick(bootstrap)
    group, topic = unique_name("g"), await make_topic(bootstrap, unique_name("events"), 2)
    log = stack.folder / "kafka" / f"{topic}-0" / "00000000000000000000.log"
    for codec in (None, None, None, "zstd", None):
        await _one_batch(bootstrap, topic, codec)
    await publish(bootstrap, topic, VALUES, partition=1)
    data = bytearray(log.read_bytes())
    batches = list(_batches(data))
    assert len(batches) == 5
    data[batches[1][1] - 3] ^= 0x40  # the checksum differs
    _change(data, *batches[2], attributes=6)  # a codec nobody knows
    start, end = batches[3]
    data[start + HEADER.size : start + HEADER.size + 20] = b"\xff" * 20
    _change(data, start, end)
    with log.open("r+b") as file:
        file.write(data)
    async with member(settings, group, topic) as listener:
        await listener.read_until(lambda: len(listener.received) == 15 + 20, "all")
        assert await listener.commit_done()
    zero = [record for record in listener.received if record.partition == 0]
    assert [record.offset for record in zero] == list(range(15))
    bad = [record for record in zero if isinstance(record, UnreadableRecord)]
    assert [record.offset for record in bad] == list(range(3, 12))
    assert [bad[index].problem.split("(")[0].strip() for index in (0, 3, 6)] == [
        "the record batch is corrupt",
        "the record batch is compressed with an unknown codec",
        "the record batch can't be decompressed: DecompressionError",
    ]
    assert [r.value for r in listener.received if r.partition == 1] == VALUES
    assert (await committed(bootstrap, group))[topic, 0] == (15, "")
    async with member(settings, group, topic) as listener:
        await until(lambda: listener.partitions, "the assignment")
        assert listener.assignments == [{(topic, 0): CommitPoint(15), (topic, 1): CommitPoint(20)}]


async def _one_batch(bootstrap, topic, codec):
    async with foreign_producer(bootstrap, compression_type=codec) as producer:
        batch = producer.create_batch()
        for number in range(3):
            batch.append(timestamp=None, key=b"k", value=b"%d" % number * 100, headers=[])
        batch.close()
        await (await producer.send_batch(batch, topic, partition=0))


def _batches(data):
    start = 0
    while start < len(data):
        length = struct.unpack_from(">i", data, start + 8)[0]
        yield start, start + 12 + length
        start += 12 + length


def _change(data, start, end, attributes=None):
    """Change a batch and make its checksum right again."""
    if attributes is not None:
        struct.pack_into(">h", data, start + ATTRIBUTES_AT, attributes)
    struct.pack_into(">I", data, start + CRC_AT, calc_crc32c(bytes(data[start + ATTRIBUTES_AT : end])))
