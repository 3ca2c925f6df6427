"""Makes the own topics, and says where existing ones differ from what reliability needs.

Source topics belong to others: they are looked at, never made or changed, but for `create_source_topic`.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog
from aiokafka import errors
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from dispatcher.core.errors import TopicsError
from dispatcher.core.model import RetryTier
from dispatcher.core.retry import parse_tier
from dispatcher.core.topics import TopicNames
from dispatcher.kafka.client import CLOSE_SECONDS, as_dispatcher_error, bounded, client_arguments, why_unreachable
from dispatcher.settings import KafkaSettings, TopicSettings

HEADROOM_BYTES = 64 * 1024
"""What a topic must take beyond the largest event: own headers and the batch around it."""

_DAY_MS = 86_400_000
_SAFE_REPLICATION = 3
_SAFE_IN_SYNC = 2
_SEEN_SECONDS = 15.0
_PAUSE_SECONDS = 0.1
_SET_ON_TOPIC = 1  # a configuration's source: this topic itself

log = structlog.get_logger(__name__)

_Configs = Mapping[str, tuple[str, int]]  # name to value and source


@dataclass(frozen=True, slots=True)
class _Topic:
    """A topic as it is: partitions, the smallest replica set, settings."""

    partitions: int
    replication: int
    configs: _Configs


async def ensure(kafka: KafkaSettings, topics: TopicSettings) -> list[str]:
    """Make what is missing of the own topics and change what differs. Two may run at once.

    Returns:
        One line for each thing done; empty where all was well.

    Raises:
        TopicsError: Something still differs.
        UnavailableError: Kafka is out of reach.
        MisconfiguredError: It doesn't allow it.
    """
    done: list[str] = []
    async with _admin(kafka) as admin:
        wanted = _retentions(topics)
        existing = set(await admin.list_topics())
        missing = [name for name in wanted if name not in existing]
        done += [f"{name}: made" for name in missing if await _create(admin, name, topics, wanted[name])]
        found = await _seen(admin, list(wanted))
        for name, retention_ms in wanted.items():
            if name not in found:
                continue
            differing = dict(_differences(found[name], topics, retention_ms))
            if differing:
                await _alter(admin, name, found[name].configs, differing)
                done.append(f"{name}: {', '.join(f'{key}={value}' for key, value in differing.items())}")
            if found[name].partitions < topics.partitions:
                await _add_partitions(admin, name, topics.partitions)
                done.append(f"{name}: {topics.partitions} partitions")
        deadline = asyncio.get_running_loop().time() + _SEEN_SECONDS
        while problems := _problems(await _described(admin, list(wanted)), topics):
            if asyncio.get_running_loop().time() > deadline:
                raise TopicsError(problems)
            await asyncio.sleep(_PAUSE_SECONDS)
    return done


async def check(kafka: KafkaSettings, topics: TopicSettings) -> list[str]:
    """Compare the own topics with what the settings ask for, and see that named source topics exist.

    Returns:
        One line for each difference; empty where all is well.

    Raises:
        UnavailableError: Kafka is out of reach.
        MisconfiguredError: It doesn't allow it.
    """
    async with _admin(kafka) as admin:
        problems = _problems(await _described(admin, list(_retentions(topics))), topics)
        if topics.source_pattern is None:
            missing = sorted(set(topics.source_topics) - set(await admin.list_topics()))
            problems += [
                f"{name}: this source topic doesn't exist; whoever publishes to it makes it" for name in missing
            ]
    return problems


async def former_tiers(kafka: KafkaSettings, topics: TopicSettings) -> list[RetryTier]:
    """Return tiers that are not configured any more though their topics still exist, shortest first.

    Raises:
        UnavailableError: Kafka is out of reach.
        MisconfiguredError: It doesn't allow it.
    """
    start = f"{topics.prefix}.retry."
    configured = {tier.name for tier in topics.tiers}
    async with _admin(kafka) as admin:
        names = [name.removeprefix(start) for name in await admin.list_topics() if name.startswith(start)]
    tiers = []
    for name in set(names) - configured:
        try:
            tier = parse_tier(name)
        except ValueError:
            log.warning("a topic under the retry prefix is no tier's; it is left alone", topic=start + name)
            continue
        if tier.name == name:
            tiers.append(tier)
    return sorted(tiers, key=lambda tier: tier.delay_ms)


async def create_source_topic(kafka: KafkaSettings, topics: TopicSettings, name: str) -> bool:
    """Make a source topic where there is none: for local use, where nobody else would.

    Returns:
        Whether it was made; False where it existed.

    Raises:
        UnavailableError: Kafka is out of reach.
        MisconfiguredError: It doesn't allow it.
    """
    async with _admin(kafka) as admin:
        if name in await admin.list_topics():
            return False
        made = await _create(admin, name, topics, topics.retention_days * _DAY_MS)
        await _seen(admin, [name])
        return made


@asynccontextmanager
async def _admin(kafka: KafkaSettings) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(**client_arguments(kafka))
    try:
        try:
            await admin.start()
        except errors.KafkaError as error:
            raise await why_unreachable(kafka, error) from error
        try:
            yield admin
        except (errors.KafkaError, TimeoutError) as error:
            raise as_dispatcher_error(error, "looking after the topics") from error
    finally:
        await bounded(admin.close(), CLOSE_SECONDS, "admin client")


def _retentions(topics: TopicSettings) -> dict[str, int]:
    """Return the own topics with how long each must keep its records, in milliseconds."""
    names = TopicNames(topics.prefix, topics.tiers)
    keep_ms = topics.retention_days * _DAY_MS
    wanted = dict.fromkeys(names.own(), keep_ms)
    wanted.update({names.retry(tier): tier.delay_ms + keep_ms for tier in topics.tiers})
    wanted[names.dead_letter] = topics.dead_letter_retention_days * _DAY_MS
    return wanted


async def _create(admin: AIOKafkaAdminClient, name: str, topics: TopicSettings, retention_ms: int) -> bool:
    configs = {
        "cleanup.policy": "delete",
        "message.timestamp.type": "CreateTime",
        "retention.ms": str(retention_ms),
        "retention.bytes": "-1",
        "max.message.bytes": str(topics.max_event_bytes + HEADROOM_BYTES),
    }
    if topics.replication >= _SAFE_REPLICATION:
        configs["min.insync.replicas"] = str(_SAFE_IN_SYNC)
    # -1, the brokers' own default, is taken only beside an assignment, which may be an empty one.
    assignments: dict[int, list[int]] | None = {} if topics.replication == -1 else None
    new = NewTopic(name, topics.partitions, topics.replication, assignments, configs)
    response = await admin.create_topics([new])
    for _, code, message in response.topic_errors:
        error = errors.for_code(code)
        if error is errors.TopicAlreadyExistsError:
            return False
        if error is not errors.NoError:
            raise error(f"{name}: {message}")
    return True


async def _alter(admin: AIOKafkaAdminClient, name: str, configs: _Configs, changes: Mapping[str, str]) -> None:
    """Change settings of a topic; the request replaces all of them, so the topic's own others go along."""
    kept = {key: value for key, (value, source) in configs.items() if source == _SET_ON_TOPIC}
    resource = ConfigResource(ConfigResourceType.TOPIC, name, {**kept, **changes})
    for response in await admin.alter_configs([resource]):
        for code, message, *_ in response.resources:
            if code:
                raise errors.for_code(code)(f"{name}: {message}")


