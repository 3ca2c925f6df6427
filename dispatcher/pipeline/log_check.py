"""Asks the delivery log what was done already, before a delivery may be sent once more.

Asked are deliveries read from own topics (a forked retry chain, a hand-over whose answer came after all), and after
an unclean end those that a source partition's former owner may have made.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from itertools import islice

import structlog

from dispatcher.core.delivery_log import LoggedState, already_done
from dispatcher.core.errors import UnavailableError
from dispatcher.core.matching import SubscriptionIndex
from dispatcher.core.model import Subscription
from dispatcher.metrics import Metrics
from dispatcher.pipeline.work import Delivery
from dispatcher.ports import DeliveryLogWriter, SubscriptionLookup

log = structlog.get_logger(__name__)

BATCH_DELIVERIES = 500
ANSWER_WITHIN_SECONDS = 1.0
_BACK_OFF_SECONDS = 1.0


class LogCheck:
    """Checks deliveries in batches, one batch at a time.

    Args:
        states: Asks the log.
        lookup: Asks for a subscription that the index doesn't hold.
        index: The index.
        metrics: Counts what was closed.
        ready: Told of each delivery that is still to be sent.
    """

    def __init__(
        self,
        states: DeliveryLogWriter,
        lookup: SubscriptionLookup,
        index: SubscriptionIndex,
        metrics: Metrics,
        ready: Callable[[Delivery], None],
    ) -> None:
        self._states = states
        self._lookup = lookup
        self._index = index
        self._metrics = metrics
        self._ready = ready
        self._pending: deque[Delivery] = deque()
        self._running: asyncio.Task[None] | None = None
        self._unknown: dict[str, list[Delivery]] = {}
        self._unknown_count = 0
        self._lookups: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """How many deliveries wait to be checked, or for their subscription to be looked up."""
        return len(self._pending) + self._unknown_count

    def submit(self, delivery: Delivery) -> None:
        """Check a delivery; it is then ready, or its record's part is done."""
        self._pending.append(delivery)
        if self._running is None:
            self._running = asyncio.get_running_loop().create_task(self._run())
            self._running.add_done_callback(_raise_fault)

    async def _run(self) -> None:
        try:
            while self._pending:
                # They count as waiting until the log has answered.
                batch = list(islice(self._pending, BATCH_DELIVERIES))
                states = await self._ask(batch)
                for delivery in batch:
                    self._pending.popleft()
                    self._pass_on(delivery, states)
        finally:
            self._running = None

    async def _ask(self, batch: list[Delivery]) -> Mapping[str, LoggedState]:
        try:
            return await asyncio.wait_for(
                self._states.states([delivery.id for delivery in batch]), ANSWER_WITHIN_SECONDS
            )
        except (UnavailableError, TimeoutError):
            # Without an answer they are sent: a repeat is allowed, a loss is not.
            log.warning("the delivery log doesn't say what was sent before; sending all", deliveries=len(batch))
            return {}

    def _pass_on(self, delivery: Delivery, states: Mapping[str, LoggedState]) -> None:
        if delivery.given_away:
            return
        if already_done(states.get(delivery.id), delivery.run, delivery.attempt):
            self._metrics.closed.inc()
            delivery.role.active.discard(delivery)
            delivery.work.done()
            return
        delivery.work.partition.unknown_to_log(delivery.work.offset)
        if self._index.get(delivery.subscription_id) is None:
            self._look_up(delivery)
        else:
            self._ready(delivery)

    def _look_up(self, delivery: Delivery) -> None:
        self._unknown_count += 1
        waiting = self._unknown.get(delivery.subscription_id)
        if waiting is not None:
            waiting.append(delivery)
            return
        self._unknown[delivery.subscription_id] = [delivery]
        task = asyncio.get_running_loop().create_task(self._find(delivery.subscription_id))
        self._lookups.add(task)
        task.add_done_callback(self._lookups.discard)
        task.add_done_callback(_raise_fault)

    async def _find(self, subscription_id: str) -> None:
        """Look a subscription up that another worker's index may know already, however long that takes."""
        waiting = self._unknown[subscription_id]
        found: Subscription | None = None
        while True:
            try:
                found = await self._lookup.find(subscription_id)
            except UnavailableError as error:
                log.warning("subscription can't be looked up; trying again", error=str(error))
            else:
                break
            if all(delivery.given_away for delivery in waiting):
                break
            await asyncio.sleep(_BACK_OFF_SECONDS)
        del self._unknown[subscription_id]
        self._unknown_count -= len(waiting)
        for delivery in waiting:
            # It may have been handed over while the answer was on its way.
            if not delivery.given_away:
                delivery.subscription = found
                self._ready(delivery)


def _raise_fault(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (fault := task.exception()) is not None:
        raise fault
