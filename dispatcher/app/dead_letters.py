"""The dead-letter topic for the person on call: what is on it, and what of it is dealt with."""

import heapq
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass

from dispatcher.app.clock import SystemClock, draw
from dispatcher.app.connections import mongo_connection
from dispatcher.app.letter_audit import LetterAudit
from dispatcher.core.dead_letters import DeadLetter, DeadLetterFilter
from dispatcher.core.delivery_log import FailedFilter
from dispatcher.core.handled_letters import HandledLetters, marks_of
from dispatcher.core.letter_choice import LetterChoice, Standing
from dispatcher.core.records import REPLAY_ID
from dispatcher.core.reruns import CHANCE_BYTES, SourceSpan, new_run_id
from dispatcher.kafka.dead_letters import LATE_MS, DeadLetterReader
from dispatcher.mongo.audit import MongoAudit
from dispatcher.mongo.client import Connection
from dispatcher.mongo.delivery_log import MongoDeliveryLog
from dispatcher.mongo.failed_deliveries import MongoFailedDeliveries
from dispatcher.mongo.handled_letters import MongoHandledLetters
from dispatcher.operations.audit import Audit
from dispatcher.ports import Clock
from dispatcher.settings import Settings

PURGED_BY = "purge"
MARKED_AT_ONCE = 10_000

_EXAMPLES_KEPT = 4  # as many times as are shown: later letters may supersede some of them
_LOG_BATCH = 1_000

Tell = Callable[[int], None]
"""Called with the number of the topic's offsets that are behind."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found on the topic.

    Attributes:
        topic: Its name.
        choice: What was asked for; its counts are of those still to be dealt with.
        examples: The newest of these, the newest first; without their values.
        handled_too: Whether what was dealt with counts as well.
    """

    topic: str
    choice: LetterChoice
    examples: Sequence[DeadLetter]
    handled_too: bool = False


@dataclass(frozen=True, slots=True)
class Purged:
    """What was marked as handled.

    Attributes:
        deliveries: How many deliveries, or source records, are off the lists.
        letters: How many letters they had.
    """

    deliveries: int
    letters: int


