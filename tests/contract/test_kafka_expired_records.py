"""Records that expire under a member that reads too slowly."""

import io
import json
import logging

import pytest
import structlog
from aiokafka.admin import RecordsToDelete
from aiokafka.structs import TopicPartition

from dispatcher.app.logging import configure
from dispatcher.settings import LogSettings
from tests.kafka_support import admin_client, make_topic, member, publish, quick


@pytest.fixture
def log():
    """The process's log at its usual level, as a stream."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure(LogSettings(), stream=stream)
    yield stream
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


async def test_records_that_expire_unread_are_an_error_in_the_log(services, unique_name, log):
    """A member whose next records are gone goes on at the first that is there, and the log says so as an error."""
    bootstrap = services.kafka_bootstrap
    topic = await make_topic(bootstrap, unique_name("events"))
    values = [b"%d" % number for number in range(5)]
    await publish(bootstrap, topic, values)
    async with member(quick(bootstrap), unique_name("g"), topic) as listener:
        await listener.read_until(lambda: len(listener.received) == 5, "the first five")
        partition = TopicPartition(topic, 0)
        listener.consumer._consumer.pause(partition)
        await publish(bootstrap, topic, values)
        await publish(bootstrap, topic, values)
        async with admin_client(bootstrap) as admin:
            await admin.delete_records({partition: RecordsToDelete(before_offset=12)})
        listener.consumer._consumer.resume(partition)
        await listener.read_until(lambda: len(listener.received) == 8, "what is left")
    assert [record.offset for record in listener.received] == [0, 1, 2, 3, 4, 12, 13, 14]
    lost = [line for line in map(json.loads, log.getvalue().splitlines()) if "expired unread" in line["event"]]
    assert [line["level"] for line in lost] == ["error"]
    assert f"Fetch offset 5 is out of range for partition TopicPartition(topic='{topic}'" in lost[0]["event"]
