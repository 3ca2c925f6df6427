"""The way of a replay that looks at source records again which were no events: once mended, each is a fresh event.

The record itself never changes. What may have changed is what this dispatcher makes of it: its decoder, its limits,
its default workspace, its catalogue. So it is read again where it stands and judged by today's rules; its deliveries
get their ordinary ids, so that what was delivered otherwise meanwhile is not sent twice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dispatcher.core.dead_letter_replays import Fate, ReplayChoice, hindrance
from dispatcher.core.dead_letters import DeadLetter
from dispatcher.core.delivery_id import DeliveryIds
from dispatcher.core.delivery_log import DeliveryStatus, LoggedState
from dispatcher.core.errors import UndecodableError
from dispatcher.core.matching import SubscriptionIndex
from dispatcher.core.model import Event, Origin, Subscription
from dispatcher.core.records import BadRecord
from dispatcher.core.reruns import first_entry, new_run_record
from dispatcher.core.topics import TopicNames
from dispatcher.pipeline.backfill import Acceptance
from dispatcher.pipeline.dead_letter_deliveries import Outgoing, Prepared, no_target
from dispatcher.ports import (
    Clock,
    ConsumedRecord,
    DeliveryLogWriter,
    OutgoingRecord,
    RecordLookup,
    SubscriptionLookup,
    WebhookStore,
)

_PAGE = 500
_FRESH_SECONDS = 30.0


@dataclass(slots=True)
class _Draft:
    """A letter on its way to being prepared; `fate` is set as soon as it is known that nothing can be sent."""

    letter: DeadLetter
    fate: Fate | None = None
    origin: Origin | None = None
    record: ConsumedRecord | None = None
    event: Event | None = None
    targets: dict[str, Subscription] = field(default_factory=dict)


class LetterEvents:
    """Makes events of source records that were none; implements `LetterWay`.

    Args:
        webhooks: Finds a workspace's.
        subscriptions: Finds the one that everything is to go to.
        log: Says what it holds of the deliveries.
        records: Reads source topics.
        clock: Time.
        names: The own topics, whose records are no events.
        acceptance: What is an event today.
    """

    def __init__(
        self,
        webhooks: WebhookStore,
        subscriptions: SubscriptionLookup,
        log: DeliveryLogWriter,
        records: RecordLookup,
        clock: Clock,
        names: TopicNames,
        acceptance: Acceptance,
    ) -> None:
        self._webhooks = webhooks
        self._subscriptions = subscriptions
        self._log = log
        self._records = records
        self._clock = clock
        self._names = names
        self._acceptance = acceptance
        self._index = SubscriptionIndex()
        self._loaded_at: dict[str, float] = {}

    async def prepare(
        self, letters: Sequence[DeadLetter], choice: ReplayChoice, run: str, sent: frozenset[str] = frozenset()
    ) -> Sequence[Prepared]:
        """See `LetterWay`."""
        drafts = [self._draft(letter) for letter in letters]
        found = await self._records.read_many(draft.origin.coordinates for draft in drafts if draft.origin)
        for draft in drafts:
            if draft.origin is not None:
                await self._match(draft, found.get(draft.origin.coordinates), choice.to_subscription)
        states = await self._log.states([delivery_id for draft in drafts for delivery_id in draft.targets])
        taken: set[str] = set()
        return [self._prepared(draft, states, choice, run, sent, taken) for draft in drafts]

    def _draft(self, letter: DeadLetter) -> _Draft:
        try:
            told = letter.told()
        except UndecodableError:
            return _Draft(letter, Fate.UNREADABLE)
        if not isinstance(told, BadRecord) or self._names.is_own(told.origin.topic):
            return _Draft(letter, Fate.NO_RECORD)
        return _Draft(letter, origin=told.origin)

    async def _match(self, draft: _Draft, record: ConsumedRecord | None, to_subscription: str | None) -> None:
        then_ms = draft.origin.timestamp_ms if draft.origin is not None else -1
        # A topic that was made anew holds other records; of one that couldn't be read the time isn't known.
        if record is None or then_ms not in (-1, record.timestamp):
            draft.fate = Fate.GONE
            return
        event = self._acceptance.event_of(record)
        if event is None:
            draft.fate = Fate.STILL_BAD
            return
        draft.record, draft.event = record, event
        ids = DeliveryIds(event.workspace_id, event.source, event.id)
        if to_subscription is None:
            await self._load(event.workspace_id)
            wanted = self._index.match(event.workspace_id, event.type)
            draft.fate = None if wanted else Fate.UNWANTED
        else:
            target = await self._subscriptions.find(to_subscription)
            wanted = [] if target is None else [target]
            draft.fate = no_target(target, event.workspace_id)
        if draft.fate is None:
            draft.targets = {ids.of(subscription.id): subscription for subscription in wanted}

    async def _load(self, workspace_id: str) -> None:
        """Know a workspace's webhooks, as they were half a minute ago at most."""
        now = self._clock.monotonic()
        if workspace_id in self._loaded_at and now - self._loaded_at[workspace_id] < _FRESH_SECONDS:
            return
        self._loaded_at[workspace_id] = now
        for known in self._index:
            if known.workspace_id == workspace_id:
                self._index.remove(known.id)
        cursor: str | None = None
        while True:
            page = await self._webhooks.page(workspace_id, cursor, _PAGE)
            for webhook in page.rows:
                self._index.put(webhook.subscription)
            cursor = page.next_cursor
            if cursor is None:
                return

    def _prepared(
        self,
        draft: _Draft,
        states: Mapping[str, LoggedState],
        choice: ReplayChoice,
        run: str,
        sent: frozenset[str],
        taken: set[str],
    ) -> Prepared:
        goes_to = choice.to_subscription or ""
        record, event = draft.record, draft.event
        if draft.fate is not None or record is None or event is None:
            return Prepared(draft.letter, draft.fate or Fate.UNREADABLE, goes_to)
        outgoing, fate, logged_run = [], Fate.SUPERSEDED, ""
        now_ms = self._clock.now_ms()
        for delivery_id, subscription in draft.targets.items():
            if delivery_id in taken:
                continue  # the same event has another letter among these
            taken.add(delivery_id)
            state = states.get(delivery_id)
            logged_run = max(logged_run, state.run if state else "")
            hindered = None if delivery_id in sent else _hindrance(state, run, again=choice.again)
            if hindered is not None:
                fate = hindered
                continue
            key, headers = new_run_record(event, delivery_id, subscription.id, run, record.headers)
            produced = OutgoingRecord(self._names.replay, key, record.value, headers)
            entry = first_entry(event, delivery_id, subscription.id, run, now_ms)
            outgoing.append(Outgoing(delivery_id, produced, entry))
        return Prepared(draft.letter, Fate.REPLAYED if outgoing else fate, goes_to, outgoing, logged_run)


def _hindrance(state: LoggedState | None, run: str, *, again: bool) -> Fate | None:
    if state is not None and state.status is DeliveryStatus.FAILED and not again:
        # It came to be an event in another way; its failure has a dead letter of its own.
        return Fate.SUPERSEDED
    return hindrance(state, None, run, again=again)
