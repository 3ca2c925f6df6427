"""One dead letter, with all that helps to decide what to do about it."""

import re
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

from dispatcher.app.dead_letters import Tell, TopicLetters, total
from dispatcher.core.dead_letters import DeadLetter, DeadLetterFilter
from dispatcher.core.decoding import decode
from dispatcher.core.delivery_log import LoggedDelivery
from dispatcher.core.errors import InvalidInputError, NotFoundError, UndecodableError
from dispatcher.core.model import DeadLetterReason, Webhook
from dispatcher.core.record_faults import RecordFault, fault_of
from dispatcher.core.records import BadRecord, DeliveryRecord, kept_headers
from dispatcher.core.reruns import SourceSpan
from dispatcher.kafka.dead_letters import LATE_MS
from dispatcher.kafka.reader import RecordReader
from dispatcher.mongo.client import Connection
from dispatcher.mongo.delivery_pages import MongoDeliveryPages
from dispatcher.mongo.webhooks import MongoWebhooks
from dispatcher.pipeline.intake import size_of
from dispatcher.ports import ConsumedRecord, UnreadableRecord
from dispatcher.settings import Settings, TopicSettings

DELIVERY_PREFIX = "del_"

_PLACE = re.compile(r"(?:(.*)-)?([0-9]{1,9})-([0-9]{1,18})")


@dataclass(frozen=True, slots=True)
class ShownRecord:
    """What became of the source record that a dead letter is about.

    Attributes:
        kept: Whether it is on its topic still.
        size_bytes: Key, value and headers; None where it can't be read.
        problem: Why it can't be read; empty where it can.
        fault: What is wrong with it by today's settings; None: it is an event now, or can't be looked at.
        value: Its value, or that of the dead letter; None where there is neither.
    """

    kept: bool
    size_bytes: int | None = None
    problem: str = ""
    fault: RecordFault | None = None
    value: bytes | None = None


@dataclass(frozen=True, slots=True)
class ShownLetter:
    """A dead letter, looked into.

    Attributes:
        topic: The dead-letter topic.
        letter: It.
        told: What its headers say; None where they can't be read.
        handled: Whether it was dealt with.
        own_headers: What of the publisher's headers was carried on.
        delivery: Its delivery as the log has it, with its attempts; None where the log has none, or none was asked for.
        webhook: Where the delivery goes; None where it is deleted.
        record: What became of the source record; None for a delivery.
    """

    topic: str
    letter: DeadLetter
    told: DeliveryRecord | BadRecord | None
    handled: bool
    own_headers: Mapping[str, bytes] = field(default_factory=dict)
    delivery: LoggedDelivery | None = None
    webhook: Webhook | None = None
    record: ShownRecord | None = None


