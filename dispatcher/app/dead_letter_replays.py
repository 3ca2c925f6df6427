"""Replays of dead letters by an operator's command: on whatever Kafka and MongoDB the settings name."""

import os
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager

from dispatcher.app.clock import SystemClock, draw
from dispatcher.app.connections import kafka_producer
from dispatcher.app.dead_letters import TopicLetters, open_letters
from dispatcher.core.dead_letters import DeadLetter, DeadLetterFilter
from dispatcher.core.handled_letters import HandledLetters
from dispatcher.core.letter_choice import LetterChoice, Standing
from dispatcher.core.reruns import SourceSpan
from dispatcher.core.topics import TopicNames
from dispatcher.kafka.reader import RecordReader
from dispatcher.kafka.replay_topic import ReplayTopicReader
from dispatcher.mongo.dead_letter_replays import MongoDeadLetterReplays
from dispatcher.mongo.delivery_log import MongoDeliveryLog
from dispatcher.mongo.webhooks import MongoWebhooks
from dispatcher.operations.catalogue import load_catalogue
from dispatcher.pipeline.backfill import Acceptance
from dispatcher.pipeline.dead_letter_deliveries import LetterDeliveries
from dispatcher.pipeline.dead_letter_events import LetterEvents
from dispatcher.pipeline.dead_letter_replay import DeadLetterReplays, LetterOutside
from dispatcher.settings import DEAD_LETTER, Settings

_FETCH_BYTES = 256 * 1024


class LettersToReplay:
    """Chooses dead letters from their topic; implements `dispatcher.ports.LetterChooser`.

    Args:
        letters: The topic, and what of it was dealt with.
    """

    def __init__(self, letters: TopicLetters) -> None:
        self._letters = letters

    async def snapshot(self, since_ms: int | None = None, until_ms: int | None = None) -> Sequence[SourceSpan]:
        """Return what is on the topic now, partition by partition."""
        return await self._letters.reader.snapshot(since_ms, until_ms)

    async def choose(
        self, spans: Sequence[SourceSpan], wanted: DeadLetterFilter, read: Callable[[int], None]
    ) -> "ChosenLetters":
        """Find out which letters of these spans a filter wants."""
        # What was dealt with is told of as such, and not left out.
        choice, with_types = LetterChoice(wanted), _asks_for_values(wanted)
        async with aclosing(self._letters.reader.read(spans, with_types=with_types)) as batches:
            async for batch in batches:
                for letter in batch.letters:
                    choice.take(letter)
                read(batch.done)
        return ChosenLetters(self._letters, choice, spans, await self._letters.handled(spans))

    async def handle(self, letters: Sequence[DeadLetter], by: str, *, moved: bool = False) -> None:
        """Mark letters as dealt with, and their deliveries where they went to another webhook."""
        await self._letters.handle(letters, by, in_log=moved)


class ChosenLetters:
    """Letters that were chosen; implements `dispatcher.ports.ChosenLetters`.

    Args:
        letters: The topic, and what of it was dealt with.
        choice: Has seen all letters.
        spans: Where they are.
        handled: Which of them were dealt with.
    """

    def __init__(
        self, letters: TopicLetters, choice: LetterChoice, spans: Sequence[SourceSpan], handled: HandledLetters
    ) -> None:
        self.count = choice.counts.total
        self._letters = letters
        self._choice = choice
        self._spans = spans
        self._handled = handled

    async def read(self, spans: Sequence[SourceSpan]) -> AsyncGenerator[Sequence[DeadLetter], None]:
        """Yield those that lie in these spans, of one span after the other."""
        choice = self._choice
        # One at a time: how far a replay is, is told by one place.
        reader, with_types = self._letters.reader, _asks_for_values(choice.wanted)
        async with aclosing(reader.read(spans, with_types=with_types, at_once=1)) as batches:
            async for batch in batches:
                yield [letter for letter in batch.letters if choice.standing(letter) is Standing.CHOSEN]

    def is_handled(self, letter: DeadLetter) -> bool:
        """Say whether a letter was dealt with when it was last looked."""
        return self._handled.has_letter(letter)

    async def look_again(self) -> None:
        """Find out what was dealt with since."""
        self._handled = await self._letters.handled(self._spans)


def _asks_for_values(wanted: DeadLetterFilter) -> bool:
    """Say whether a filter asks for what only the letters' values say (the workspace: of those without a delivery)."""
    return wanted.event_type is not None or wanted.workspace_id is not None


@asynccontextmanager
async def dead_letter_replays(settings: Settings) -> AsyncIterator[DeadLetterReplays]:
    """Open what replaying dead letters takes.

    Raises:
        SettingsError: The event catalogue is wrong.
        UnavailableError: Kafka or MongoDB is out of reach.
        MisconfiguredError: Kafka refuses the credentials.
    """
    catalogue = load_catalogue(settings.catalogue.schemas_dir)
    acceptance = Acceptance(
        settings.topics.default_workspace,
        settings.topics.max_event_bytes,
        catalogue if settings.catalogue.policy == DEAD_LETTER else None,
    )
    clock, names = SystemClock(), TopicNames(settings.topics.prefix, settings.topics.tiers)
    records = RecordReader(settings.kafka, max_bytes=_FETCH_BYTES)
    try:
        async with open_letters(settings) as (letters, connection), kafka_producer(settings) as producer:
            webhooks, log = MongoWebhooks(connection.webhooks), MongoDeliveryLog(connection.deliveries)
            outside = LetterOutside(
                LettersToReplay(letters),
                ReplayTopicReader(settings.kafka, settings.topics, records),
                MongoDeadLetterReplays(connection.dead_letter_replays),
                webhooks,
                log,
                producer,
                clock,
                None if letters.audit is None else letters.audit.began,
            )
            # Process ids come again: chance tells this process from one that held a replay before.
            owner = f"{socket.gethostname()}-{os.getpid()}-{draw(4).hex()}"
            yield DeadLetterReplays(
                outside,
                LetterDeliveries(webhooks, log, records, clock, names.replay),
                LetterEvents(webhooks, webhooks, log, records, clock, names, acceptance),
                owner,
                draw,
            )
    finally:
        await records.stop()
