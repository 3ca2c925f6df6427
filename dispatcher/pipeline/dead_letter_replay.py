"""Goes through a replay of dead letters: plans it, sends batch by batch, and goes on after it was stopped or killed.

Before each batch is produced, it is seen that the replay still is this process's; after it, the delivery log shows its
deliveries as waiting. Every now and then what went out is marked as handled, and it is stored how far the replay is.
Whoever goes on after a crash begins there, and finds on the replay topic what went out since: so only of the one batch
whose produce was under way may something go out twice.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from dispatcher.core.dead_letter_replays import Fate, LetterReplay, ReplayChoice, ReplayStage, gone_through, rest
from dispatcher.core.dead_letters import DeadLetter, DeadLetterFilter
from dispatcher.core.errors import ConflictError, InvalidInputError, NotFoundError
from dispatcher.core.model import Status
from dispatcher.core.reruns import CHANCE_BYTES, SourceSpan, new_run_id
from dispatcher.pipeline.dead_letter_batches import PAGE_LETTERS, is_full, next_batch, pages, second_of
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

BATCH_DELIVERIES = 100

_DONE = ReplayStage.DONE
_LAST_RUN = "rpl_~"
"""Sorts behind every run: while a replay is planned, it has no id yet."""

LOOK_AGAIN_SECONDS = 30.0
"""How often it is looked what was dealt with meanwhile, as by a purge."""

MARKED_AT_ONCE = 1_000
"""So many letters are sent before they are marked as handled, and the replay's progress is stored."""

T = TypeVar("T")

Told = Callable[[LetterReplay], None]
"""Is told how far a replay is."""

Looked = Callable[[str, int, int], None]
"""Is told how far looking is: what is being done, how much of it is done, and of how much."""


