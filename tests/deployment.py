"""A whole dispatcher on real services: its topics, database and groups have names of their own.

Workers run in the test's process (`worker`) or as processes (`process`, see `tests/worker_process.py`); webhooks are
made by the operations that the API uses, events published as a service would.
"""

import asyncio
import base64
import contextlib
import gc
import ipaddress
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from aiohttp.test_utils import TestClient, TestServer
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from dispatcher.app.api import build_api
from dispatcher.app.clock import SystemClock, draw
from dispatcher.app.connections import mongo_connection
from dispatcher.app.worker import Worker, open_worker
from dispatcher.core.addresses import AddressPolicy
from dispatcher.core.delivery_id import DeliveryIds
from dispatcher.core.delivery_log import LoggedDelivery
from dispatcher.core.model import SealedSecret, Webhook
from dispatcher.core.records import DeliveryRecord, decode_dead_letter, decode_headers, encode_headers
from dispatcher.core.retry import parse_tier
from dispatcher.core.sealing import NONCE_BYTES, Keyring, SealPurpose, binding
from dispatcher.core.topics import TopicNames, group_of
from dispatcher.kafka import topics
from dispatcher.mongo.api_keys import MongoApiKeys
from dispatcher.mongo.client import Connection
from dispatcher.mongo.delivery_pages import MongoDeliveryPages
from dispatcher.mongo.webhooks import MongoWebhooks
from dispatcher.operations.api_keys import ApiKeys
from dispatcher.operations.webhooks import Webhooks
from dispatcher.settings import MongoSettings, SendSettings, Settings, TopicSettings
from tests.kafka_support import admin_client, committed, quick, until
from tests.receiver import Received, Receiver, open_receiver
from tests.worker_process import WORKER, WorkerProcess

KEY = b"k" * 32
WORKSPACE = "acme"
LOOPBACK = ipaddress.ip_network("127.0.0.0/8")


def make_settings(
    kafka_bootstrap: str, mongo_uri: str, name: str, tiers: Sequence[str] = ("300ms", "600ms"), **changes: Any
) -> Settings:
    """Give the settings of a deployment; `changes` are those of its topics."""
    wanted: dict[str, Any] = {
        "source_topics": (f"{name}-events",),
        "start_from": "earliest",
        "prefix": name,
        "consumer_group": name,
        "tiers": tuple(map(parse_tier, tiers)),
        "partitions": 2,
        "replication": 1,
    }
    return Settings(
        kafka=quick(kafka_bootstrap),
        mongo=MongoSettings(mongo_uri, name),
        encryption_keys=(KEY,),
        topics=TopicSettings(**{**wanted, **changes}),
        send=SendSettings(allow_http=True, allowed_networks=(LOOPBACK,)),
    )


