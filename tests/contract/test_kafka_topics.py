"""Making and checking topics on a real broker."""

import asyncio
from dataclasses import replace

import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from dispatcher.core.retry import parse_tier
from dispatcher.core.topics import TopicNames
from dispatcher.kafka import topics
from dispatcher.settings import KafkaSettings, TopicSettings
from tests.kafka_support import admin_client, make_topic

DAY_MS = 86_400_000


@pytest.fixture
def kafka(services):
    return KafkaSettings(services.kafka_bootstrap, request_timeout_ms=10_000)


@pytest.fixture
def wanted(unique_name):
    return TopicSettings(
        prefix=unique_name("own"), source_topics=(), tiers=(parse_tier("1m"), parse_tier("6h")), partitions=2
    )


async def test_ensure_makes_what_check_asks_for(kafka, wanted):
    """After `ensure`, `check` finds nothing, and a second `ensure` does nothing."""
    names = TopicNames(wanted.prefix, wanted.tiers)
    assert await topics.check(kafka, wanted) == [f"{name}: doesn't exist" for name in names.own()]
    assert await topics.ensure(kafka, wanted) == [f"{name}: made" for name in names.own()]
    assert await topics.check(kafka, wanted) == []
    assert await topics.ensure(kafka, wanted) == []


async def test_two_at_once_do_not_get_in_each_others_way(kafka, wanted):
    """Two workers that start together both end well, and each topic is made once."""
    first, second = await asyncio.gather(topics.ensure(kafka, wanted), topics.ensure(kafka, wanted))
    assert len({*first, *second}) == len(first) + len(second) == len(TopicNames(wanted.prefix, wanted.tiers).own())
    assert await topics.check(kafka, wanted) == []


@pytest.mark.parametrize(
    ("key", "value", "needed"),
    [
        ("cleanup.policy", "compact", "delete"),
        ("message.timestamp.type", "LogAppendTime", "CreateTime"),
        ("retention.ms", str(7 * DAY_MS), str(7 * DAY_MS + 21_600_000)),
        ("retention.bytes", "1000000", "-1"),
        ("max.message.bytes", "1048576", str(1_048_576 + 65_536)),
    ],
)
async def test_each_mismatch_is_named_and_mended(kafka, wanted, key, value, needed):
    """A setting that differs is named with what is needed; `ensure` mends it and keeps the topic's other settings."""
    await topics.ensure(kafka, wanted)
    name = f"{wanted.prefix}.retry.6h"
    async with admin_client(kafka.bootstrap_servers) as admin:
        await admin.alter_configs(
            [ConfigResource(ConfigResourceType.TOPIC, name, {**_GOOD, key: value, "segment.bytes": "2000000"})]
        )
    for _ in range(500):  # brokers learn of changes one by one
        if problems := await topics.check(kafka, wanted):
            break
        await asyncio.sleep(0.02)
    assert problems == [f"{name}: {key} is {value}, needed is {needed}"]
    assert await topics.ensure(kafka, wanted) == [f"{name}: {key}={needed}"]
    assert await topics.check(kafka, wanted) == []
    async with admin_client(kafka.bootstrap_servers) as admin:
        (response,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
    configs = {entry[0]: entry[1] for entry in response.resources[0][4]}
    assert configs["segment.bytes"] == "2000000"


_GOOD = {
    "retention.ms": str(30 * DAY_MS),
    "retention.bytes": "-1",
    "max.message.bytes": "2000000",
    "cleanup.policy": "delete",
}


async def test_retention_without_end_is_enough(kafka, wanted):
    """Topics that keep their records for ever are fine."""
    await topics.ensure(kafka, wanted)
    async with admin_client(kafka.bootstrap_servers) as admin:
        configs = {**_GOOD, "retention.ms": "-1"}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, f"{wanted.prefix}.overflow", configs)])
    assert await topics.check(kafka, wanted) == []


async def test_too_few_partitions_are_named_and_added(kafka, wanted):
    """Own topics get the number of partitions that is asked for."""
    await topics.ensure(kafka, replace(wanted, partitions=1))
    assert f"{wanted.prefix}.replay: has 1 partitions, needed are 2" in await topics.check(kafka, wanted)
    done = await topics.ensure(kafka, wanted)
    assert f"{wanted.prefix}.replay: 2 partitions" in done
    assert await topics.check(kafka, wanted) == []


async def test_in_sync_replicas_count_only_where_there_are_three(unique_name):
    """Two in-sync replicas are asked for where there are three replicas, and not where there is one."""
    wanted = TopicSettings()
    configs = {
        "cleanup.policy": ("delete", 1),
        "message.timestamp.type": ("CreateTime", 5),
        "retention.ms": ("-1", 1),
        "retention.bytes": ("-1", 5),
        "max.message.bytes": ("9999999", 1),
        "min.insync.replicas": ("1", 5),
    }
    assert topics._differences(topics._Topic(8, 1, configs), wanted, 1) == []
    assert topics._differences(topics._Topic(8, 3, configs), wanted, 1) == [("min.insync.replicas", "2")]


async def test_missing_source_topics_are_named_and_not_made(kafka, wanted, unique_name):
    """A source topic is never made on the way, only on request, and then once."""
    name = unique_name("source")
    wanted = replace(wanted, source_topics=(name,))
    await topics.ensure(kafka, wanted)
    (problem,) = await topics.check(kafka, wanted)
    assert problem.startswith(f"{name}: this source topic doesn't exist")
    assert await topics.create_source_topic(kafka, wanted, name)
    assert not await topics.create_source_topic(kafka, wanted, name)
    assert await topics.check(kafka, wanted) == []


async def test_former_tiers_are_found_by_their_topics(kafka, wanted):
    """Tiers whose topics outlive the settings are returned, shortest first; look-alikes are not."""
    bootstrap = kafka.bootstrap_servers
    for name in ("10m", "2m", "1m", "60s", "old"):
        await make_topic(bootstrap, f"{wanted.prefix}.retry.{name}")
    assert await topics.former_tiers(kafka, wanted) == [parse_tier("2m"), parse_tier("10m")]