class LetterView:
    """Shows dead letters.

    Args:
        letters: The topic.
        connection: MongoDB.
        settings: What an event is here.
    """

    def __init__(self, letters: TopicLetters, connection: Connection, settings: Settings) -> None:
        self._letters = letters
        self._log = MongoDeliveryPages(connection.deliveries)
        self._webhooks = MongoWebhooks(connection.webhooks)
        self._settings = settings

    async def find(self, where: str, tell: Tell) -> DeadLetter:
        """Find a dead letter by its delivery's id (the newest of the delivery) or its place.

        Args:
            where: `del_…`, or topic, partition and offset as in `webhooks.dead-letter-3-1042` or `3-1042`.
            tell: Called as the topic is read for it.

        Raises:
            InvalidInputError: It is neither.
            NotFoundError: There is none.
            UnavailableError: Kafka or MongoDB is out of reach.
        """
        if where.startswith(DELIVERY_PREFIX):
            return await self._newest_of(where, tell)
        partition, offset = self._place(where)
        letter = await self._letters.reader.read_at(partition, offset)
        if letter is None:
            topic = self._letters.reader.topic
            raise NotFoundError(
                f"there is no dead letter at partition {partition}, offset {offset} of {topic} (any more); "
                "dispatcher dead-letters list names some that are there"
            )
        return letter

    async def show(self, letter: DeadLetter) -> ShownLetter:
        """Gather what is known of a letter.

        Raises:
            UnavailableError: Kafka or MongoDB is out of reach.
        """
        here = SourceSpan(self._letters.reader.topic, letter.partition, letter.offset, letter.offset + 1)
        handled = (await self._letters.handled([here])).has_letter(letter)
        told = None if letter.problem else letter.told()
        own_headers = dict(kept_headers(letter.headers))
        match told:
            case DeliveryRecord():
                return ShownLetter(
                    here.topic,
                    letter,
                    told,
                    handled,
                    own_headers,
                    delivery=await self._log.get(told.workspace_id, told.subscription_id, told.delivery_id),
                    webhook=await self._webhooks.get(told.workspace_id, told.subscription_id),
                )
            case BadRecord():
                record = await self._source_record(letter, told)
                return ShownLetter(here.topic, letter, told, handled, own_headers, record=record)
        return ShownLetter(here.topic, letter, None, handled, own_headers)

    async def _newest_of(self, delivery_id: str, tell: Tell) -> DeadLetter:
        """Read the topic for a delivery: first around the time that the log knows, then all of it."""
        found = None
        logged = await self._log.find(delivery_id)
        if logged is not None:
            around = DeadLetterFilter(since_ms=logged.updated_at_ms - LATE_MS, until_ms=logged.updated_at_ms + LATE_MS)
            found = await self._read_for(delivery_id, around)
        if found is None:
            found = await self._read_for(delivery_id, DeadLetterFilter(), tell)
        if found is None:
            raise NotFoundError(
                f"no dead letter of {delivery_id} is on {self._letters.reader.topic} (any more)"
                + ("" if logged is None else f"; in the delivery log it is {logged.status.value}")
            )
        return found

    async def _read_for(
        self, delivery_id: str, wanted: DeadLetterFilter, tell: Tell | None = None
    ) -> DeadLetter | None:
        spans = await self._letters.snapshot(wanted)
        newest: DeadLetter | None = None
        async with aclosing(self._letters.reader.read(spans, with_types=False)) as batches:
            async for batch in batches:
                for letter in batch.letters:
                    if letter.delivery_id != delivery_id:
                        continue
                    if newest is None or letter.timestamp_ms >= newest.timestamp_ms:
                        newest = letter
                if tell is not None:
                    tell(batch.done * 100 // total(spans))
        if newest is None:
            return None
        return await self._letters.reader.read_at(newest.partition, newest.offset)

    def _place(self, where: str) -> tuple[int, int]:
        found, own = _PLACE.fullmatch(where), self._letters.reader.topic
        if found is None:
            raise InvalidInputError({"where": f"write a delivery's id, del_…, or a place such as {own}-3-1042"})
        if found[1] not in {None, own}:
            raise InvalidInputError({"where": f"the dead-letter topic is {own}: write {own}-{found[2]}-{found[3]}"})
        return int(found[2]), int(found[3])

    async def _source_record(self, letter: DeadLetter, told: BadRecord) -> ShownRecord:
        reader = RecordReader(self._settings.kafka)
        origin = told.origin
        try:
            found = await reader.read_from(*origin.coordinates)
        finally:
            await reader.stop()
        entries = () if found is None else found.entries
        entry = next((each for each in entries if each.offset == origin.offset), None)
        if isinstance(entry, UnreadableRecord):
            return ShownRecord(kept=True, problem=entry.problem, value=letter.value)
        if entry is None or origin.timestamp_ms not in (-1, entry.timestamp):
            if letter.value is None:
                return ShownRecord(kept=False)
            return ShownRecord(
                kept=False, fault=self._fault_of_letter(letter, told), value=letter.value, size_bytes=len(letter.value)
            )
        return shown_record(entry, told, self._settings.topics)

    def _fault_of_letter(self, letter: DeadLetter, told: BadRecord) -> RecordFault | None:
        kept = kept_headers(letter.headers)
        try:
            decode(letter.value, kept, told.origin, self._settings.topics.default_workspace)
        except UndecodableError as error:
            return fault_of(letter.value, error)
        return None


def shown_record(record: ConsumedRecord, told: BadRecord, topics: TopicSettings) -> ShownRecord:
    """Say what is wrong with a source record by today's settings.

    What the event catalogue had against it stays as its dead letter tells it.

    Args:
        record: As it is on its topic.
        told: Its dead letter.
        topics: What an event is here.
    """
    size = size_of(record)
    if size > topics.max_event_bytes:
        message = (
            f"key, value and headers have {size} bytes: {size - topics.max_event_bytes} more than "
            f"DISPATCHER_MAX_EVENT_BYTES allows ({topics.max_event_bytes})"
        )
        return ShownRecord(kept=True, size_bytes=size, fault=RecordFault(message, topics.max_event_bytes))
    try:
        decode(record.value, record.headers, told.origin, topics.default_workspace)
    except UndecodableError as error:
        return ShownRecord(kept=True, size_bytes=size, fault=fault_of(record.value, error), value=record.value)
    catalogued = told.reason in (DeadLetterReason.UNKNOWN_TYPE, DeadLetterReason.SCHEMA)
    fault = RecordFault(told.error, None) if catalogued else None
    return ShownRecord(kept=True, size_bytes=size, fault=fault, value=record.value)
