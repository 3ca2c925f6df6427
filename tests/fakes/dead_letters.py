# ruff: noqa: D102 - the ports say what each method promises
"""The dead-letter topic, the replay topic and the operators' replays, in memory."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace

from dispatcher.core.dead_letter_replays import LetterReplay, ReplayChoice, ReplayStage
from dispatcher.core.dead_letters import DeadLetter, DeadLetterFilter, read_letter
from dispatcher.core.letter_choice import LetterChoice, Standing
from dispatcher.core.records import decode_headers
from dispatcher.core.reruns import SourceSpan
from dispatcher.kafka.dead_letters import LATE_MS
from tests.fakes.kafka import MemoryBroker, StoredRecord
from tests.fakes.stores import Outage

DEAD_LETTERS = "webhooks.dead-letter"


class MemoryLetters:
    """A `LetterChooser` over a broker's dead-letter topic.

    Attributes:
        handled: The places that were marked, with what they were marked by.
        moved: Deliveries whose letters went to another webhook.
    """

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self.handled: dict[tuple[int, int, int], str] = {}
        self.moved: list[str | None] = []

    async def snapshot(self, since_ms: int | None = None, until_ms: int | None = None) -> Sequence[SourceSpan]:
        spans = []
        for (topic, partition), records in sorted(self._broker.partitions.items()):
            times = [record.timestamp for record in records if isinstance(record, StoredRecord)]
            if topic == DEAD_LETTERS and times:
                start, end = 0, len(times)
                if since_ms is not None:
                    start = next((at for at, ms in enumerate(times) if ms >= since_ms), end)
                if until_ms is not None:
                    end = next((at for at, ms in enumerate(times) if ms >= until_ms + LATE_MS), end)
                if start < end:
                    spans.append(SourceSpan(topic, partition, start, end))
        return spans

    async def choose(
        self, spans: Sequence[SourceSpan], wanted: DeadLetterFilter, read: Callable[[int], None]
    ) -> "MemoryChosenLetters":
        choice = LetterChoice(wanted)
        for letter in self.letters(spans):
            choice.take(letter)
            read(choice.read)
        return MemoryChosenLetters(self, choice)

    async def handle(self, letters: Sequence[DeadLetter], by: str, *, moved: bool = False) -> None:
        self.handled.update(dict.fromkeys(map(_place, letters), by))
        if moved:
            self.moved += [letter.delivery_id for letter in letters]

    def letters(self, spans: Sequence[SourceSpan]) -> list[DeadLetter]:
        """Return what lies in spans."""
        return [
            read_letter(each.partition, each.offset, each.timestamp, each.key, each.value, each.headers)
            for span in spans
            for each in self._broker.partitions[span.topic, span.partition][span.position : span.end]
            if isinstance(each, StoredRecord)
        ]


class MemoryChosenLetters:
    """`ChosenLetters` of a `MemoryLetters`, handed out three at a time."""

    def __init__(self, letters: MemoryLetters, choice: LetterChoice) -> None:
        self.count = choice.counts.total
        self._letters = letters
        self._choice = choice
        self._known = set(letters.handled)

    async def read(self, spans: Sequence[SourceSpan]) -> AsyncGenerator[Sequence[DeadLetter], None]:
        chosen = [each for each in self._letters.letters(spans) if self._choice.standing(each) is Standing.CHOSEN]
        for start in range(0, len(chosen), 3):
            yield chosen[start : start + 3]

    def is_handled(self, letter: DeadLetter) -> bool:
        return _place(letter) in self._known

    async def look_again(self) -> None:
        self._known = set(self._letters.handled)


def _place(letter: DeadLetter) -> tuple[int, int, int]:
    return letter.partition, letter.offset, letter.timestamp_ms


class MemoryReplayTopic:
    """A `ReplayTopicReader` over a broker."""

    def __init__(self, broker: MemoryBroker, topic: str = "webhooks.replay") -> None:
        self._broker = broker
        self._topic = topic

    async def ends(self) -> Mapping[int, int]:
        found = self._broker.partitions.items()
        return {partition: len(records) for (topic, partition), records in found if topic == self._topic and records}

    async def delivery_ids(self, replay_id: str, since: Mapping[int, int]) -> frozenset[str]:
        carried = [
            decode_headers(record.headers)
            for record in self._broker.on_topic(self._topic)
            if record.offset >= since.get(record.partition, 0)
        ]
        return frozenset(each.delivery_id for each in carried if each.replay_id == replay_id)


class MemoryDeadLetterReplays:
    """A `DeadLetterReplayStore`.

    Attributes:
        stored: The replays, each with its owner.
        before_store: Runs before each store, to make races and crashes.
    """

    def __init__(self, outage: Outage | None = None) -> None:
        self.outage = outage or Outage()
        self.stored: dict[str, tuple[LetterReplay, str]] = {}
        self.before_store: Callable[[LetterReplay], None] = lambda _replay: None

    async def insert(self, replay: LetterReplay, owner: str, now_ms: int) -> None:
        self.outage.check()
        self.stored[replay.id] = (replay, owner)

    async def like(self, choice: ReplayChoice) -> Sequence[LetterReplay]:
        self.outage.check()
        alike = [replay for replay, _ in self.stored.values() if replay.choice.likeness == choice.likeness]
        return sorted(alike, key=lambda replay: replay.id, reverse=True)

    async def take_over(self, replay_id: str, owner: str, now_ms: int) -> LetterReplay | None:
        self.outage.check()
        if replay_id not in self.stored:
            return None
        replay, _ = self.stored[replay_id]
        if replay.stage is not ReplayStage.DONE:
            replay = replace(replay, stage=ReplayStage.RUNNING)
            self.stored[replay_id] = (replay, owner)
        return replay

    async def store(self, replay: LetterReplay, owner: str, now_ms: int) -> bool:
        self.outage.check()
        self.before_store(replay)
        if self.stored[replay.id][1] != owner:
            return False
        self.stored[replay.id] = (replay, owner)
        return True
