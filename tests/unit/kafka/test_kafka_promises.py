"""What aiokafka is asked for, where its defaults would lose records."""

import contextlib

import pytest

from dispatcher.kafka import consumer as consumer_module
from dispatcher.kafka import producer as producer_module
from dispatcher.kafka.consumer import KafkaConsumer
from dispatcher.kafka.producer import KafkaProducer
from dispatcher.settings import KafkaSettings


class _AskedError(Exception):
    """Ends the start where the client would be made."""


@pytest.fixture
def asked(monkeypatch):
    """Catch the arguments that the clients are made with."""
    arguments = {}

    def make(**given):
        arguments.update(given)
        raise _AskedError

    monkeypatch.setattr(producer_module, "AIOKafkaProducer", make)
    monkeypatch.setattr(consumer_module, "AIOKafkaConsumer", make)
    return arguments


async def test_all_in_sync_replicas_acknowledge_and_batches_expire(asked):
    """The producer asks for acks of all, without idempotence, which would keep its batches for ever."""
    with contextlib.suppress(_AskedError):
        await KafkaProducer(KafkaSettings("k:1"), max_record_bytes=1000).start()
    assert (asked["acks"], asked["enable_idempotence"]) == ("all", False)
    assert "transactional_id" not in asked
    assert asked["max_request_size"] > 1000


@pytest.mark.parametrize("rebalance_timeout_ms", [30_000, 600_000])
async def test_the_consumer_commits_itself_and_reads_from_the_beginning(asked, rebalance_timeout_ms):
    """No commit by itself, no start at the end, only what is committed, one assignor; JoinGroup has time to wait."""
    settings = KafkaSettings("k:1", rebalance_timeout_ms=rebalance_timeout_ms)
    with contextlib.suppress(_AskedError):
        await KafkaConsumer(settings, group="g", topics=("t",)).start(None)
    assert asked["enable_auto_commit"] is False
    assert asked["auto_offset_reset"] == "earliest"
    assert asked["isolation_level"] == "read_committed"
    assert len(asked["partition_assignment_strategy"]) == 1
    assert "group_instance_id" not in asked
    assert asked["rebalance_timeout_ms"] < asked["request_timeout_ms"]
    assert asked["heartbeat_interval_ms"] < asked["session_timeout_ms"]