class Deployment:
    """A dispatcher's surroundings.

    Attributes:
        settings: What its workers run with.
        receiver: The endpoints of its webhooks.
        source: Its source topic.
        names: Its own topics.
    """

    def __init__(
        self, settings: Settings, receiver: Receiver, connection: Connection, producer: AIOKafkaProducer
    ) -> None:
        self.settings = settings
        self.receiver = receiver
        self.connection = connection
        self.producer = producer
        self.source = settings.topics.source_topics[0]
        self.names = TopicNames(settings.topics.prefix, settings.topics.tiers)
        self.log = MongoDeliveryPages(connection.deliveries)
        policy = AddressPolicy(allow_http=True, allowed_networks=(LOOPBACK,), allowed_ports=frozenset())
        self.store = MongoWebhooks(connection.webhooks)
        self.webhooks = Webhooks(self.store, SystemClock(), policy, Keyring((KEY,)), draw)

    # Webhooks and events

    async def webhook(self, path: str, workspace: str = WORKSPACE, **fields: Any) -> Webhook:
        """Create a webhook that sends to a path of the receiver; it wants every event unless `events` says less."""
        sent = {"url": self.receiver.url(path), "events": ["*"], **fields}
        return (await self.webhooks.create(workspace, sent)).webhook

    async def change_secret(self, webhook: Webhook, secret: str) -> None:
        """Put another secret in the place of a webhook's."""
        stored = await self.store.get(webhook.subscription.workspace_id, webhook.subscription.id)
        assert stored is not None
        old = stored.subscription
        aad = binding(old.workspace_id, old.id, SealPurpose.SIGNING_SECRET)
        sealed = SealedSecret(Keyring((KEY,)).seal(secret.encode(), nonce=draw(NONCE_BYTES), aad=aad))
        changed = replace(stored, subscription=replace(old, secrets=(sealed,), revision=old.revision + 1))
        assert await self.store.replace(changed, expected_revision=old.revision)

    async def publish(
        self, *values: Mapping[str, Any] | bytes | None, topic: str = "", **options: Any
    ) -> list[tuple[int, int]]:
        """Publish events, or raw values; gives each one's partition and offset."""
        encoded = [json.dumps(value).encode() if isinstance(value, Mapping) else value for value in values]
        sends = [await self.producer.send(topic or self.source, value, **options) for value in encoded]
        return [(sent.partition, sent.offset) for sent in await asyncio.gather(*sends)]

    async def put(self, topic: str, record: DeliveryRecord, value: Mapping[str, Any]) -> None:
        """Produce a record to an own topic, as a worker would."""
        headers = list(encode_headers(record, ()))
        await self.producer.send_and_wait(topic, json.dumps(value).encode(), key=record.key, headers=headers)

    async def webhook_known_to(self, worker: Worker, path: str, workspace: str = WORKSPACE, **fields: Any) -> Webhook:
        """Create a webhook and wait until a worker of this process knows it."""
        webhook = await self.webhook(path, workspace, **fields)
        await until(lambda: worker.index.get(webhook.subscription.id), "the worker knows the webhook")
        return webhook

    @staticmethod
    def delivery_id(event_id: str, webhook: Webhook) -> str:
        """Derive the id of the delivery of a plain event."""
        return DeliveryIds(webhook.subscription.workspace_id, "", event_id).of(webhook.subscription.id)

    # What it left behind

    async def records(self, topic: str) -> list[Any]:
        """Read a topic from beginning to end; only what is committed."""
        async with AIOKafkaConsumer(
            bootstrap_servers=self.settings.kafka.bootstrap_servers, isolation_level="read_committed"
        ) as consumer:
            partitions = await _partitions(consumer, topic)
            end = await consumer.end_offsets(partitions)
            found: list[Any] = []
            consumer.assign(partitions)
            await consumer.seek_to_beginning(*partitions)
            for partition in partitions:
                async with asyncio.timeout(30):
                    while await consumer.position(partition) < end[partition]:
                        batches = await consumer.getmany(partition, timeout_ms=200)
                        found += [record for batch in batches.values() for record in batch]
            return found

    async def carried(self, topic: str) -> list[DeliveryRecord]:
        """Read what the records of an own topic say of their deliveries."""
        return [decode_headers(record.headers) for record in await self.records(topic)]

    async def letters(self, delivery_id: str) -> list[DeliveryRecord]:
        """Read the dead letters of one delivery."""
        found = [decode_dead_letter(record.headers) for record in await self.records(self.names.dead_letter)]
        return [each for each in found if isinstance(each, DeliveryRecord) and each.delivery_id == delivery_id]

    async def until_dead_letter(self, delivery_id: str) -> DeliveryRecord:
        """Wait for the dead letter of a delivery; there must be no second one."""
        (letter,) = await eventually(lambda: self.letters(delivery_id), bool, f"a dead letter of {delivery_id}")
        return letter

    async def committed(self, role: str = "source") -> dict[tuple[str, int], int]:
        """Ask for what a role's group has committed."""
        bootstrap = self.settings.kafka.bootstrap_servers
        found = await committed(bootstrap, group_of(self.settings.topics.consumer_group, role))
        return {partition: offset for partition, (offset, _) in found.items()}

    async def lag(self, *roles: str) -> int:
        """Count the records that the groups of these roles have not committed yet; every role's where none is given."""
        tiers = [f"retry.{tier.name}" for tier in self.names.tiers]
        lag = 0
        async with AIOKafkaConsumer(bootstrap_servers=self.settings.kafka.bootstrap_servers) as consumer:
            for role in roles or ("source", *tiers, "overflow", "replay"):
                topic = self.source if role == "source" else f"{self.names.prefix}.{role}"
                partitions = await _partitions(consumer, topic)
                done = await self.committed(role)
                lag += sum(
                    end - done.get((topic, partition.partition), 0)
                    for partition, end in (await consumer.end_offsets(partitions)).items()
                )
        return lag

    async def until_done(self, *roles: str, seconds: float = 30.0) -> None:
        """Wait until these roles' groups, or all, have committed everything."""
        await eventually(lambda: self.lag(*roles), lambda lag: lag == 0, "everything is committed", seconds)

    async def logged(self, delivery_id: str, webhook: Webhook) -> LoggedDelivery | None:
        """Read one delivery of the log."""
        subscription = webhook.subscription
        return await self.log.get(subscription.workspace_id, subscription.id, delivery_id)

    async def until_logged(
        self, delivery_id: str, webhook: Webhook, status: str, seconds: float = 30
    ) -> LoggedDelivery:
        """Wait until the log shows a delivery in this status."""
        found = await eventually(
            lambda: self.logged(delivery_id, webhook),
            lambda row: row is not None and row.status == status,
            f"{delivery_id} is {status}",
            seconds,
        )
        assert found is not None
        return found

    # What runs

    @asynccontextmanager
    async def worker(self, **changes: Any) -> AsyncIterator[Worker]:
        """Run a worker in this process; it is ready when this yields. `changes` are those of its settings."""
        loop = asyncio.get_running_loop()
        async with open_worker(replace(self.settings, **changes)) as worker:
            running = asyncio.create_task(worker.run())
            try:
                await until_ready(worker, running)
                # The worker takes the process for its own; other tests' faults must not end it.
                loop.set_exception_handler(None)
                yield worker
            finally:
                worker.stop()
                try:
                    await running
                finally:
                    loop.set_exception_handler(None)
                    gc.unfreeze()

    def process(
        self,
        *,
        command: Sequence[str] = WORKER,
        variables: Mapping[str, str] = MappingProxyType({}),
        **environment: str,
    ) -> WorkerProcess:
        """Make a worker process, not started yet; arguments are those of `WorkerProcess`."""
        settings = self.settings
        return WorkerProcess(
            {
                "KAFKA_BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers,
                "KAFKA_SESSION_TIMEOUT_MS": str(settings.kafka.session_timeout_ms),
                "KAFKA_HEARTBEAT_INTERVAL_MS": str(settings.kafka.heartbeat_interval_ms),
                "MONGO_URI": settings.mongo.uri,
                "MONGO_DATABASE": settings.mongo.database,
                "SOURCE_TOPICS": self.source,
                "START_FROM": "earliest",
                "CONSUMER_GROUP": settings.topics.consumer_group,
                "TOPIC_PREFIX": settings.topics.prefix,
                "TOPIC_PARTITIONS": str(settings.topics.partitions),
                "TOPIC_REPLICATION": "1",
                "RETRY_TIERS": ",".join(tier.name for tier in settings.topics.tiers),
                "ALLOW_HTTP": "true",
                "ALLOWED_NETWORKS": "127.0.0.0/8",
                "ENCRYPTION_KEYS": base64.b64encode(KEY).decode(),
                **environment,
            },
            command,
            variables,
        )

    @asynccontextmanager
    async def api(self, workspace: str = WORKSPACE) -> AsyncIterator[Callable[[str, str], Any]]:
        """Serve the REST API; yields a call of it with an API key: method, path, then what aiohttp takes."""
        keys = ApiKeys(MongoApiKeys(self.connection.api_keys), SystemClock(), draw)
        key = (await keys.create(workspace, "test", ("read", "write"), None)).plaintext
        async with TestClient(TestServer(build_api(self.settings, self.connection))) as client:

            async def call(method: str, path: str, **options: Any) -> Any:
                headers = {"Authorization": f"Bearer {key}"}
                async with client.request(method, f"/v1{path}", headers=headers, **options) as response:
                    assert response.status < 400, await response.text()
                    return None if response.status == 204 else await response.json()

            yield call


