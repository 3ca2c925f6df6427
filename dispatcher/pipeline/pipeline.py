"""Puts the parts of the pipeline together."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from dispatcher.core.catalogue import Catalogue
from dispatcher.core.errors import UnavailableError
from dispatcher.core.matching import SubscriptionIndex
from dispatcher.core.model import RetryTier, Subscription
from dispatcher.core.sealing import Keyring
from dispatcher.core.topics import TopicNames
from dispatcher.metrics import Metrics, statistics_of
from dispatcher.pipeline.attempts import Attempts, RequestTemplates
from dispatcher.pipeline.endpoint_health import EndpointHealth, HealthOutside
from dispatcher.pipeline.intake import OwnIntake, SourceIntake
from dispatcher.pipeline.lane_clock import LaneClock
from dispatcher.pipeline.lanes import Lanes
from dispatcher.pipeline.log_buffer import LogBuffer
from dispatcher.pipeline.log_check import LogCheck
from dispatcher.pipeline.role import Engine, Role
from dispatcher.pipeline.settlement import Fatal, Settlement
from dispatcher.pipeline.work import Delivery, Window
from dispatcher.ports import (
    Clock,
    DeliveryLogWriter,
    EndpointHealthStore,
    RecordConsumer,
    RecordProducer,
    Sender,
    SubscriptionLookup,
    Tracer,
    WebhookReader,
)

log = structlog.get_logger(__name__)

_BACK_OFF_SECONDS = 1.0
_TIER = "retry."


@dataclass(frozen=True, slots=True)
class Outside:
    """What the pipeline needs of the outside; without `health` and `webhooks` no endpoint's failures are followed.

    Without `tracer` no spans are made.
    """

    sender: Sender
    producer: RecordProducer
    delivery_log: DeliveryLogWriter
    subscriptions: SubscriptionLookup
    clock: Clock
    health: EndpointHealthStore | None = None
    webhooks: WebhookReader | None = None
    tracer: Tracer | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds and choices that come from the settings; without a catalogue no event is looked up in one.

    Attributes:
        auto_disable_ms: How long a webhook may do nothing but fail before it is disabled.
        outcomes: Whether each finished delivery is also written to the outcomes topic.
        owner: Tells this worker from every other.
    """

    max_in_flight: int = 4096
    max_in_flight_per_webhook: int = 4096
    circuit_wait_ms: int = 3_600_000
    max_event_bytes: int = 1_048_576
    default_workspace: str | None = None
    user_agent: str = "Dispatcher-Webhooks/1.0"
    catalogue: Catalogue | None = None
    refuses_off_catalogue: bool = False
    auto_disable_ms: int = 5 * 86_400_000
    outcomes: bool = False
    owner: str = "worker"


