"""The way of a replay that sends dead letters' deliveries again: from a letter to the record of its new run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from dispatcher.core.dead_letter_replays import Fate, ReplayChoice, hindrance
from dispatcher.core.dead_letters import DeadLetter
from dispatcher.core.decoding import decode
from dispatcher.core.delivery_id import DeliveryIds
from dispatcher.core.delivery_log import LogEntry, LoggedState
from dispatcher.core.errors import UndecodableError
from dispatcher.core.model import Event, ReadHeaders, Status, Subscription
from dispatcher.core.records import BadRecord, DeliveryRecord, encode_headers
from dispatcher.core.reruns import first_entry
from dispatcher.pipeline.work import origin_of
from dispatcher.ports import (
    Clock,
    ConsumedRecord,
    Coordinates,
    DeliveryLogWriter,
    OutgoingRecord,
    RecordLookup,
    SubscriptionLookup,
)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One delivery that a replay sends.

    Attributes:
        delivery_id: `del_…`.
        record: What goes to the replay topic.
        entry: What shows it in the delivery log as waiting.
    """

    delivery_id: str
    record: OutgoingRecord
    entry: LogEntry


@dataclass(frozen=True, slots=True)
class Prepared:
    """A dead letter, looked into.

    Attributes:
        letter: It.
        fate: `REPLAYED` where it is to be sent, else why not.
        subscription_id: Where it would go; empty where that can't be said.
        outgoing: Its deliveries; none unless it is to be sent.
        logged_run: The latest run of them that the delivery log knows, or that the letter tells of.
    """

    letter: DeadLetter
    fate: Fate
    subscription_id: str = ""
    outgoing: Sequence[Outgoing] = ()
    logged_run: str = ""


class LetterWay(Protocol):
    """How the letters of one kind of replay become deliveries. It may raise `UnavailableError`."""

    async def prepare(
        self, letters: Sequence[DeadLetter], choice: ReplayChoice, run: str, sent: frozenset[str] = frozenset()
    ) -> Sequence[Prepared]:
        """Look into letters; nothing is produced yet.

        Args:
            letters: In the order of the topic.
            choice: What was asked for.
            run: The replay's id.
            sent: Deliveries that went out in this run already: they are prepared whatever the log holds of them.
        """


@dataclass(slots=True)
class _Draft:
    """A letter on its way to being prepared.

    Attributes:
        fate: Set as soon as it is known that it can't be sent.
    """

    letter: DeadLetter
    record: DeliveryRecord | None = None
    fate: Fate | None = None
    target: Subscription | None = None
    event: Event | None = None
    headers: ReadHeaders = ()
    delivery_id: str = ""


