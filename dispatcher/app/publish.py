"""Puts events on a source topic, as a publisher would."""

import asyncio
import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from dispatcher.app.clock import SystemClock, draw
from dispatcher.app.connections import kafka_producer
from dispatcher.core.errors import InvalidInputError
from dispatcher.core.matching import TYPE
from dispatcher.core.model import WORKSPACE_ID
from dispatcher.operations.catalogue import load_catalogue
from dispatcher.operations.identifiers import Draw, new_id
from dispatcher.ports import Clock, OutgoingRecord, RecordProducer, RejectedRecordError
from dispatcher.settings import Settings, TopicSettings

MAX_UNDER_WAY = 2_000


@dataclass(frozen=True, slots=True)
class Publication:
    """Which events to publish.

    Attributes:
        event_type: Their type.
        data_json: Their `data` as JSON text; None takes the catalogue's sample.
        workspace_id: Their workspace; None takes the default workspace of the settings.
        count: How many, each with an id of its own.
        topic: Where to; None takes the first source topic.
    """

    event_type: str
    data_json: str | None = None
    workspace_id: str | None = None
    count: int = 1
    topic: str | None = None


@dataclass(frozen=True, slots=True)
class Published:
    """What was published.

    Attributes:
        topic: Where to.
        count: How many events Kafka has acknowledged.
        first_id: The id of the first.
        sample_used: False where neither data was given nor the catalogue had a sample: `data` is `{}`.
    """

    topic: str
    count: int
    first_id: str
    sample_used: bool


async def publish(settings: Settings, wanted: Publication, progress: Callable[[int], None]) -> Published:
    """Publish events; when it returns, all in-sync replicas have them.

    Args:
        settings: Where Kafka is, which topic, which catalogue.
        wanted: Which events.
        progress: Called with the number that was acknowledged so far.

    Raises:
        InvalidInputError: Type, data, workspace or topic are wrong; nothing was published.
        SettingsError: The sample is wanted, and the event catalogue is wrong.
        UnavailableError: Kafka is out of reach.
        MisconfiguredError: The topic does not exist, or Kafka refuses the credentials.
    """
    topic = wanted.topic or _source_topic(settings.topics)
    data, known = _data(settings, wanted)
    workspace_id = _checked(settings, wanted)
    async with kafka_producer(settings) as producer:
        made = _events(wanted, workspace_id, data, SystemClock(), draw)
        first_id = await send_all(producer, topic, made, progress)
    return Published(topic, wanted.count, first_id, known)


async def send_all(
    producer: RecordProducer, topic: str, made: Iterator[tuple[str, bytes]], progress: Callable[[int], None]
) -> str:
    """Send events, a bounded number at once.

    Args:
        producer: Started.
        topic: Where to.
        made: Id and JSON of each event; at least one.
        progress: Called with the number that was acknowledged so far.

    Returns:
        The id of the first event.

    Raises:
        InvalidInputError: Kafka refuses an event, as too large.
    """
    first_id, acknowledged = "", 0
    under_way: set[asyncio.Future[None]] = set()
    try:
        for event_id, value in made:
            first_id = first_id or event_id
            under_way.add(producer.produce(OutgoingRecord(topic, None, value, ())))
            if len(under_way) >= MAX_UNDER_WAY:
                acknowledged += await _some(under_way)
                progress(acknowledged)
        while under_way:
            acknowledged += await _some(under_way)
            progress(acknowledged)
    except RejectedRecordError as error:
        raise InvalidInputError({"data": f"Kafka refuses the event: {error}"}) from error
    finally:
        for future in under_way:
            future.cancel()
    return first_id


async def _some(under_way: set["asyncio.Future[None]"]) -> int:
    done, _ = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
    under_way -= done
    for future in done:
        future.result()
    return len(done)


def _events(
    wanted: Publication, workspace_id: str | None, data: Any, clock: Clock, random: Draw
) -> Iterator[tuple[str, bytes]]:
    for _ in range(wanted.count):
        event_id = new_id("evt_", random)
        created_at = dt.datetime.fromtimestamp(clock.now_ms() / 1000, dt.UTC)
        envelope: dict[str, Any] = {
            "id": event_id,
            "type": wanted.event_type,
            "created_at": created_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }
        if workspace_id is not None:
            envelope["workspace_id"] = workspace_id
        yield event_id, orjson.dumps({**envelope, "data": data})


def _source_topic(topics: TopicSettings) -> str:
    if not topics.source_topics:
        raise InvalidInputError({"topic": "the source topics are a pattern; name one topic with --topic"})
    return topics.source_topics[0]


def _data(settings: Settings, wanted: Publication) -> tuple[Any, bool]:
    if wanted.data_json is None:
        entry = load_catalogue(settings.catalogue.schemas_dir).get(wanted.event_type)
        return ({}, False) if entry is None else (entry.sample, True)
    try:
        return orjson.loads(wanted.data_json), True
    except orjson.JSONDecodeError as error:
        raise InvalidInputError({"data": f"this is no JSON ({error}); write such as '{{\"id\": 1}}'"}) from None


def _checked(settings: Settings, wanted: Publication) -> str | None:
    workspace_id = wanted.workspace_id or settings.topics.default_workspace
    problems = {}
    if TYPE.fullmatch(wanted.event_type) is None:
        problems["type"] = "write letters, digits, dots, hyphens and underscores, such as user.created"
    if workspace_id is None:
        problems["workspace"] = "name one with --workspace: events without one are dead letters here"
    elif WORKSPACE_ID.fullmatch(workspace_id) is None:
        problems["workspace"] = "write up to 64 letters, digits, dots, hyphens and underscores"
    if problems:
        raise InvalidInputError(problems)
    return workspace_id
