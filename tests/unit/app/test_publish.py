"""Publishing events, to a producer that is a stand-in."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from dispatcher.app import publish as publishing
from dispatcher.app.publish import MAX_UNDER_WAY, Publication, publish
from dispatcher.core.errors import InvalidInputError, MisconfiguredError
from dispatcher.ports import RejectedRecordError
from dispatcher.settings import CatalogueSettings, KafkaSettings, MongoSettings, Settings, TopicSettings


class Producer:
    """Acknowledges what is produced a little later, or fails it."""

    def __init__(self, error=None):
        self.records = []
        self.under_way = self.most_under_way = 0
        self._error = error

    def produce(self, record):
        """Note a record."""
        self.records.append(record)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(self._end, future)
        return future

    def _end(self, future):
        self.under_way -= 1
        if future.cancelled():
            return
        if self._error:
            future.set_exception(self._error)
        else:
            future.set_result(None)


@pytest.fixture
def producing(monkeypatch):
    def use(producer):
        @asynccontextmanager
        async def connected(_settings):
            yield producer

        monkeypatch.setattr(publishing, "kafka_producer", connected)
        return producer

    return use


def settings_with(**topics):
    catalogue = CatalogueSettings()
    return Settings(KafkaSettings("k:1"), MongoSettings(""), (), topics=TopicSettings(**topics), catalogue=catalogue)


async def test_events_are_envelopes_with_an_id_of_their_own(producing):
    """Each record is the plain JSON envelope that source topics take, on the first source topic."""
    producer = producing(Producer())
    wanted = Publication("user.created", '{"id":7}', "acme", 2)
    result = await publish(settings_with(source_topics=("a", "b")), wanted, lambda _: None)
    first, second = (json.loads(record.value) for record in producer.records)
    assert (result.topic, result.count, result.first_id) == ("a", 2, first["id"])
    assert list(first) == ["id", "type", "created_at", "workspace_id", "data"]
    assert (first["type"], first["workspace_id"], first["data"]) == ("user.created", "acme", {"id": 7})
    assert first["id"].startswith("evt_")
    assert first["id"] != second["id"]
    assert first["created_at"].endswith("Z")


async def test_many_events_are_under_way_in_a_bounded_number(producing):
    """A hundred thousand events don't fill the memory, and progress reaches the count."""
    producer, told = producing(Producer()), []
    await publish(settings_with(default_workspace="w"), Publication("a", "1", count=3 * MAX_UNDER_WAY), told.append)
    assert producer.most_under_way <= MAX_UNDER_WAY
    assert told == sorted(told)
    assert told[-1] == 3 * MAX_UNDER_WAY == len(producer.records)


async def test_without_data_the_catalogues_sample_is_sent(producing):
    """A known type has a sample, an unknown one an empty object and a note of it."""
    producer = producing(Producer())
    settings = settings_with(default_workspace="w")
    assert (await publish(settings, Publication("user.created"), lambda _: None)).sample_used
    assert not (await publish(settings, Publication("odd.type"), lambda _: None)).sample_used
    known, odd = (json.loads(record.value)["data"] for record in producer.records)
    assert known["user"]["id"].startswith("usr_")
    assert odd == {}


@pytest.mark.parametrize(
    ("topics", "wanted", "field"),
    [
        ({"source_topics": (), "source_pattern": "^e"}, Publication("a", "1", "w"), "topic"),
        ({}, Publication("a b", "1", "w"), "type"),
        ({}, Publication("a", "{", "w"), "data"),
        ({}, Publication("a", "1"), "workspace"),
        ({}, Publication("a", "1", "w w"), "workspace"),
    ],
)
async def test_what_would_be_a_dead_letter_is_refused(producing, topics, wanted, field):
    """The command doesn't publish what the dispatcher couldn't take, and names what is wrong."""
    producer = producing(Producer())
    with pytest.raises(InvalidInputError) as caught:
        await publish(settings_with(**topics), wanted, lambda _: None)
    assert list(caught.value.fields) == [field]
    assert producer.records == []


async def test_a_named_topic_wins(producing):
    """--topic makes publishing possible where the source topics are a pattern."""
    producer = producing(Producer())
    settings = settings_with(source_topics=(), source_pattern="^e")
    await publish(settings, Publication("a", "1", "w", topic="events.eu"), lambda _: None)
    assert producer.records[0].topic == "events.eu"


@pytest.mark.parametrize(
    ("error", "seen"),
    [(RejectedRecordError("too large"), InvalidInputError), (MisconfiguredError("no topic"), MisconfiguredError)],
)
async def test_what_kafka_refuses_is_said(producing, error, seen):
    """A refused event is the caller's to mend, a missing topic the operator's; neither is a traceback."""
    producing(Producer(error))
    with pytest.raises(seen):
        await publish(settings_with(default_workspace="w"), Publication("a", "1", count=5), lambda _: None)
