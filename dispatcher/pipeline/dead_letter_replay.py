"""Goes through a replay of dead letters: plans it, sends batch by batch, and goes on after it was stopped or killed.

Before each batch is produced, it is seen that the replay still is this process's; after it, the delivery log shows its
deliveries as waiting. Every now and then what went out is marked as handled, and it is stored how far the replay is.
Whoever goes on after a crash begins there, and finds on the replay topic what went out since: so only of the one batch
whose produce was under way may something go out twice.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from dispatcher.core.dead_letter_replays import DeadLetterReplay, Fate, ReplayChoice, ReplayStage, rest
from dispatcher.core.dead_letters import DeadLetter, DeadLetterFilter
from dispatcher.core.errors import ConflictError, InvalidInputError, NotFoundError
from dispatcher.core.model import Status
from dispatcher.core.reruns import CHANCE_BYTES, SourceSpan, new_run_id
from dispatcher.pipeline.dead_letter_deliveries import LetterWay, Prepared
from dispatcher.pipeline.dead_letter_plan import Plan, checked, refusal
from dispatcher.pipeline.replay_deliveries import produce_all
from dispatcher.ports import (
    ChosenLetters,
    Clock,
    DeadLetterReplayStore,
    DeliveryLogWriter,
    LetterChooser,
    RecordProducer,
    ReplayTopicReader,
    SubscriptionLookup,
)

PAGE_LETTERS = 500
PAGE_BYTES = 4 * 1024 * 1024
BATCH_DELIVERIES = 100

_DONE = ReplayStage.DONE
_LAST_RUN = "rpl_~"
"""Sorts behind every run: while a replay is planned, it has no id yet."""

MARKED_AT_ONCE = 1_000
"""So many letters are sent before they are marked as handled, and the replay's progress is stored."""

Told = Callable[[DeadLetterReplay], None]
"""Is told how far a replay is."""

Looked = Callable[[str, int, int], None]
"""Is told how far looking is: what is being done, how much of it is done, and of how much."""


@dataclass(frozen=True, slots=True)
class LetterOutside:
    """What a replay of dead letters needs of the outside."""

    letters: LetterChooser
    replay_topic: ReplayTopicReader
    store: DeadLetterReplayStore
    subscriptions: SubscriptionLookup
    log: DeliveryLogWriter
    producer: RecordProducer
    clock: Clock


