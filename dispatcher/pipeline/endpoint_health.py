"""Endpoints that do nothing but fail: gathered beside the sends, told of at half of the time, disabled at its end.

Each worker notes what it sees; whichever looks next when something is due claims it, so that it happens once. A claim
that nobody brought to its end is taken over: an operational event may be repeated (with the same id), never lost.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from dispatcher.core.endpoint_health import Due, FailingEndpoint, HealthNote, Trouble, what_is_due
from dispatcher.core.errors import UnavailableError
from dispatcher.core.model import Status, Subscription
from dispatcher.core.outcome_records import webhook_disabled, webhook_failing
from dispatcher.metrics import Metrics
from dispatcher.ports import (
    Clock,
    EndpointHealthStore,
    OutgoingRecord,
    RecordProducer,
    RejectedRecordError,
    SubscriptionLookup,
    WebhookReader,
)

log = structlog.get_logger(__name__)

FLUSH_SECONDS = 30.0
LOOK_SECONDS = 60.0
PRODUCE_SECONDS = 60.0
TAKEN_OVER_AFTER_MS = 120_000
"""Longer than whoever holds a claim waits for Kafka."""
BACK_OFF_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class HealthOutside:
    """What it needs of the outside.

    Attributes:
        store: Keeps what workers saw.
        webhooks: Reads webhooks, whatever their status.
        subscriptions: Disables them.
        producer: Produces operational events.
        clock: The time.
    """

    store: EndpointHealthStore
    webhooks: WebhookReader
    subscriptions: SubscriptionLookup
    producer: RecordProducer
    clock: Clock


class EndpointHealth:
    """Follows how the endpoints of one worker fare, and deals with what is due about anybody's.

    Args:
        outside: What it works with.
        find: Returns a subscription of the index, or None.
        topic: The outcomes topic.
        period_ms: How long a webhook may fail before it is disabled.
        owner: Tells this worker from every other.
        metrics: Counts.

    Attributes:
        failing: Ids of webhooks that are known to fail: only of these a success is to be noted.
    """

    def __init__(
        self,
        outside: HealthOutside,
        find: Callable[[str], Subscription | None],
        topic: str,
        period_ms: int,
        owner: str,
        metrics: Metrics,
    ) -> None:
        self._outside = outside
        self._store = outside.store
        self._find = find
        self._topic = topic
        self._period_ms = period_ms
        self._owner = owner
        self._metrics = metrics
        self._notes: dict[str, HealthNote] = {}
        self.failing: set[str] = set()

    # --- what the attempts tell -----------------------------------------------------------------------------------

    def failed(self, subscription: Subscription, at_ms: int) -> None:
        """Note an attempt that failed."""
        self._note_of(subscription).failed(at_ms)
        self.failing.add(subscription.id)

    def succeeded(self, subscription: Subscription, at_ms: int) -> None:
        """Note a success of a webhook that is known to fail."""
        self._note_of(subscription).succeeded(at_ms)

    def _note_of(self, subscription: Subscription) -> HealthNote:
        note = self._notes.get(subscription.id)
        if note is None or note.endpoint_revision < subscription.endpoint_revision:
            note = HealthNote(subscription.id, subscription.workspace_id, subscription.endpoint_revision)
            self._notes[subscription.id] = note
        elif note.endpoint_revision > subscription.endpoint_revision:
            # The answer to a request that went to the former endpoint: nothing to note.
            return HealthNote(subscription.id, subscription.workspace_id, subscription.endpoint_revision)
        return note

    # --- what happens by itself -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Write down and look, every now and then, until cancelled; without MongoDB or Kafka it tries again."""
        loop = asyncio.get_running_loop()
        look_at = loop.time()
        while True:
            try:
                await self.flush()
                if loop.time() >= look_at:
                    look_at = loop.time() + LOOK_SECONDS
                    await self.look()
            except (UnavailableError, TimeoutError) as error:
                log.warning("failing webhooks can't be looked after; trying again", error=str(error))
            await asyncio.sleep(min(FLUSH_SECONDS, LOOK_SECONDS))

    async def stop(self, within_seconds: float) -> None:
        """Write down what was seen, if MongoDB takes it in time."""
        try:
            async with asyncio.timeout(within_seconds):
                await self.flush()
        except (UnavailableError, TimeoutError) as error:
            log.warning("what was seen of failing webhooks isn't stored", error=str(error))

    async def flush(self) -> None:
        """Write down what was seen; where that fails it is kept for the next time.

        Raises:
            UnavailableError: MongoDB is out of reach.
        """
        notes, self._notes = self._notes, {}
        if not notes:
            return
        try:
            await self._store.note(list(notes.values()))
        except BaseException:
            for note in notes.values():
                self._keep(note)
            raise

    def _keep(self, earlier: HealthNote) -> None:
        """Put a note back under what came since."""
        later = self._notes.get(earlier.webhook_id)
        if later is None:
            self._notes[earlier.webhook_id] = earlier
        elif later.endpoint_revision == earlier.endpoint_revision and later.succeeded_at_ms is None:
            if later.first_failure_ms is not None:
                earlier.failed(later.first_failure_ms)
                earlier.failed(later.last_failure_ms)
            self._notes[earlier.webhook_id] = earlier

    async def look(self) -> None:
        """Learn what other workers saw, and deal with what is due.

        Raises:
            UnavailableError: MongoDB is out of reach.
            TimeoutError: Kafka is.
        """
        known = await self._store.load()
        # In place: the attempts hold this very set. What isn't written down yet stays known.
        self.failing.clear()
        self.failing.update(endpoint.webhook_id for endpoint in known)
        self.failing.update(self._notes)
        now_ms = self._outside.clock.now_ms()
        for endpoint in known:
            if endpoint.trouble is Trouble.GONE:
                await self._finish_gone(endpoint)
                continue
            due = what_is_due(endpoint, now_ms, self._period_ms)
            if due is not Due.NOTHING:
                await self._deal_with(endpoint, due)
            elif not self._still_counts(endpoint):
                await self._store.forget(endpoint)

    def _still_counts(self, endpoint: FailingEndpoint) -> bool:
        subscription = self._find(endpoint.webhook_id)
        return (
            subscription is not None
            and subscription.status == Status.ACTIVE
            and subscription.endpoint_revision <= endpoint.endpoint_revision
        )

    async def _deal_with(self, endpoint: FailingEndpoint, due: Due) -> None:
        if not await self._store.claim(endpoint, TAKEN_OVER_AFTER_MS):
            return
        outside = self._outside
        webhook = await outside.webhooks.get(endpoint.workspace_id, endpoint.webhook_id)
        if webhook is None or webhook.subscription.endpoint_revision != endpoint.endpoint_revision:
            await self._store.forget(endpoint)
            return
        subscription = webhook.subscription
        if subscription.status == Status.DISABLED and webhook.disabled_reason == Trouble.FAILING.value:
            # Whoever disabled it came to an end before it could tell.
            await self._tell_disabled(endpoint, webhook.disabled_at_ms or outside.clock.now_ms())
        elif subscription.status != Status.ACTIVE or await self._store.delivered_since(endpoint):
            await self._store.forget(endpoint)
        elif due is Due.WARN:
            await self._tell(endpoint, webhook_failing(endpoint, outside.clock.now_ms(), self._period_ms))
            self._metrics.webhooks_warned.inc()
            await self._store.set_warned(endpoint)
            log.info("webhook fails since half of the time after which it is disabled", id=endpoint.webhook_id)
        else:
            now_ms = outside.clock.now_ms()
            if await outside.subscriptions.disable(subscription, Trouble.FAILING.value, now_ms):
                self._metrics.webhooks_disabled.counts[Trouble.FAILING.value] += 1
                log.info("webhook is disabled, having failed for too long", id=endpoint.webhook_id)
                await self._tell_disabled(endpoint, now_ms)
            # Otherwise it was changed this very moment: the next who looks sees what has become of it.

    async def _tell_disabled(self, endpoint: FailingEndpoint, at_ms: int) -> None:
        await self._tell(endpoint, webhook_disabled(endpoint, endpoint.trouble.value, at_ms))
        await self._store.forget(endpoint)

    async def _tell(self, endpoint: FailingEndpoint, value: bytes) -> None:
        """Produce an operational event; where Kafka doesn't take it in time it is withdrawn, and told another time."""
        outgoing = OutgoingRecord(self._topic, endpoint.webhook_id.encode(), value, ())
        async with asyncio.timeout(PRODUCE_SECONDS):
            try:
                await self._outside.producer.produce(outgoing)
            except RejectedRecordError as error:
                log.warning("Kafka refuses an operational event", id=endpoint.webhook_id, error=str(error))
                return
        self._metrics.operational_events.inc()

    # --- endpoints that are gone ----------------------------------------------------------------------------------

    async def disable_gone(self, subscription: Subscription, now_ms: int, then: Callable[[], None]) -> None:
        """Disable a webhook whose endpoint is gone, and tell of it.

        What is about to happen is noted first, so that another worker tells of it where this one can't.

        Args:
            subscription: What was sent to.
            now_ms: When it was said to be gone; the same where this is called again, after a failure.
            then: Called once it is disabled, or need not be; before it is told of.

        Raises:
            UnavailableError: MongoDB is out of reach, and `then` wasn't called; call this again.
        """
        gone = FailingEndpoint(
            subscription.id,
            subscription.workspace_id,
            subscription.endpoint_revision,
            now_ms,
            now_ms,
            trouble=Trouble.GONE,
            key=f"{subscription.id}/gone/{self._owner}/{now_ms}",
        )
        await self._store.announce_gone(gone)
        disabled = await self._outside.subscriptions.disable(subscription, Trouble.GONE.value, now_ms)
        if not disabled:
            # Where the answer to an earlier call was lost, it was this worker all the same.
            webhook = await self._outside.webhooks.get(subscription.workspace_id, subscription.id)
            disabled = webhook is not None and webhook.disabled_at_ms == now_ms
        then()
        try:
            if disabled:
                self._metrics.webhooks_disabled.counts[Trouble.GONE.value] += 1
                await self._tell_disabled(gone, now_ms)
            else:
                await self._store.forget(gone)
        except (UnavailableError, TimeoutError) as error:
            log.warning("that a webhook is disabled is told later", id=subscription.id, error=str(error))

    async def _finish_gone(self, endpoint: FailingEndpoint) -> None:
        if not await self._store.claim(endpoint, TAKEN_OVER_AFTER_MS):
            return
        webhook = await self._outside.webhooks.get(endpoint.workspace_id, endpoint.webhook_id)
        if (
            webhook is not None
            and webhook.subscription.status == Status.DISABLED
            and webhook.disabled_reason == Trouble.GONE.value
        ):
            await self._tell_disabled(endpoint, webhook.disabled_at_ms or endpoint.last_failure_ms)
        else:
            await self._store.forget(endpoint)
