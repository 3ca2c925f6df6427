"""Reading many records by their coordinates, on a real broker."""

from unittest import mock

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from dispatcher.kafka import reader as module
from dispatcher.kafka.reader import RecordReader
from tests.kafka_support import admin_client, make_topic, publish, quick


@pytest.fixture
def bootstrap(services):
    return services.kafka_bootstrap


@pytest.fixture
async def reader(bootstrap):
    reader = RecordReader(quick(bootstrap), max_bytes=4096)
    yield reader
    await reader.stop()


async def test_neighbours_cost_one_fetch(bootstrap, reader, unique_name):
    """Whatever the order they are asked in, all are found, each as a single read finds it; few fetches bring them."""
    topic = await make_topic(bootstrap, unique_name("many"), 2)
    for partition in (0, 1):
        await publish(bootstrap, topic, [b"%d-%d" % (partition, number) for number in range(50)], partition)
    wanted = [(topic, partition, offset) for offset in range(49, -1, -3) for partition in (0, 1)]
    with mock.patch.object(module, "fetch", wraps=module.fetch) as fetch:
        found = await reader.read_many([*wanted, *wanted])
    assert fetch.call_count <= 4
    assert set(found) == set(wanted)
    assert all(record.value == b"%d-%d" % key[1:] for key, record in found.items())
    assert found[wanted[0]].timestamp == (await reader.read(*wanted[0])).timestamp


async def test_what_is_not_there_is_left_out(bootstrap, reader, unique_name):
    """Expired and future offsets and unknown topics are missing, and keep nothing else from being found."""
    topic = await make_topic(bootstrap, unique_name("many"))
    await publish(bootstrap, topic, [b"%d" % number for number in range(10)])
    async with admin_client(bootstrap) as admin:
        await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=4)})
    asked = [(topic, 0, offset) for offset in (0, 3, 4, 9, 10, 99)]
    found = await reader.read_many([*asked, (unique_name("none"), 0, 0), (topic, 7, 0)])
    assert {key[2]: record.value for key, record in found.items()} == {4: b"4", 9: b"9"}


async def test_large_records_are_all_read(bootstrap, reader, unique_name):
    """Records beyond the fetch size come one by one."""
    topic = await make_topic(bootstrap, unique_name("many"))
    await publish(bootstrap, topic, [bytes([65 + number]) * 200_000 for number in range(4)])
    found = await reader.read_many((topic, 0, offset) for offset in range(4))
    assert [found[topic, 0, offset].value[:1] for offset in range(4)] == [b"A", b"B", b"C", b"D"]