@dataclass(frozen=True, slots=True)
class LetterOutside:
    """What a replay of dead letters needs of the outside.

    `began` is told of each replay that begins, with how many letters of each workspace are to go out; it must not fail.
    """

    letters: LetterChooser
    replay_topic: ReplayTopicReader
    store: DeadLetterReplayStore
    subscriptions: SubscriptionLookup
    log: DeliveryLogWriter
    producer: RecordProducer
    clock: Clock
    began: Callable[[LetterReplay, Mapping[str, int]], Awaitable[None]] | None = None


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
        async with contextlib.aclosing(pages(letters, spans)) as cut:
            async for page in cut:
                for prepared in await self._prepare(page, letters, choice, _LAST_RUN):
                    plan.take(prepared)
                    if plan.is_full:
                        return checked(plan)
                looked("dead letters looked into", plan.chosen, letters.count)
        return checked(plan)

    async def begin(self, plan: Plan) -> LetterReplay:
        """Make a replay of a plan: it can be gone on with from now on, whatever becomes of this process.

        Raises:
            ConflictError: It would repeat an earlier one.
            UnavailableError: Kafka or MongoDB is out of reach.
        """
        if plan.is_repetition:
            raise ConflictError(refusal(plan))
        now_ms = self._outside.clock.now_ms()
        replay = LetterReplay(
            id=new_run_id(now_ms, self._draw(CHANCE_BYTES), after=plan.logged_run),
            choice=plan.choice,
            created_at_ms=now_ms,
            whole=tuple(plan.spans),
            left=tuple(plan.spans),
            replay_ends=await self._outside.replay_topic.ends(),
            selected=plan.of(Fate.REPLAYED),
        )
        await self._outside.store.insert(replay, self._owner, now_ms)
        if self._outside.began is not None:
            await self._outside.began(replay, plan.replayed_of_workspaces)
        return replay

    async def take_over(self, replay_id: str) -> LetterReplay:
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

    async def resume(self, replay: LetterReplay, looked: Looked, told: Told, stop: asyncio.Event) -> LetterReplay:
        """Go on with a replay that was taken over; otherwise like `run`. It also stops while it still reads."""
        outside = self._outside
        sent = await _unless(stop, outside.replay_topic.delivery_ids(replay.id, replay.replay_ends))
        if sent is None:
            return await self._end(replay, stopped=True)
        letters = await _unless(stop, self._choose(replay.whole, replay.choice.wanted, looked))
        if letters is None:
            return await self._end(replay, stopped=True)
        return await self.run(replay, letters, told, stop, sent)

    async def run(
        self,
        replay: LetterReplay,
        letters: ChosenLetters,
        told: Told,
        stop: asyncio.Event,
        sent: frozenset[str] = frozenset(),
    ) -> LetterReplay:
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
        choice, size = replay.choice, second_of(replay.choice, BATCH_DELIVERIES)
        moved = choice.to_subscription is not None
        stored, unmarked, monotonic = replay, list[DeadLetter](), self._outside.clock.monotonic
        began = looked_at = monotonic()
        async with contextlib.aclosing(pages(letters, replay.left, second_of(choice, PAGE_LETTERS))) as cut:
            async for page in cut:
                if monotonic() >= looked_at + LOOK_AGAIN_SECONDS:
                    await letters.look_again()
                    looked_at = monotonic()
                waiting = await self._prepare(page, letters, choice, replay.id, sent)
                while not stop.is_set() and (batch := next_batch(waiting, size, replay)):
                    waiting = waiting[len(batch) :]
                    # Whoever took the replay over meanwhile is the one to go on with it.
                    await self._store(stored)
                    replay, made, went = await self._send(replay, batch, sent)
                    unmarked += went
                    told(replay)
                    if len(unmarked) >= MARKED_AT_ONCE:
                        await self._outside.letters.handle(unmarked, replay.id, moved=moved)
                        stored, unmarked = replay, []
                    await _pause(began + made / choice.rate - monotonic(), stop)
                    began = monotonic()
                if stop.is_set() or is_full(replay):
                    break
        await self._outside.letters.handle(unmarked, replay.id, moved=moved)
        return await self._end(replay, stopped=stop.is_set())

    async def _end(self, replay: LetterReplay, *, stopped: bool) -> LetterReplay:
        """Store a replay as stopped, or as done where nothing is left to do; returns what is stored."""
        if stopped and replay.left and not is_full(replay):
            ended = replace(replay, stage=ReplayStage.STOPPED)
        else:
            # What it was never to come to is nothing that it went through.
            whole = gone_through(replay.whole, replay.left) if is_full(replay) else replay.whole
            ended = replace(replay, stage=_DONE, whole=whole, left=())
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
            raise InvalidInputError(
                {
                    "to_subscription": f"there is no webhook {to_subscription}; "
                    "give the id of one of the same workspace, wh_…"
                }
            )
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
        self, replay: LetterReplay, batch: Sequence[Prepared], sent: frozenset[str]
    ) -> tuple[LetterReplay, int, Sequence[DeadLetter]]:
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
                letter.letter.value = None  # it waits to be marked, with a thousand others
                went.append(letter.letter)
            fates[fate] += 1
        last = batch[-1].letter
        left = rest(replay.left, last.partition, last.offset + 1)
        return replace(replay, left=left, fates=fates), len(new), went

    async def _store(self, replay: LetterReplay) -> None:
        if not await self._outside.store.store(replay, self._owner, self._outside.clock.now_ms()):
            raise ConflictError(f"another process goes on with {replay.id}; this one leaves it alone")


async def _unless(stop: asyncio.Event, step: Coroutine[Any, Any, T]) -> T | None:
    """Return what a step does; None where it is to stop before that: the step is then cancelled."""
    task, stopped = asyncio.create_task(step), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        return None if stop.is_set() else task.result()
    finally:
        task.cancel()
        stopped.cancel()
        await asyncio.gather(task, stopped, return_exceptions=True)


async def _pause(seconds: float, stop: asyncio.Event) -> None:
    if seconds > 0:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), seconds)