class DeadLetterReplays:
    """Replays dead letters.

    Args:
        outside: Kafka, stores, time.
        deliveries: The way of letters that are deliveries.
        events: The way of letters that are source records.
        owner: Names this process; no other has the same name.
        draw: Random bytes.
    """

    def __init__(
        self,
        outside: LetterOutside,
        deliveries: LetterWay,
        events: LetterWay,
        owner: str,
        draw: Callable[[int], bytes],
    ) -> None:
        self._outside = outside
        self._deliveries = deliveries
        self._events = events
        self._owner = owner
        self._draw = draw

    async def plan(self, choice: ReplayChoice, looked: Looked) -> Plan:
        """Find out what a replay would do; nothing is sent or stored.

        Args:
            choice: What is asked for.
            looked: Told how far it is.

        Raises:
            InvalidInputError: Letters would go to a webhook of another workspace, or to one that doesn't exist.
            ConflictError: They would go to a webhook that isn't active.
            UnavailableError: Kafka or MongoDB is out of reach.
        """
        await self._check_target(choice.to_subscription)
        outside, wanted = self._outside, choice.wanted
        spans = await outside.letters.snapshot(wanted.since_ms, wanted.until_ms)
        letters = await self._choose(spans, wanted, looked)
        earlier = [each for each in await outside.store.like(choice) if each.replayed or each.stage is not _DONE]
        plan = Plan(choice, spans, letters, earlier)
        async with contextlib.aclosing(_pages(letters, spans)) as pages:
            async for page in pages:
                for prepared in await self._prepare(page, letters, choice, _LAST_RUN):
                    plan.take(prepared)
                    if plan.is_full:
                        return checked(plan)
                looked("dead letters looked into", plan.chosen, letters.count)
        return checked(plan)

    async def begin(self, plan: Plan) -> DeadLetterReplay:
        """Make a replay of a plan: it can be gone on with from now on, whatever becomes of this process.

        Raises:
            ConflictError: It would repeat an earlier one.
            UnavailableError: Kafka or MongoDB is out of reach.
        """
        if plan.repeated and not plan.choice.again:
            raise ConflictError(refusal(plan))
        now_ms = self._outside.clock.now_ms()
        replay = DeadLetterReplay(
            id=new_run_id(now_ms, self._draw(CHANCE_BYTES), after=plan.logged_run),
            choice=plan.choice,
            created_at_ms=now_ms,
            whole=tuple(plan.spans),
            left=tuple(plan.spans),
            replay_ends=await self._outside.replay_topic.ends(),
            selected=plan.of(Fate.REPLAYED),
        )
        await self._outside.store.insert(replay, self._owner, now_ms)
        return replay

    async def take_over(self, replay_id: str) -> DeadLetterReplay:
        """Make a replay this process's own; whoever ran it stops at its next batch.

        Raises:
            NotFoundError: There is none of this id.
            ConflictError: It is done.
            UnavailableError: MongoDB is out of reach.
        """
        replay = await self._outside.store.take_over(replay_id, self._owner, self._outside.clock.now_ms())
        if replay is None:
            raise NotFoundError(
                f"there is no replay {replay_id} of dead letters; the command that began it named its id"
            )
        if replay.stage is _DONE:
            raise ConflictError(
                f"{replay_id} is done: {replay.replayed} dead letters were replayed; there is nothing left"
            )
        return replay

    async def resume(
        self, replay: DeadLetterReplay, looked: Looked, told: Told, stop: asyncio.Event
    ) -> DeadLetterReplay:
        """Go on with a replay that was taken over; otherwise like `run`."""
        outside = self._outside
        sent = await outside.replay_topic.delivery_ids(replay.id, replay.replay_ends)
        letters = await self._choose(replay.whole, replay.choice.wanted, looked)
        return await self.run(replay, letters, told, stop, sent)

    async def run(
        self,
        replay: DeadLetterReplay,
        letters: ChosenLetters,
        told: Told,
        stop: asyncio.Event,
        sent: frozenset[str] = frozenset(),
    ) -> DeadLetterReplay:
        """Send what is left of a replay, until it is done or is to stop.

        Args:
            replay: It; this process's.
            letters: What it is about.
            told: Called after each batch.
            stop: Set from outside: it then ends after the batch in hand.
            sent: Deliveries that the replay topic holds of it already.

        Returns:
            The replay as it is stored: done or stopped.

        Raises:
            ConflictError: Another process went on with it.
            UnavailableError: Kafka or MongoDB is out of reach.
            MisconfiguredError: Kafka refuses everything.
        """
        choice, size = replay.choice, min(max(int(replay.choice.rate), 1), BATCH_DELIVERIES)
        stored, unmarked = replay, list[tuple[int, int, int]]()
        began = self._outside.clock.monotonic()
        async with contextlib.aclosing(_pages(letters, replay.left)) as pages:
            async for page in pages:
                for whole in _batches(await self._prepare(page, letters, choice, replay.id, sent), size):
                    batch = _first(whole, replay)
                    if stop.is_set() or not batch:
                        break
                    # Whoever took the replay over meanwhile is the one to go on with it.
                    await self._store(stored)
                    replay, made, went = await self._send(replay, batch, sent)
                    unmarked += [(letter.partition, letter.offset, letter.timestamp_ms) for letter in went]
                    told(replay)
                    if len(unmarked) >= MARKED_AT_ONCE:
                        await self._outside.letters.handle(unmarked, replay.id)
                        stored, unmarked = replay, []
                    await _pause(began + made / choice.rate - self._outside.clock.monotonic(), stop)
                    began = self._outside.clock.monotonic()
                if stop.is_set() or _is_full(replay):
                    break
        await self._outside.letters.handle(unmarked, replay.id)
        if stop.is_set() and replay.left and not _is_full(replay):
            ended = replace(replay, stage=ReplayStage.STOPPED)
        else:
            ended = replace(replay, stage=_DONE, left=())
        await self._store(ended)
        return ended

    async def _choose(self, spans: Sequence[SourceSpan], wanted: DeadLetterFilter, looked: Looked) -> ChosenLetters:
        offsets = sum(span.end - span.position for span in spans)
        return await self._outside.letters.choose(
            spans, wanted, lambda read: looked("dead letters read", read, offsets)
        )

    async def _check_target(self, to_subscription: str | None) -> None:
        if to_subscription is None:
            return
        target = await self._outside.subscriptions.find(to_subscription)
        if target is None:
            raise InvalidInputError({"to_subscription": f"there is no webhook {to_subscription}"})
        if target.status != Status.ACTIVE:
            raise ConflictError(
                f"the webhook {to_subscription} is {target.status}, so nothing would be sent; "
                "set its status to active first"
            )

    async def _prepare(
        self,
        page: Sequence[DeadLetter],
        letters: ChosenLetters,
        choice: ReplayChoice,
        run: str,
        sent: frozenset[str] = frozenset(),
    ) -> Sequence[Prepared]:
        way = self._events if choice.as_events else self._deliveries
        return [
            replace(each, fate=Fate.HANDLED, outgoing=())
            if each.outgoing
            and not choice.again
            and letters.is_handled(each.letter)
            and sent.isdisjoint(outgoing.delivery_id for outgoing in each.outgoing)
            else each
            for each in await way.prepare(page, choice, run, sent)
        ]

    async def _send(
        self, replay: DeadLetterReplay, batch: Sequence[Prepared], sent: frozenset[str]
    ) -> tuple[DeadLetterReplay, int, Sequence[DeadLetter]]:
        """Produce a batch, and show its deliveries as waiting.

        Returns:
            The replay with the batch behind it, how many deliveries were produced, and the letters that went out.
        """
        outgoing = {each.delivery_id: each for letter in batch for each in letter.outgoing}
        new = {delivery_id: each.record for delivery_id, each in outgoing.items() if delivery_id not in sent}
        accepted = await produce_all(self._outside.producer, new) | (outgoing.keys() & sent)
        if accepted:
            await self._outside.log.write([each.entry for name, each in outgoing.items() if name in accepted])
        fates, went = Counter(replay.fates), list[DeadLetter]()
        for letter in batch:
            fate = letter.fate
            if letter.outgoing and accepted.isdisjoint(each.delivery_id for each in letter.outgoing):
                fate = Fate.REFUSED
            elif letter.outgoing:
                went.append(letter.letter)
            fates[fate] += 1
        last = batch[-1].letter
        left = rest(replay.left, last.partition, last.offset + 1)
        return replace(replay, left=left, fates=fates), len(new), went

    async def _store(self, replay: DeadLetterReplay) -> None:
        if not await self._outside.store.store(replay, self._owner, self._outside.clock.now_ms()):
            raise ConflictError(f"another process goes on with {replay.id}; this one leaves it alone")