class Pipeline:
    """The I/O loops between a record's arrival and its offset's completion.

    Args:
        outside: What it sends, produces, logs and looks up with.
        index: Today's subscriptions; kept current by somebody else.
        keyring: Opens their secrets.
        names: The own topics and the schedule.
        limits: Bounds.
        metrics: Instruments.
        gate: False while nothing may be taken up or sent (the index is stale).
        fatal: Told of what no trying again can mend; ends the process.
    """

    def __init__(
        self,
        outside: Outside,
        index: SubscriptionIndex,
        keyring: Keyring,
        names: TopicNames,
        limits: Limits,
        metrics: Metrics,
        gate: Callable[[], bool],
        fatal: Fatal,
    ) -> None:
        self._outside = outside
        self._index = index
        self._limits = limits
        self._metrics = metrics
        self._fatal = fatal
        self._tasks: set[asyncio.Task[None]] = set()
        self._disabling: dict[Subscription, list[Callable[[], None]]] = {}
        window = Window()
        self.buffer = LogBuffer(outside.delivery_log, metrics, self._wake)
        self.settlement = Settlement(
            names,
            outside.producer,
            self.buffer,
            metrics,
            fatal,
            limits.circuit_wait_ms,
            outcomes=limits.outcomes,
            tracer=outside.tracer,
        )
        self.health = self._health_of(names)
        attempts = Attempts(
            index,
            RequestTemplates(keyring, limits.user_agent),
            outside.sender,
            self.settlement,
            names.tiers,
            outside.clock,
            metrics,
            self._disable,
            self._wake,
            self.health,
            outside.tracer,
        )
        self._lane_clock = LaneClock(self._tick)
        self.lanes = Lanes(
            attempts.start,
            attempts.look_up,
            limits.max_in_flight,
            limits.max_in_flight_per_webhook,
            window,
            self._lane_clock,
            gate,
        )
        attempts.lanes = self.lanes
        self._engine = Engine(
            self.lanes, window, self.buffer, self.settlement, metrics, outside.clock, gate, self._check_for
        )
        self.roles: list[Role] = []
        self._show_gauges(window)

    def add_source(self, consumer: RecordConsumer) -> Role:
        """Add the role that reads source topics."""
        intake = SourceIntake(
            self._index,
            self.settlement,
            self._engine.window,
            self._metrics,
            self._limits.max_event_bytes,
            self._limits.default_workspace,
            self._limits.catalogue,
            refuses_off_catalogue=self._limits.refuses_off_catalogue,
            tracer=self._outside.tracer,
        )
        return self._add(Role("source", consumer, intake, self._engine))

    def add_own(self, name: str, consumer: RecordConsumer, tier: RetryTier | None = None) -> Role:
        """Add a role that reads one of the own topics.

        Args:
            name: `overflow`, `replay`, or `retry.` and the tier's name.
            consumer: Its group's consumer.
            tier: How long its records wait; None: they are due at once.
        """
        intake = OwnIntake(self.settlement, self._engine.window)
        return self._add(Role(name, consumer, intake, self._engine, tier.delay_ms if tier else None))

    async def run(self) -> None:
        """Run every role until `stop`.

        Raises:
            MisconfiguredError: Kafka refuses for good.
        """
        following = asyncio.get_running_loop().create_task(self.health.run()) if self.health is not None else None
        if following is not None:
            following.add_done_callback(self._ended)
            self._tasks.add(following)
        try:
            async with asyncio.TaskGroup() as group:
                for role in self.roles:
                    group.create_task(role.run(), name=f"role {role.name}")
        finally:
            if following is not None:
                following.cancel()

    async def stop(self) -> None:
        """Stop every role side by side, then write what is left of the delivery log.

        It takes about 20 s at most where Kafka answers, and 33 s where it doesn't: whoever ends it sooner costs
        repeats, and nothing else.
        """
        await asyncio.gather(*(role.stop() for role in self.roles), return_exceptions=True)
        await self.buffer.close(2.0)
        if self.health is not None:
            await self.health.stop(2.0)
        self._lane_clock.stop()

    def _health_of(self, names: TopicNames) -> EndpointHealth | None:
        outside, limits = self._outside, self._limits
        if outside.health is None or outside.webhooks is None:
            return None
        needed = HealthOutside(outside.health, outside.webhooks, outside.subscriptions, outside.producer, outside.clock)
        return EndpointHealth(
            needed, self._index.get, names.outcomes, limits.auto_disable_ms, limits.owner, self._metrics
        )

    def _add(self, role: Role) -> Role:
        self.roles.append(role)
        return role

    def _tick(self) -> None:
        if self.lanes.tick():
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        if self.lanes.pump():
            asyncio.get_running_loop().call_soon(self._pump)

    def _wake(self) -> None:
        self._engine.wake()

    def _check_for(self, ready: Callable[[Delivery], None]) -> LogCheck:
        return LogCheck(self._outside.delivery_log, self._outside.subscriptions, self._index, self._metrics, ready)

    def _disable(self, subscription: Subscription, reason: str, then: Callable[[], None]) -> None:
        waiting = self._disabling.get(subscription)
        if waiting is not None:
            waiting.append(then)
            return
        self._disabling[subscription] = [then]
        task = asyncio.get_running_loop().create_task(self._disable_durably(subscription, reason))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def _disable_durably(self, subscription: Subscription, reason: str) -> None:
        now_ms = self._outside.clock.now_ms()

        def disabled() -> None:
            for then in self._disabling.pop(subscription):
                then()

        while True:
            try:
                if self.health is not None:
                    await self.health.disable_gone(subscription, now_ms, disabled)
                else:
                    await self._outside.subscriptions.disable(subscription, reason, now_ms)
                    disabled()
                break
            except UnavailableError as error:
                log.warning("subscription can't be disabled; trying again", id=subscription.id, error=str(error))
                await asyncio.sleep(_BACK_OFF_SECONDS)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (fault := task.exception()) is not None:
            self._fatal(fault)

    def _show_gauges(self, window: Window) -> None:
        metrics = self._metrics
        lanes = self.lanes
        metrics.gauge("in_flight_deliveries", lambda: lanes.in_flight)
        metrics.gauge("queued_deliveries", lambda: lanes.queued)
        metrics.gauge("held_deliveries", lambda: lanes.held)
        metrics.gauge("slow_in_flight_deliveries", lambda: lanes.slow_in_flight)
        metrics.labelled_gauge("lanes", lanes.count_states)
        metrics.labelled_gauge("lane_limit_requests", lambda: statistics_of(lane.limit.current for lane in lanes.known))
        metrics.labelled_gauge(
            "lane_latency_seconds", lambda: statistics_of(lane.limit.latency_seconds for lane in lanes.known)
        )
        metrics.gauge("held_event_bytes", lambda: window.held_bytes)
        metrics.gauge("unlogged_outcomes", lambda: len(self.buffer))
        metrics.gauge("incomplete_records", lambda: sum(role.incomplete for role in self.roles))
        metrics.labelled_gauge("consumer_lag_seconds", lambda: self._behind(tiers=False))
        metrics.labelled_gauge("retry_overdue_seconds", lambda: self._behind(tiers=True))

    def _behind(self, *, tiers: bool) -> dict[str, float]:
        return {
            role.name.removeprefix(_TIER): role.behind_seconds
            for role in self.roles
            if role.name.startswith(_TIER) is tiers
        }