@asynccontextmanager
async def deploy(settings: Settings, remembered: Callable[..., Any] = Received) -> AsyncIterator[Deployment]:
    """Make topics, receiver and connections; the topics and the database are removed afterwards.

    Args:
        settings: What workers run with.
        remembered: Makes what the receiver remembers of a request.
    """
    async with AsyncExitStack() as stack:
        made = await topics.ensure(settings.kafka, settings.topics)
        assert made
        for name in settings.topics.source_topics:
            await topics.create_source_topic(settings.kafka, settings.topics, name)
        stack.push_async_callback(_remove_topics, settings)
        connection = await stack.enter_async_context(mongo_connection(settings))
        stack.push_async_callback(connection.client.drop_database, settings.mongo.database)
        producer = AIOKafkaProducer(
            bootstrap_servers=settings.kafka.bootstrap_servers, acks="all", max_request_size=16 * 1024 * 1024
        )
        await producer.start()
        stack.push_async_callback(producer.stop)
        receiver = await stack.enter_async_context(open_receiver(remembered))
        yield Deployment(settings, receiver, connection, producer)


async def _partitions(consumer: AIOKafkaConsumer, topic: str) -> list[TopicPartition]:
    cluster = await consumer._client.fetch_all_metadata()
    return [TopicPartition(topic, number) for number in sorted(cluster.partitions_for_topic(topic) or ())]


