"""One worker: consumes, matches, sends, until it is told to stop."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import structlog
import uvloop

from dispatcher.api.health import make_operations_app
from dispatcher.app.child import ControlChannel
from dispatcher.app.clock import SystemClock, draw
from dispatcher.app.connections import kafka_producer, mongo_connection, sender_of, tracer_of
from dispatcher.app.kafka_watch import KafkaWatch
from dispatcher.app.logging import configure
from dispatcher.app.open_files import allow_open_files
from dispatcher.app.replays import WorkerReplays
from dispatcher.app.resolve import resolve_settings
from dispatcher.app.serving import Listener, listen
from dispatcher.app.stuck_loop import stuck_loop_watch
from dispatcher.app.supervisor import call_on_signals
from dispatcher.core.catalogue import Catalogue
from dispatcher.core.errors import DispatcherError, MisconfiguredError, TopicsError
from dispatcher.core.matching import SubscriptionIndex
from dispatcher.core.model import RetryTier
from dispatcher.core.sealing import Keyring
from dispatcher.core.topics import TopicNames, group_of
from dispatcher.kafka import topics
from dispatcher.kafka.consumer import KafkaConsumer
from dispatcher.kafka.producer import KafkaProducer
from dispatcher.metrics import Metrics
from dispatcher.mongo.audit import MongoAudit
from dispatcher.mongo.client import Connection
from dispatcher.mongo.delivery_log import MongoDeliveryLog
from dispatcher.mongo.endpoint_health import MongoEndpointHealth
from dispatcher.mongo.subscription_feed import SubscriptionFeed
from dispatcher.mongo.webhooks import MongoWebhooks
from dispatcher.operations.audit import Audit
from dispatcher.operations.catalogue import load_catalogue
from dispatcher.operations.disabling import AuditedSubscriptions
from dispatcher.pipeline.pipeline import Limits, Outside, Pipeline
from dispatcher.ports import Tracer
from dispatcher.settings import DEAD_LETTER, Settings

log = structlog.get_logger(__name__)

STALE_SECONDS = 300.0
SILENT_SECONDS = 10.0
"""A change stream that was not answered for so long tells that MongoDB is out of reach, though nothing is written."""
DAY_MS = 86_400_000
WATCH_SECONDS = 1.0
TIER_FETCH_BYTES = 256 * 1024
OTHER_FETCH_BYTES = 1024 * 1024


class Worker:
    """A worker's parts, built from the settings.

    Args:
        settings: All of them.
        connection: MongoDB.
        producer: Kafka's producer.
        catalogue: The event types that are known.
        former_tiers: Tiers that are no longer configured and whose topics are to be emptied.
        tracer: Makes spans; None: there are none.
    """

    def __init__(
        self,
        settings: Settings,
        connection: Connection,
        producer: KafkaProducer,
        catalogue: Catalogue,
        former_tiers: tuple[RetryTier, ...] = (),
        tracer: Tracer | None = None,
    ) -> None:
        self._settings = settings
        self._connection = connection
        self._producer = producer
        self._former_tiers = former_tiers
        self._clock = SystemClock()
        self._names = TopicNames(settings.topics.prefix, settings.topics.tiers)
        self._stop = asyncio.Event()
        self._fault: BaseException | None = None
        tiers = (*settings.topics.tiers, *former_tiers)
        self.metrics = Metrics(tier.name for tier in tiers)
        self.index = SubscriptionIndex()
        audit = Audit(MongoAudit(connection.audit), self._clock, draw)
        stored_webhooks = MongoWebhooks(connection.webhooks)
        self._feed = SubscriptionFeed(connection.webhooks, self.index, self._clock)
        self._sender = sender_of(settings)
        self.pipeline = Pipeline(
            Outside(
                self._sender,
                producer,
                MongoDeliveryLog(connection.deliveries),
                AuditedSubscriptions(stored_webhooks, audit),
                self._clock,
                MongoEndpointHealth(connection.endpoint_health, connection.deliveries),
                stored_webhooks,
                tracer,
            ),
            self.index,
            Keyring(settings.encryption_keys),
            self._names,
            Limits(
                max_in_flight=settings.send.max_in_flight,
                max_in_flight_per_webhook=settings.send.max_in_flight_per_webhook,
                circuit_wait_ms=settings.send.circuit_wait_ms,
                max_event_bytes=settings.topics.max_event_bytes,
                default_workspace=settings.topics.default_workspace,
                user_agent=settings.send.user_agent,
                catalogue=catalogue,
                refuses_off_catalogue=settings.catalogue.policy == DEAD_LETTER,
                auto_disable_ms=settings.auto_disable_days * DAY_MS,
                outcomes=settings.topics.outcomes,
                owner=draw(8).hex(),
            ),
            self.metrics,
            self._is_fresh,
            self.fail,
        )
        self._replays = WorkerReplays(
            settings, connection, producer, self._names.replay, catalogue, self._clock, self.metrics
        )
        self._kafka_watch = KafkaWatch(settings, self.pipeline, self.metrics)
        self._consumers: list[KafkaConsumer] = []
        self._add_roles()
        self.metrics.gauge("index_subscriptions", lambda: self._feed.size)
        self.metrics.gauge("index_staleness_seconds", self._staleness)
        self.metrics.gauge("index_broken_documents", lambda: self._feed.broken)
        self.metrics.show_readiness(self._checks)

    def stop(self) -> None:
        """Begin to end: finish or hand over what is in flight, then return from `run`."""
        self._stop.set()

    def fail(self, fault: BaseException) -> None:
        """Note a fault that no trying again can mend, and begin to end."""
        if self._fault is None:
            self._fault = fault
            log.error("the worker ends", fault=str(fault), kind=type(fault).__name__)
        self._stop.set()

    async def run(self) -> None:
        """Work until `stop` or a fault.

        Raises:
            MisconfiguredError: Kafka refuses for good.
            Exception: Whatever else ended the worker.
        """
        asyncio.get_running_loop().set_exception_handler(self._on_unhandled)
        following = self._begin(self._feed.run(), "subscription feed")
        tasks = [following]
        try:
            # What is loaded lives as long as the process: the collector need not look at it again and again.
            gc.disable()
            try:
                await self._until_loaded(following)
            finally:
                gc.freeze()
                gc.enable()
                # Deliveries make next to no cycles (0.007 objects each), and a look at what lives takes 50 ms.
                gc.set_threshold(200_000, 20, 50)
            if not self._stop.is_set():
                tasks.append(self._begin(self._run_pipeline(), "pipeline"))
                tasks.append(self._begin(self._replays.run(), "replays"))
                tasks.append(self._begin(self._watch(), "watch"))
                tasks.append(self._begin(self._kafka_watch.run(), "Kafka watch"))
            await self._stop.wait()
        finally:
            await self.pipeline.stop()
            await self._sender.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if self._fault is not None:
            raise self._fault

    def _begin(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        """Run a part beside the others; where it dies, the worker ends instead of only looking alive."""

        def ended(task: "asyncio.Task[None]") -> None:
            if not task.cancelled() and (fault := task.exception()) is not None:
                self.fail(fault)

        task = asyncio.create_task(work, name=name)
        task.add_done_callback(ended)
        return task

    async def readiness(self) -> Mapping[str, str | None]:
        """Say of each part what keeps it from being ready; None where nothing does."""
        return self._checks()

    def _checks(self) -> Mapping[str, str | None]:
        waiting = [role.name for role in self.pipeline.roles if not role.joined]
        return {
            "index": None if self._is_fresh() else "the subscriptions are not loaded, or are stale",
            "groups": f"not joined yet: {', '.join(waiting)}" if waiting else self._cut_off(),
            "kafka": self._kafka_watch.trouble or (None if self._producer.healthy else "produces are not acknowledged"),
            "mongo": self._mongo_trouble(),
        }

    def _cut_off(self) -> str | None:
        roles = zip(self.pipeline.roles, self._consumers, strict=True)
        silent = [role.name for role, consumer in roles if not consumer.is_member]
        return f"heartbeats are not answered: {', '.join(silent)}" if silent else None

    def _mongo_trouble(self) -> str | None:
        if self.pipeline.buffer.failing_since is not None:
            return "the delivery log can't be written"
        return "MongoDB doesn't answer" if self._staleness() > SILENT_SECONDS else None

    def _add_roles(self) -> None:
        wanted = self._settings.topics
        source = self._consumer(
            "source",
            topics=() if wanted.source_pattern else wanted.source_topics,
            pattern=wanted.source_pattern,
            start_from=wanted.start_from,
            fetch_bytes=OTHER_FETCH_BYTES,
        )
        self.pipeline.add_source(source)
        for tier in (*wanted.tiers, *self._former_tiers):
            name = f"retry.{tier.name}"
            consumer = self._consumer(name, topics=(self._names.retry(tier),), fetch_bytes=TIER_FETCH_BYTES)
            self.pipeline.add_own(name, consumer, tier)
        for name, topic in (("overflow", self._names.overflow), ("replay", self._names.replay)):
            self.pipeline.add_own(name, self._consumer(name, topics=(topic,), fetch_bytes=OTHER_FETCH_BYTES))

    def _consumer(
        self,
        role: str,
        *,
        topics: tuple[str, ...],
        fetch_bytes: int,
        pattern: str | None = None,
        start_from: object = None,
    ) -> KafkaConsumer:
        consumer = KafkaConsumer(
            self._settings.kafka,
            group=group_of(self._settings.topics.consumer_group, role),
            topics=topics,
            pattern=pattern,
            excluded_prefix=f"{self._settings.topics.prefix}.",
            start_from=start_from,  # type: ignore[arg-type]
            max_partition_fetch_bytes=fetch_bytes,
        )
        self._consumers.append(consumer)
        return consumer

    def _staleness(self) -> float:
        return self._feed.staleness_seconds(self._clock.monotonic())

    def _is_fresh(self) -> bool:
        return self._staleness() < STALE_SECONDS

    async def _until_loaded(self, following: "asyncio.Task[None]") -> None:
        ready = asyncio.create_task(self._feed.ready())
        stopped = asyncio.create_task(self._stop.wait())
        await asyncio.wait({ready, stopped, following}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        stopped.cancel()

    async def _run_pipeline(self) -> None:
        try:
            await self.pipeline.run()
        except* MisconfiguredError as group:
            self.fail(group.exceptions[0])
        except* Exception as group:  # noqa: BLE001 - whatever it is, the worker can't go on
            self.fail(group)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            failures = [consumer.failure for consumer in self._consumers] + [self._producer.failure]
            if (fault := next((each for each in failures if each is not None), None)) is not None:
                self.fail(fault)

    def _on_unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        """End the worker where a callback of its own failed; connections that break by themselves are no fault."""
        fault = context.get("exception")
        own = "handle" in context or not isinstance(fault, OSError)
        if isinstance(fault, Exception) and own:
            log.error("unhandled", message=str(context.get("message")), exc_info=fault)
            self.fail(fault)
        else:
            loop.default_exception_handler(context)


@asynccontextmanager
async def open_worker(settings: Settings) -> AsyncIterator[Worker]:
    """Connect everything that a worker needs.

    Raises:
        SettingsError: The event catalogue is wrong, or what spans need is not installed.
        TopicsError: The own topics are missing or wrong.
        UnavailableError: Kafka or MongoDB is out of reach.
        MisconfiguredError: Kafka refuses the credentials.
    """
    catalogue = load_catalogue(settings.catalogue.schemas_dir)
    async with AsyncExitStack() as stack:
        tracer = stack.enter_context(tracer_of(settings))
        try:
            async with asyncio.TaskGroup() as steps:
                connecting = steps.create_task(stack.enter_async_context(mongo_connection(settings)))
                producing = steps.create_task(stack.enter_async_context(kafka_producer(settings)))
                checking = steps.create_task(topics.check(settings.kafka, settings.topics))
                looking = steps.create_task(topics.former_tiers(settings.kafka, settings.topics))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        if problems := checking.result():
            raise TopicsError(problems)
        if former := looking.result():
            log.warning("tiers that are no longer configured are emptied", tiers=[tier.name for tier in former])
        yield Worker(settings, connecting.result(), producing.result(), catalogue, tuple(former), tracer)


async def serve_worker(
    settings: Settings, *, on_signals: Callable[[Callable[[], None]], None], announce: Callable[[int], None]
) -> None:
    """Run a worker with its metrics page.

    Args:
        settings: All of them; the metrics page listens where they say.
        on_signals: Is given what is to be called when the process is told to end.
        announce: Is told the port of the metrics page.
    """
    async with open_worker(settings) as worker:
        on_signals(worker.stop)

        async def page() -> bytes:
            return worker.metrics.page()

        app = make_operations_app(lambda: True, worker.readiness, page)
        async with listen(app, Listener(settings.server.metrics_host, settings.server.metrics_port)) as port:
            announce(port)
            with stuck_loop_watch():
                await worker.run()


def main(*, local: bool, worker_number: int, control: ControlChannel | None) -> int:
    """Run one worker until SIGTERM or SIGINT.

    Args:
        local: Local defaults hold.
        worker_number: Shown on every line of the log.
        control: The channel to the supervisor; None where there is none.

    Returns:
        The exit code: 0 after a clean end, 1 after a fault.
    """
    settings = resolve_settings(run_local=local)
    allow_open_files()
    configure(settings.log, fields={"worker": worker_number} if control else None)
    if control is not None:
        # Several workers share this host: each takes a free port, and the supervisor's page merges them.
        settings = replace(settings, server=replace(settings.server, metrics_host="127.0.0.1", metrics_port=0))

    def announce(port: int) -> None:
        if control is not None:
            control.announce(metrics_port=port)
        else:
            log.info("worker started", metrics=f"http://{settings.server.metrics_host}:{port}/metrics")

    try:
        uvloop.run(serve_worker(settings, on_signals=call_on_signals, announce=announce))
    except DispatcherError:
        raise
    except Exception as error:  # noqa: BLE001 - the fault was logged where it was met
        log.critical("the worker ended by a fault", fault=str(error), kind=type(error).__name__)
        return 1
    return 0
