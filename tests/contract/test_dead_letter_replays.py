"""Replays of dead letters are kept the same in memory and in MongoDB; the replay topic tells what carries their id."""

from dataclasses import replace

import pytest

from dispatcher.core.dead_letter_replays import Fate, LetterReplay, ReplayChoice, ReplayStage
from dispatcher.core.dead_letters import DeadLetterFilter
from dispatcher.core.errors import MisconfiguredError
from dispatcher.core.model import Origin
from dispatcher.core.records import DeliveryRecord
from dispatcher.core.reruns import SourceSpan
from dispatcher.kafka.reader import RecordReader
from dispatcher.kafka.replay_topic import ReplayTopicReader
from dispatcher.mongo.dead_letter_replays import MongoDeadLetterReplays
from tests.deployment import deploy, event, make_settings
from tests.fakes.dead_letters import MemoryDeadLetterReplays
from tests.mongo_support import open_database

CHOICE = ReplayChoice(
    DeadLetterFilter("acme", "wh_1", "user.*", "gone", "5xx", 5, 99), "wh_2", True, True, True, 2.5, 7
)  # fmt: skip
SPAN = SourceSpan("webhooks.dead-letter", 3, 7, 99)


@pytest.fixture(params=["memory", "mongo"])
async def store(request, services, unique_name):
    if request.param == "memory":
        yield MemoryDeadLetterReplays()
        return
    async with open_database(services.mongo_uri, unique_name("letters")) as connection:
        yield MongoDeadLetterReplays(connection.dead_letter_replays)


def replay(number=1, choice=CHOICE, **changes):
    return replace(LetterReplay(f"rpl_{number}", choice, 1_000, (SPAN,), (SPAN,), {0: 5, 2: 7}, 40), **changes)


async def test_a_replay_is_kept_as_it_is(store):
    """Everything that was asked for, and how far it is, comes back as it was stored."""
    await store.insert(replay(), "a", 1_000)
    assert await store.like(CHOICE) == [replay()]
    later = replay(
        whole=(replace(SPAN, end=60),), left=(replace(SPAN, position=50),), fates={Fate.REPLAYED: 3, Fate.GONE: 1}
    )
    assert await store.store(later, "a", 2_000)
    assert await store.like(CHOICE) == [later]
    assert await store.take_over("rpl_1", "b", 3_000) == later


async def test_one_owner_at_a_time(store):
    """Who was taken over stores nothing any more; a done replay is nobody's to go on with; an unknown one is None."""
    await store.insert(replay(), "a", 1_000)
    await store.store(replay(stage=ReplayStage.STOPPED), "a", 1_000)
    taken = await store.take_over("rpl_1", "b", 2_000)
    assert taken is not None
    assert taken.stage is ReplayStage.RUNNING
    assert not await store.store(replay(fates={Fate.REPLAYED: 9}), "a", 3_000)
    assert await store.store(replay(stage=ReplayStage.DONE), "b", 3_000)
    done = await store.take_over("rpl_1", "c", 4_000)
    assert done == replay(stage=ReplayStage.DONE)
    assert await store.store(done, "b", 5_000)
    assert await store.take_over("rpl_none", "c", 4_000) is None


async def test_alike_are_those_with_the_same_filters_and_target(store):
    """Found are replays that differ in times and manner alone, the latest first."""
    alike = ReplayChoice(replace(CHOICE.wanted, since_ms=None), "wh_2", True)
    other = ReplayChoice(CHOICE.wanted, "wh_3", True)
    for number, choice in enumerate((CHOICE, other, alike)):
        await store.insert(replay(number, choice), "a", 1_000)
    assert [each.id for each in await store.like(CHOICE)] == ["rpl_2", "rpl_0"]


@pytest.fixture
async def deployment(services, unique_name):
    async with deploy(make_settings(services.kafka_bootstrap, services.mongo_uri, unique_name("rpl"))) as made:
        yield made


async def test_the_replay_topic_tells_what_carries_an_id(deployment):
    """From the offsets on that are given, the deliveries of one replay are found, in every partition and batch."""
    reader = RecordReader(deployment.settings.kafka, max_bytes=4_096)
    topic = ReplayTopicReader(deployment.settings.kafka, deployment.settings.topics, reader)
    try:
        assert await topic.ends() == {}
        assert await topic.delivery_ids("rpl_1", {}) == frozenset()
        await _put(deployment, "rpl_1", range(20))
        ends = await topic.ends()
        assert sum(ends.values()) == 20
        await _put(deployment, "rpl_1", range(20, 200))
        await _put(deployment, "rpl_2", range(200, 300))
        expected = {f"del_{number}" for number in range(20, 200)}
        assert await topic.delivery_ids("rpl_1", ends) == expected
        assert await topic.delivery_ids("rpl_1", {}) == expected | {f"del_{number}" for number in range(20)}
        assert await topic.delivery_ids("rpl_3", {}) == frozenset()
    finally:
        await reader.stop()


async def test_without_a_replay_topic_the_words_say_what_to_do(deployment):
    """Where the topic was never made, the command that makes it is named."""
    reader = RecordReader(deployment.settings.kafka)
    missing = replace(deployment.settings.topics, prefix="none")
    try:
        with pytest.raises(MisconfiguredError, match="topics ensure"):
            await ReplayTopicReader(deployment.settings.kafka, missing, reader).ends()
    finally:
        await reader.stop()


async def _put(deployment, replay_id, numbers):
    origin = Origin("events", 0, 7, 1)
    for number in numbers:
        record = DeliveryRecord(f"del_{number}", f"wh_{number}", "acme", 0, 0, 0, None, origin, replay_id=replay_id)
        await deployment.put(deployment.names.replay, record, event(number))