async def _remove_topics(settings: Settings) -> None:
    names = TopicNames(settings.topics.prefix, settings.topics.tiers)
    with contextlib.suppress(Exception):
        async with asyncio.timeout(10), admin_client(settings.kafka.bootstrap_servers) as admin:
            await admin.delete_topics([*names.own(), *settings.topics.source_topics])


async def until_ready(worker: Worker, running: "asyncio.Task[None]") -> None:
    """Wait until a worker is ready; what ended it is raised."""

    async def look() -> list[str]:
        if running.done():
            running.result()
        return [reason for reason in (await worker.readiness()).values() if reason is not None]

    await eventually(look, lambda missing: not missing, "the worker is ready")


async def eventually(ask: Callable[[], Any], holds: Callable[[Any], bool], what: str, seconds: float = 30.0) -> Any:
    """Ask again and again until the answer is right; gives it."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not holds(answer := await ask()):
        assert asyncio.get_running_loop().time() < deadline, f"not within {seconds} s: {what}; last: {answer}"
        await asyncio.sleep(0.05)
    return answer


def event(
    number: int | str, event_type: str = "user.created", workspace: str = WORKSPACE, **data: Any
) -> dict[str, Any]:
    """Make an event whose id ends in this number."""
    return {"id": f"evt_{number}", "type": event_type, "workspace_id": workspace, "data": {"n": number, **data}}


def event_ids(requests: Iterable[Any]) -> list[str]:
    """Read the event ids out of received requests of the `event` format."""
    return [json.loads(request.body)["id"] for request in requests]


__all__ = ["Deployment", "deploy", "event", "event_ids", "eventually", "make_settings", "until"]