class TopicLetters:
    """Reads the dead-letter topic, and knows what of it was dealt with.

    Args:
        reader: Reads the topic.
        handled: Knows what was dealt with.
        failed: Marks the same deliveries' failures in the delivery log.
        log: The delivery log.
        clock: Time.
        audit: Where it is written down what was purged; None: nowhere.
    """

    def __init__(
        self,
        reader: DeadLetterReader,
        handled: MongoHandledLetters,
        failed: MongoFailedDeliveries,
        log: MongoDeliveryLog,
        clock: Clock,
        audit: LetterAudit | None = None,
    ) -> None:
        self.audit = audit
        self.reader = reader
        self._handled = handled
        self._failed = failed
        self._log = log
        self._clock = clock

    async def snapshot(self, wanted: DeadLetterFilter) -> Sequence[SourceSpan]:
        """Return what is on the topic now of the filter's time.

        Raises:
            MisconfiguredError: There is no such topic, or Kafka refuses.
            UnavailableError: Kafka is out of reach.
        """
        return await self.reader.snapshot(wanted.since_ms, wanted.until_ms)

    async def handled(self, spans: Sequence[SourceSpan]) -> HandledLetters:
        """Return what of some spans was dealt with, here or in the API; raises `UnavailableError`."""
        found = await self._handled.load(spans)
        async for delivery_id in self._failed.handled_alone():
            found.add_delivery(delivery_id)
        return found

    async def past(self, spans: Sequence[SourceSpan], since_ms: int | None = None) -> HandledLetters:
        """Return what `handled` does, and what was sent again since: by the API's jobs, or one by one.

        Args:
            spans: From `snapshot`.
            since_ms: From when on letters are asked for, unix milliseconds; what was sent again before then says
                nothing of them.
        """
        found = await self.handled(spans)
        after = "" if since_ms is None else new_run_id(max(since_ms - LATE_MS, 0), bytes(CHANCE_BYTES))
        async for delivery_id, run in self._failed.reruns(after):
            found.add_run(delivery_id, run)
        return found

    async def survey(
        self,
        spans: Sequence[SourceSpan],
        wanted: DeadLetterFilter,
        tell: Tell,
        *,
        examples: int = 0,
        handled_too: bool = False,
    ) -> Survey:
        """Count what a filter chooses of some spans and is still to be dealt with.

        Args:
            spans: From `snapshot`.
            wanted: What is asked for.
            tell: Called as reading goes on.
            examples: How many of the newest to return.
            handled_too: Whether what was dealt with counts as well.

        Raises:
            UnavailableError: Kafka or MongoDB is out of reach.
        """
        choice = LetterChoice(wanted, None if handled_too else await self.past(spans, wanted.since_ms))
        newest: list[tuple[int, int, DeadLetter]] = []
        keep = examples * _EXAMPLES_KEPT
        async with aclosing(self.reader.read(spans)) as batches:
            async for batch in batches:
                for letter in batch.letters:
                    if choice.take(letter) and keep:
                        _keep(newest, letter, choice.read, keep)
                tell(batch.done)
        kept = [letter for _, _, letter in sorted(newest, reverse=True)]
        shown = [letter for letter in kept if choice.standing(letter) is Standing.CHOSEN][:examples]
        return Survey(self.reader.topic, choice, shown, handled_too)

    async def purge(self, spans: Sequence[SourceSpan], choice: LetterChoice, tell: Tell) -> Purged:
        """Mark as handled what a survey of the same spans chose, with the older letters of the same deliveries.

        In the delivery log the deliveries' failures count as handled as well. May be called again after an error: what
        was marked stays marked.

        Args:
            spans: Those of the survey.
            choice: The survey's.
            tell: Called as reading goes on.

        Raises:
            UnavailableError: Kafka or MongoDB is out of reach; part of it may be marked.
        """
        wanted = choice.wanted
        # Source records that are no events say in their values whose they claim to be.
        with_types = wanted.event_type is not None or wanted.workspace_id is not None
        letters, marked = 0, Counter[str]()
        waiting: list[DeadLetter] = []
        new: Counter[str] = Counter()
        try:
            async with aclosing(self.reader.read(spans, with_types=with_types)) as batches:
                async for batch in batches:
                    for letter in batch.letters:
                        standing = choice.standing(letter)
                        if standing is not Standing.LEFT:
                            letter.value = None
                            waiting.append(letter)
                            letters += 1
                            new[letter.workspace_id or ""] += standing is Standing.CHOSEN
                    if len(waiting) >= MARKED_AT_ONCE:
                        await self.handle(waiting, PURGED_BY, in_log=True)
                        marked, waiting, new = marked + new, [], Counter()
                    tell(batch.done)
            await self.handle(waiting, PURGED_BY, in_log=True)
            marked += new
        finally:
            if self.audit is not None:
                await self.audit.purged(wanted, {each: count for each, count in marked.items() if each})
        return Purged(marked.total(), letters)

    async def handle(self, letters: Sequence[DeadLetter], by: str, *, in_log: bool = False) -> None:
        """Mark letters as dealt with, and their deliveries' failures in the log likewise.

        Args:
            letters: Which.
            by: `PURGED_BY`, or a replay's id.
            in_log: Whether the log is marked as well; a run of the same delivery it shows by itself.

        Raises:
            UnavailableError: MongoDB is out of reach; part of it may be marked.
        """
        now_ms = self._clock.now_ms()
        places = ((letter.partition, letter.offset, letter.timestamp_ms) for letter in letters)
        await self._handled.mark(marks_of(self.reader.topic, places), by, now_ms)
        if not in_log:
            return
        runs: dict[str, dict[str, str]] = {}
        for letter in letters:
            if letter.delivery_id is not None and letter.workspace_id is not None:
                run = dict(letter.headers).get(REPLAY_ID) or b""
                runs.setdefault(letter.workspace_id, {})[letter.delivery_id] = run.decode("ascii", "replace")
        for workspace_id, of_workspace in runs.items():
            ids = list(of_workspace)
            for start in range(0, len(ids), _LOG_BATCH):
                await self._handle_in_log(workspace_id, of_workspace, ids[start : start + _LOG_BATCH], now_ms)

    async def _handle_in_log(self, workspace_id: str, runs: Mapping[str, str], ids: Sequence[str], now_ms: int) -> None:
        """Mark the failures of the runs that the letters are of; a later run's has a letter of its own."""
        states = await self._log.states(ids)
        same = tuple(each for each in ids if each in states and states[each].run == runs[each])
        if same:
            await self._failed.handle(workspace_id, FailedFilter(delivery_ids=same), now_ms, letters_too=True)


@asynccontextmanager
async def open_letters(settings: Settings) -> AsyncIterator[tuple[TopicLetters, Connection]]:
    """Open the dead-letter topic and what MongoDB knows of it; raises what `mongo_connection` raises."""
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(mongo_connection(settings))
        reader = DeadLetterReader(settings.kafka, settings.topics)
        stack.push_async_callback(reader.stop)
        handled = MongoHandledLetters(connection.handled_letters, settings.topics.dead_letter_retention_days)
        failed, log = MongoFailedDeliveries(connection.deliveries), MongoDeliveryLog(connection.deliveries)
        clock = SystemClock()
        audit = LetterAudit(Audit(MongoAudit(connection.audit), clock, draw))
        yield TopicLetters(reader, handled, failed, log, clock, audit), connection


def total(spans: Sequence[SourceSpan]) -> int:
    """Return how many offsets spans have."""
    return sum(span.end - span.position for span in spans)


def _keep(newest: list[tuple[int, int, DeadLetter]], letter: DeadLetter, number: int, keep: int) -> None:
    if len(newest) < keep:
        letter.value = None
        heapq.heappush(newest, (letter.timestamp_ms, number, letter))
    elif letter.timestamp_ms >= newest[0][0]:
        letter.value = None
        heapq.heapreplace(newest, (letter.timestamp_ms, number, letter))