async def _add_partitions(admin: AIOKafkaAdminClient, name: str, count: int) -> None:
    try:
        await admin.create_partitions({name: NewPartitions(count)})
    except errors.InvalidPartitionsError:
        # Another has done it meanwhile, else the check afterwards says so.
        log.info("the topic has its partitions already", topic=name)


async def _seen(admin: AIOKafkaAdminClient, names: Sequence[str]) -> dict[str, _Topic]:
    """Describe topics, waiting for those just made: brokers learn of them one by one."""
    deadline = asyncio.get_running_loop().time() + _SEEN_SECONDS
    while True:
        found = await _described(admin, names)
        if len(found) == len(names) or asyncio.get_running_loop().time() > deadline:
            return found
        await asyncio.sleep(_PAUSE_SECONDS)


async def _described(admin: AIOKafkaAdminClient, names: Sequence[str]) -> dict[str, _Topic]:
    """Describe those of the topics that exist."""
    described = {
        topic["topic"]: topic["partitions"]
        for topic in await admin.describe_topics(None)
        if not topic["error_code"] and topic["partitions"]
    }
    there = [name for name in names if name in described]
    if not there:
        return {}
    configs: dict[str, _Configs] = {}
    for response in await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in there]):
        for code, message, _, name, entries in response.resources:
            error = errors.for_code(code)
            if error is errors.UnknownTopicOrPartitionError:
                continue
            if error is not errors.NoError:
                raise error(f"{name}: {message}")
            configs[name] = {key: (value, source) for key, value, _, source, *_ in entries}
    return {
        name: _Topic(len(described[name]), min(len(each["replicas"]) for each in described[name]), configs[name])
        for name in there
        if name in configs
    }


def _problems(found: Mapping[str, _Topic], topics: TopicSettings) -> list[str]:
    problems = []
    for name, retention_ms in _retentions(topics).items():
        topic = found.get(name)
        if topic is None:
            problems.append(f"{name}: doesn't exist")
            continue
        for key, value in _differences(topic, topics, retention_ms):
            is_now = topic.configs.get(key, ("unset", 0))[0]
            problems.append(f"{name}: {key} is {is_now}, needed is {value}")
        if topic.partitions < topics.partitions:
            problems.append(f"{name}: has {topic.partitions} partitions, needed are {topics.partitions}")
    return problems


def _differences(topic: _Topic, topics: TopicSettings, retention_ms: int) -> list[tuple[str, str]]:
    """Return the settings that a topic lacks, each with the least that is needed."""

    def number(key: str) -> int:
        return int(topic.configs.get(key, ("0", 0))[0])

    def text(key: str) -> str:
        return topic.configs.get(key, ("", 0))[0]

    least_bytes = topics.max_event_bytes + HEADROOM_BYTES
    differences = []
    if text("cleanup.policy") != "delete":
        differences.append(("cleanup.policy", "delete"))
    if text("message.timestamp.type") != "CreateTime":
        differences.append(("message.timestamp.type", "CreateTime"))
    if number("retention.ms") != -1 and number("retention.ms") < retention_ms:
        differences.append(("retention.ms", str(retention_ms)))
    if number("retention.bytes") != -1:
        # Else records fall off the end whatever their age.
        differences.append(("retention.bytes", "-1"))
    if number("max.message.bytes") < least_bytes:
        differences.append(("max.message.bytes", str(least_bytes)))
    if topic.replication >= _SAFE_REPLICATION and number("min.insync.replicas") < _SAFE_IN_SYNC:
        differences.append(("min.insync.replicas", str(_SAFE_IN_SYNC)))
    return differences