async def _pages(letters: ChosenLetters, spans: Sequence[SourceSpan]) -> AsyncGenerator[Sequence[DeadLetter], None]:
    """Yield letters in pages that are bounded in number and in bytes."""
    page: list[DeadLetter] = []
    held = 0
    async with contextlib.aclosing(letters.read(spans)) as read:
        async for some in read:
            for letter in some:
                page.append(letter)
                held += len(letter.value or b"")
                if len(page) == PAGE_LETTERS or held >= PAGE_BYTES:
                    yield page
                    page, held = [], 0
    if page:
        yield page


def _batches(letters: Sequence[Prepared], size: int) -> Iterator[Sequence[Prepared]]:
    """Part letters so that the deliveries of each part come to about `size`; a letter is not parted."""
    batch: list[Prepared] = []
    deliveries = 0
    for letter in letters:
        if deliveries and deliveries + len(letter.outgoing) > size:
            yield batch
            batch, deliveries = [], 0
        batch.append(letter)
        deliveries += len(letter.outgoing)
    if batch:
        yield batch


def _first(batch: Sequence[Prepared], replay: DeadLetterReplay) -> Sequence[Prepared]:
    """Return as much of a batch as may still go out, where that is bounded."""
    if replay.choice.most is None:
        return batch
    left = replay.choice.most - replay.replayed
    for index, letter in enumerate(batch):
        if not left:
            return batch[:index]
        left -= bool(letter.outgoing)
    return batch


def _is_full(replay: DeadLetterReplay) -> bool:
    return replay.choice.most is not None and replay.replayed >= replay.choice.most


async def _pause(seconds: float, stop: asyncio.Event) -> None:
    if seconds > 0:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), seconds)
