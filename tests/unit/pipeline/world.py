"""A whole pipeline over fakes."""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from dispatcher.core.delivery_id import DeliveryIds
from dispatcher.core.matching import SubscriptionIndex
from dispatcher.core.model import Origin, RecordHeaders, SealedSecret, Subscription
from dispatcher.core.records import DeliveryRecord, encode_headers
from dispatcher.core.retry import parse_tier
from dispatcher.core.sealing import Keyring, SealPurpose, binding
from dispatcher.core.topics import TopicNames
from dispatcher.core.urls import parse_endpoint_url
from dispatcher.metrics import Metrics
from dispatcher.pipeline import role
from dispatcher.pipeline.pipeline import Limits, Outside, Pipeline
from tests.fakes.health import MemoryEndpointHealth, MemoryWebhookStates
from tests.fakes.http import MemorySender
from tests.fakes.kafka import MemoryBroker, MemoryConsumer, MemoryProducer, StoredRecord
from tests.fakes.log import MemoryDeliveryLog, MemorySubscriptions, SteeredClock

WORKSPACE = "ws"
KEYRING = Keyring([b"k" * 32])


async def eventually(condition: Callable[[], Any], what: str = "", within_seconds: float = 8.0) -> None:
    """Wait until a condition holds; fail at the deadline."""
    deadline = time.monotonic() + within_seconds
    while not condition():
        assert time.monotonic() < deadline, f"in vain: {what or condition}"
        await asyncio.sleep(0.002)


async def turns(count: int = 20) -> None:
    """Let the loop turn, so that what can happen at once has happened."""
    for _ in range(count):
        await asyncio.sleep(0)


def subscription(subscription_id: str, **fields: Any) -> Subscription:
    """Make an active subscription that wants everything."""
    workspace = fields.pop("workspace_id", WORKSPACE)
    aad = binding(workspace, subscription_id, SealPurpose.SIGNING_SECRET)
    secret = SealedSecret(KEYRING.seal(fields.pop("secret", b"s3cret"), nonce=b"n" * 12, aad=aad))
    url = parse_endpoint_url(fields.pop("url", f"https://{subscription_id.replace('_', '-')}.example.com/in"))
    made = Subscription(subscription_id, workspace, url, ("*",), (secret,))
    return replace(made, **fields)


class World:
    """Everything that one worker has, and the world around it; failures of endpoints are followed where asked for."""

    def __init__(
        self, *tiers: str, broker: MemoryBroker | None = None, follows_health: bool = False,
        tracer: Any = None, **limits: Any,
    ) -> None:  # fmt: skip
        self.broker = broker or MemoryBroker([])
        self.history = self.broker.history
        self.producer = MemoryProducer(self.broker)
        self.sender = MemorySender(self.history)
        self.log = MemoryDeliveryLog(self.history)
        self.subscriptions = MemorySubscriptions()
        self.clock = SteeredClock()
        self.index = SubscriptionIndex()
        self.names = TopicNames("webhooks", tuple(parse_tier(tier) for tier in tiers or ("1m", "5m")))
        self.metrics = Metrics(tier.name for tier in self.names.tiers)
        self.faults: list[BaseException] = []
        self.unhandled: list[dict[str, Any]] = []
        self.gate_open = True
        self.health = MemoryEndpointHealth(self.clock)
        self.webhooks = MemoryWebhookStates()
        outside = Outside(self.sender, self.producer, self.log, self.subscriptions, self.clock, tracer=tracer)
        if follows_health:
            outside = replace(outside, subscriptions=self.webhooks, health=self.health, webhooks=self.webhooks)
        self.pipeline = Pipeline(
            outside,
            self.index,
            KEYRING,
            self.names,
            Limits(**limits),
            self.metrics,
            lambda: self.gate_open,
            self.faults.append,
        )
        self.consumers: dict[str, MemoryConsumer] = {}
        self.running: asyncio.Task[None] | None = None

    @property
    def window(self) -> Any:
        """The payload window."""
        return self.pipeline._engine.window

    def role(self, name: str) -> role.Role:
        """Return a role by its name."""
        return next(each for each in self.pipeline.roles if each.name == name)

    def add_source(self) -> MemoryConsumer:
        """Add the source role."""
        consumer = self.consumers["source"] = MemoryConsumer(self.broker, "source")
        self.pipeline.add_source(consumer)
        return consumer

    def add_own(self, name: str) -> MemoryConsumer:
        """Add the role `overflow`, `replay` or `retry.…`."""
        consumer = self.consumers[name] = MemoryConsumer(self.broker, name)
        tier = next((each for each in self.names.tiers if f"retry.{each.name}" == name), None)
        self.pipeline.add_own(name, consumer, tier)
        return consumer

    def topic_of(self, name: str) -> str:
        """Return the topic that a role reads."""
        return "events" if name == "source" else f"webhooks.{name}"

    async def start(self, partitions: int = 1) -> None:
        """Run the roles and assign everything to them."""
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: self.unhandled.append(context))
        self.running = asyncio.create_task(self.pipeline.run())
        for name, consumer in self.consumers.items():
            await consumer.assign(*((self.topic_of(name), number) for number in range(partitions)))

    async def stop(self) -> None:
        """Stop whatever runs; check that nothing failed unseen."""
        await self.pipeline.stop()
        if self.running is not None:
            await asyncio.wait({self.running}, timeout=5)
        for task in asyncio.all_tasks():
            if task is not asyncio.current_task() and "dispatcher/pipeline" in repr(task):
                task.cancel()
        await turns()

    def publish(self, number: int | str, *, partition: int = 0, **fields: Any) -> StoredRecord:
        """Put an event on the source topic."""
        return self.broker.append("events", event_bytes(number, **fields), partition=partition)

    def put_own(self, topic: str, number: int | str, subscription_id: str, **fields: Any) -> StoredRecord:
        """Put a delivery on an own topic."""
        headers = own_headers(number, subscription_id, **fields)
        return self.broker.append(f"webhooks.{topic}", event_bytes(number), key=b"k", headers=headers)

    async def crash(self) -> None:
        """End as a killed process does: nothing is handed over, and nothing comes of what was under way."""
        self.log.down = True
        self.producer.holding = True
        self.producer.held.clear()
        self.sender.answers = lambda _sent: None
        for consumer in self.consumers.values():
            consumer.vanish()
        if self.running is not None:
            self.running.cancel()
            await asyncio.wait({self.running})

    def caught_up(self, *names: str) -> bool:
        """Say whether roles have committed everything that is on their topics."""
        return all(self.broker.lag(name, self.topic_of(name)) == 0 for name in names or self.consumers)


def event_bytes(number: int | str, **fields: Any) -> bytes:
    """Make the bytes of an event."""
    body = {"id": f"evt_{number}", "type": "user.created", "workspace_id": WORKSPACE, "data": {"n": number}}
    return json.dumps(body | fields).encode()


def delivery_id(number: int | str, subscription_id: str) -> str:
    """Return the id of an event's delivery."""
    return DeliveryIds(WORKSPACE, "", f"evt_{number}").of(subscription_id)


def own_headers(number: int | str, subscription_id: str, **fields: Any) -> RecordHeaders:
    """Make the headers of a delivery on an own topic."""
    record = DeliveryRecord(
        delivery_id(number, subscription_id),
        subscription_id,
        fields.pop("workspace_id", WORKSPACE),
        fields.pop("attempt", 1),
        fields.pop("not_before_ms", 0),
        0,
        fields.pop("parked_since_ms", None),
        Origin("events", 0, 7, 1_768_473_000_000),
        **fields,
    )
    return encode_headers(record, ())