class LetterDeliveries:
    """Sends deliveries again, to their own webhook or to another one of the same workspace; implements `LetterWay`.

    Args:
        subscriptions: Finds webhooks as they are now.
        log: Says what it holds of the deliveries.
        records: Reads events again whose dead letters are only pointers.
        clock: Time.
        topic: The replay topic.
    """

    def __init__(
        self,
        subscriptions: SubscriptionLookup,
        log: DeliveryLogWriter,
        records: RecordLookup,
        clock: Clock,
        topic: str,
    ) -> None:
        self._subscriptions = subscriptions
        self._log = log
        self._records = records
        self._clock = clock
        self._topic = topic

    async def prepare(
        self, letters: Sequence[DeadLetter], choice: ReplayChoice, run: str, sent: frozenset[str] = frozenset()
    ) -> Sequence[Prepared]:
        """See `LetterWay`."""
        drafts = [_draft(letter) for letter in letters]
        await self._find_targets(drafts, choice.to_subscription)
        found = await self._records.read_many(
            draft.record.origin.coordinates
            for draft in drafts
            if draft.record is not None and draft.fate is None and draft.letter.value is None
        )
        for draft in drafts:
            _decode(draft, found)
        due = {draft.delivery_id: draft for draft in drafts if draft.fate is None}
        states = await self._log.states(list(due))
        now_ms = self._clock.now_ms()
        return [self._prepared(draft, due, states, choice, run, sent, now_ms) for draft in drafts]

    async def _find_targets(self, drafts: Sequence[_Draft], to_subscription: str | None) -> None:
        known: dict[str, Subscription | None] = {}
        for draft in drafts:
            if draft.record is None:
                continue
            wanted = to_subscription or draft.record.subscription_id
            if wanted not in known:
                known[wanted] = await self._subscriptions.find(wanted)
            draft.target = known[wanted]
            draft.fate = no_target(draft.target, draft.record.workspace_id)

    def _prepared(
        self,
        draft: _Draft,
        due: Mapping[str, _Draft],
        states: Mapping[str, LoggedState],
        choice: ReplayChoice,
        run: str,
        sent: frozenset[str],
        now_ms: int,
    ) -> Prepared:
        letter, record, target, event = draft.letter, draft.record, draft.target, draft.event
        goes_to = choice.to_subscription or (record.subscription_id if record else "")
        if draft.fate is not None or record is None or target is None or event is None:
            return Prepared(letter, draft.fate or Fate.UNREADABLE, goes_to)
        state = states.get(draft.delivery_id)
        logged_run = max(record.replay_id, state.run if state else "")
        fate: Fate | None = None
        if due[draft.delivery_id] is not draft:
            # The same delivery has a later letter among these.
            fate = Fate.SUPERSEDED
        elif draft.delivery_id not in sent:
            own = draft.delivery_id == record.delivery_id
            fate = hindrance(state, record.replay_id if own else None, run, again=choice.again)
        if fate is not None:
            return Prepared(letter, fate, goes_to, logged_run=logged_run)
        outgoing = self._outgoing(draft.delivery_id, record, target, event, choice, run, draft.headers, now_ms)
        return Prepared(letter, Fate.REPLAYED, goes_to, (outgoing,), logged_run)

    def _outgoing(
        self,
        delivery_id: str,
        record: DeliveryRecord,
        target: Subscription,
        event: Event,
        choice: ReplayChoice,
        run: str,
        headers: ReadHeaders,
        now_ms: int,
    ) -> Outgoing:
        # One more attempt must be left, or its worker would end it without any.
        made = max(min(record.attempt, target.max_attempts - 1), 0) if choice.keeps_attempts else 0
        again = DeliveryRecord(
            delivery_id,
            target.id,
            event.workspace_id,
            made,
            not_before_ms=0,
            first_attempt_ms=record.first_attempt_ms if made else 0,
            parked_since_ms=None,
            origin=event.origin,
            replay_id=run,
        )
        return Outgoing(
            delivery_id,
            OutgoingRecord(self._topic, again.key, event.value, encode_headers(again, headers)),
            first_entry(event, delivery_id, target.id, run, now_ms),
        )


def _draft(letter: DeadLetter) -> _Draft:
    try:
        told = letter.told()
    except UndecodableError:
        return _Draft(letter, fate=Fate.UNREADABLE)
    if isinstance(told, BadRecord):
        return _Draft(letter, fate=Fate.NO_EVENT)
    return _Draft(letter, told)


def no_target(target: Subscription | None, workspace_id: str) -> Fate | None:
    """Say why nothing can be sent to a webhook; None where it can."""
    if target is None:
        return Fate.WEBHOOK_DELETED
    if target.workspace_id != workspace_id:
        return Fate.MISMATCH
    return None if target.status == Status.ACTIVE else Fate.WEBHOOK_INACTIVE


def _decode(draft: _Draft, found: Mapping[Coordinates, ConsumedRecord]) -> None:
    """Read a draft's event, from the letter or, where that is only a pointer, from what was found at its origin."""
    record, target, letter = draft.record, draft.target, draft.letter
    if draft.fate is not None or record is None or target is None:
        return
    value, headers, origin = letter.value, letter.headers, record.origin
    if value is None:
        read = found.get(origin.coordinates)
        if read is None:
            draft.fate = Fate.GONE
            return
        value, headers = read.value, read.headers
        origin = origin_of(read)
    try:
        event = decode(value, headers, origin, record.workspace_id)
    except UndecodableError:
        draft.fate = Fate.UNREADABLE if letter.value is not None else Fate.GONE
        return
    ids = DeliveryIds(event.workspace_id, event.source, event.id)
    if ids.of(record.subscription_id) != record.delivery_id:
        # A topic that was made anew holds other events at the same coordinates.
        draft.fate = Fate.UNREADABLE if letter.value is not None else Fate.GONE
        return
    draft.event, draft.headers = event, headers
    draft.delivery_id = ids.of(target.id)
