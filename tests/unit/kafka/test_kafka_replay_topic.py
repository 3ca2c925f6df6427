"""Reading the replay topic to find what a replay sent; the fetches are stand-ins."""

from collections import deque

import pytest

from dispatcher.core.errors import UnavailableError
from dispatcher.core.reruns import SourceSpan
from dispatcher.kafka import replay_topic
from dispatcher.kafka.replay_topic import ReplayTopicReader
from dispatcher.settings import KafkaSettings, TopicSettings
from tests.fakes.kafka import StoredRecord


class Records:
    """What a fetch brings."""

    def __init__(self, position, *entries):
        self.position, self.entries = position, entries


@pytest.fixture
def reader(monkeypatch):
    """Give a reader of one partition with two offsets, and the fetches that it gets one after the other."""
    fetches = deque()

    class Fetches:
        async def read_from(self, _topic, _partition, _offset):
            return fetches.popleft() if len(fetches) > 1 else fetches[0]

    async def spans(_kafka, topic):
        return [SourceSpan(topic, 0, 0, 2)]

    monkeypatch.setattr(replay_topic, "topic_spans", spans)
    monkeypatch.setattr(replay_topic, "PAUSE_SECONDS", 0)
    return ReplayTopicReader(KafkaSettings("nowhere:1"), TopicSettings(), Fetches()), fetches


def record(offset, run):
    headers = (("dispatcher-replay-id", run), ("dispatcher-delivery-id", f"del_{offset}".encode()))
    return StoredRecord("webhooks.replay", 0, offset, 0, None, None, headers)


async def test_an_empty_fetch_is_asked_for_again(reader):
    """Kafka may bring nothing for a moment; what it brings then counts."""
    topic, fetches = reader
    fetches.extend(
        [Records(0), Records(0), Records(1, record(0, b"rpl_1")), Records(1), Records(2, record(1, b"rpl_2"))]
    )
    assert await topic.delivery_ids("rpl_1", {}) == {"del_0"}
    assert len(fetches) == 1


async def test_kafka_that_holds_back_what_it_has_is_told_of(reader, monkeypatch):
    """Where nothing comes for long, the one who asked is told so, and when to try again."""
    topic, fetches = reader
    monkeypatch.setattr(replay_topic, "PATIENCE_SECONDS", -1)
    fetches.append(Records(0))
    with pytest.raises(UnavailableError, match="try again when"):
        await topic.delivery_ids("rpl_1", {})
