"""A broker that makes topics by itself whenever somebody asks for one by name."""

import pytest

from dispatcher.core.errors import MisconfiguredError
from dispatcher.kafka.consumer import KafkaConsumer
from dispatcher.kafka.lag import LagReader
from dispatcher.kafka.producer import KafkaProducer
from dispatcher.kafka.reader import RecordReader
from dispatcher.ports import OutgoingRecord
from tests.kafka_support import Listener, admin_client, foreign_producer, quick


async def topics_of(bootstrap):
    """List the topics, without asking for one by name."""
    async with admin_client(bootstrap) as admin:
        return {name for name in await admin.list_topics() if not name.startswith("__")}


async def test_asking_for_a_topic_never_makes_it(local_stack_factory, monkeypatch):
    """Consumer, producer, reader and lag leave a topic that doesn't exist unmade; a common client would make it."""
    monkeypatch.setattr("dispatcher.kafka.consumer.MISSING_TOPIC_GRACE_SECONDS", 0.5)
    stack = await local_stack_factory(mongo=False, kafka_properties={"auto.create.topics.enable": "true"})
    bootstrap = stack.kafka_bootstrap
    settings = quick(bootstrap)

    consumer = KafkaConsumer(settings, group="g", topics=("wrong-events",))
    with pytest.raises(MisconfiguredError, match="wrong-events"):
        await consumer.start(Listener())

    producer = KafkaProducer(settings, max_record_bytes=1000, unknown_topic_grace_seconds=0.5)
    await producer.start()
    with pytest.raises(MisconfiguredError, match="wrong-topic"):
        await producer.produce(OutgoingRecord("wrong-topic", b"k", b"v", ()))
    await producer.stop()

    reader, lag = RecordReader(settings), LagReader(settings)
    assert await reader.read("wrong-origin", 0, 0) is None
    assert await lag.lag("g", ["wrong-lag"]) == {}
    await reader.stop()
    await lag.stop()
    assert await topics_of(bootstrap) == set()

    async with foreign_producer(bootstrap) as other:
        await other.send_and_wait("made-by-another", b"v")
    assert await topics_of(bootstrap) == {"made-by-another"}
