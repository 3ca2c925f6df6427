"""What every scenario stands on: real Kafka and MongoDB, a receiver and workers in processes of their own."""

import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import psutil
from aiokafka import AIOKafkaProducer

from dispatcher import config
from dispatcher.app.clock import SystemClock, draw
from dispatcher.app.connections import mongo_connection
from dispatcher.core.addresses import AddressPolicy
from dispatcher.core.model import Webhook
from dispatcher.core.sealing import Keyring
from dispatcher.core.topics import TopicNames, group_of
from dispatcher.kafka import topics
from dispatcher.kafka.lag import LagReader
from dispatcher.local import LocalStack, start_local
from dispatcher.mongo.webhooks import MongoWebhooks
from dispatcher.operations.webhooks import Webhooks
from dispatcher.settings import Settings
from tests.bench.publisher import TICK_SECONDS, Make, offer_steadily
from tests.bench.send_loop import running_receiver

DEADLINE_SECONDS = 600
WARM_PER_SECOND = 200
WARM_SECONDS = 10.0


@dataclass(frozen=True)
class Count:
    """What a group of the receiver's paths got since the last reset. Latencies in ms, sorted."""

    requests: int = 0
    latencies_ms: Sequence[float] = ()

    def latency_ms(self, share: float) -> float:
        """Return the latency that this share of the requests stayed under."""
        return self.latencies_ms[min(len(self.latencies_ms) - 1, int(len(self.latencies_ms) * share))]


@dataclass
class Rig:
    """Services that all scenarios share; each makes topics, a database and groups of its own."""

    stack: LocalStack
    session: aiohttp.ClientSession
    receiver: str
    compiled: Path | None = None
    _names: list[str] = field(default_factory=list)

    async def counts(self) -> dict[str, Count]:
        """Return what the receiver got, by the first segment of the path."""
        async with self.session.get(f"{self.receiver}/stats") as response:
            groups = await response.json(content_type=None)
        return {name: Count(each["count"], sorted(each["latencies_ms"])) for name, each in groups.items()}

    async def reset(self) -> None:
        """Let the receiver count from zero."""
        async with self.session.post(f"{self.receiver}/reset"):
            pass

    async def reached(self, count: int, *groups: str, seconds: float = DEADLINE_SECONDS) -> tuple[float, int]:
        """Wait until these groups got so many requests; return when that was seen, and how many they were then."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            async with self.session.get(f"{self.receiver}/counts") as response:
                found = await response.json(content_type=None)
            seen = sum(each for name, each in found.items() if name in groups or not groups)
            if seen >= count:
                return time.perf_counter(), seen
            await asyncio.sleep(0.05)
        raise TimeoutError(f"{seen} of {count} deliveries after {seconds} s")

    @contextlib.asynccontextmanager
    async def deployment(self, name: str, partitions: int = 8, **environ: str) -> AsyncIterator["Deployment"]:
        """Make a dispatcher's surroundings; `environ` are settings without their prefix."""
        name = f"{name}-{len(self._names)}"
        self._names.append(name)
        names = {
            "KAFKA_BOOTSTRAP_SERVERS": self.stack.kafka_bootstrap,
            "MONGO_URI": self.stack.mongo_uri,
            "MONGO_DATABASE": name,
            "SOURCE_TOPICS": f"{name}-events",
            "START_FROM": "earliest",
            "CONSUMER_GROUP": name,
            "TOPIC_PREFIX": name,
            "TOPIC_PARTITIONS": str(partitions),
            "TOPIC_REPLICATION": "1",
            "ENCRYPTION_KEYS": self.stack.encryption_key,
            "ALLOW_HTTP": "true",
            "ALLOWED_NETWORKS": "127.0.0.0/8",
            "METRICS_PORT": "0",
            "LOG_LEVEL": "error",
            **environ,
        }
        prefixed = {f"DISPATCHER_{key}": value for key, value in names.items()}
        settings = config.load(prefixed)
        await topics.ensure(settings.kafka, settings.topics)
        for topic in settings.topics.source_topics:
            await topics.create_source_topic(settings.kafka, settings.topics, topic)
        await self.reset()
        async with mongo_connection(settings) as connection:
            try:
                yield Deployment(self, settings, prefixed, connection)
            finally:
                await connection.client.drop_database(settings.mongo.database)


@dataclass
class Deployment:
    """One dispatcher: its settings, webhooks and events."""

    rig: Rig
    settings: Settings
    environ: dict[str, str]
    connection: Any

    @property
    def source(self) -> str:
        """The source topic."""
        return self.settings.topics.source_topics[0]

    @property
    def names(self) -> TopicNames:
        """The own topics."""
        return TopicNames(self.settings.topics.prefix, self.settings.topics.tiers)

    async def webhook(self, path: str, workspace: str = "default", **fields: Any) -> Webhook:
        """Create a webhook that sends to a path of the receiver."""
        send = self.settings.send
        webhooks = Webhooks(
            MongoWebhooks(self.connection.webhooks),
            SystemClock(),
            AddressPolicy(allow_http=True, allowed_networks=send.allowed_networks, allowed_ports=send.allowed_ports),
            Keyring(self.settings.encryption_keys),
            draw,
        )
        made = await webhooks.create(workspace, {"url": f"{self.rig.receiver}{path}", "events": ["*"], **fields})
        return made.webhook

    @contextlib.asynccontextmanager
    async def producer(self, linger_ms: int = 20) -> AsyncIterator[AIOKafkaProducer]:
        """Open a publisher's producer."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self.rig.stack.kafka_bootstrap, acks=1, linger_ms=linger_ms, max_batch_size=262_144
        )
        await producer.start()
        try:
            yield producer
        finally:
            await producer.stop()

    async def publish(self, events: Iterable[bytes]) -> None:
        """Publish events as fast as that goes."""
        async with self.producer() as producer:
            for event in events:
                await producer.send(self.source, event)

    async def offer(self, make: Make, per_second: float, seconds: float) -> int:
        """Publish at a steady rate, from a process of its own; return how many."""
        return await offer_steadily(self.rig.stack.kafka_bootstrap, self.source, make, per_second, seconds)

    @contextlib.asynccontextmanager
    async def worker(self, **environ: str) -> AsyncIterator[psutil.Process]:
        """Run a worker process."""
        more = {f"DISPATCHER_{key}": value for key, value in environ.items()}
        if self.rig.compiled is not None:
            more["PYTHONPATH"] = str(self.rig.compiled)
        # Without -P, this folder's source would come before the compiled copy.
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "dispatcher", "worker", env={**os.environ, **self.environ, **more}
        )
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()
            await process.wait()

    async def lag(self, group: str = "", topic: str = "") -> int:
        """Return how many records of a topic, the source topic unless named, are not committed yet."""
        group = group or group_of(self.settings.topics.consumer_group, "source")
        reader = LagReader(self.settings.kafka)
        try:
            return sum((await reader.lag(group, [topic or self.source])).values())
        finally:
            await reader.stop()

    async def until_committed(self) -> None:
        """Wait until every event is committed."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while await self.lag():
            if time.monotonic() > deadline:
                raise TimeoutError(f"events are not committed after {DEADLINE_SECONDS} s")
            await asyncio.sleep(0.2)

    async def awake(self, path: str = "/awake") -> None:
        """Wait until the worker sends what is published."""
        webhook = await self.webhook(path, "awake")
        group = path.split("/")[1]
        deadline = time.monotonic() + DEADLINE_SECONDS
        for number in range(DEADLINE_SECONDS):
            await self.publish([event(number, workspace="awake", prefix="awake")])
            with contextlib.suppress(TimeoutError):
                await self.rig.reached(1, group, seconds=1)
                break
            if time.monotonic() > deadline:
                raise TimeoutError("the worker sends nothing")
        await self.connection.webhooks.delete_one({"_id": webhook.subscription.id})

    async def warm_up(self, event_type: str = "user.created", workspace: str = "default") -> None:
        """Publish for a while before a latency is measured: a broker that has just been started compiles itself."""
        make = partial(event, event_type=event_type, workspace=workspace, prefix="warm")
        await self.offer(make, WARM_PER_SECOND, WARM_SECONDS)
        await self.until_committed()


async def steadily(send: Callable[[int], Any], per_second: float, seconds: float) -> int:
    """Call for each number at the rate wanted; late calls are caught up with."""
    began, number = time.perf_counter(), 0
    while (passed := time.perf_counter() - began) < seconds:
        while number < passed * per_second:
            await send(number)
            number += 1
        await asyncio.sleep(TICK_SECONDS)
    return number


def event(
    number: int,
    event_type: str = "user.created",
    workspace: str = "default",
    *,
    prefix: str = "evt",
    is_timed: bool = False,
) -> bytes:
    """Return an event of about 135 bytes; a timed one says when it was published."""
    data: dict[str, float] = {"n": number}
    if is_timed:
        data["sent_at_ms"] = round(time.time() * 1000, 3)
    body = {
        "id": f"{prefix}_{number:012d}",
        "type": event_type,
        "created_at": "2026-01-15T10:30:00Z",
        "workspace_id": workspace,
        "data": data,
    }
    return json.dumps(body, separators=(",", ":")).encode()


def cpu_seconds(*processes: psutil.Process) -> float:
    """Return the CPU time that processes have used, kernel time included."""
    times = [process.cpu_times() for process in processes]
    return sum(each.user + each.system for each in times)


def peak_mib(process: psutil.Process) -> int:
    """Return the largest resident size that a process ever had."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return next(int(line.split()[1]) // 1024 for line in status.splitlines() if line.startswith("VmHWM"))


@dataclass(frozen=True)
class Drained:
    """How a backlog was worked off, between a tenth and the whole of it.

    Attributes:
        per_second: Deliveries.
        cpu_us: The workers' CPU for each.
        peak_mib: Of the largest worker.
    """

    per_second: float
    cpu_us: float
    peak_mib: int


async def drain(rig: Rig, deliveries: int, processes: Sequence[psutil.Process], *groups: str) -> Drained:
    """Measure workers that have just been started on a backlog."""
    first = await rig.reached(deliveries // 10, *groups)
    cpu = cpu_seconds(*processes)
    last = await rig.reached(deliveries, *groups)
    cpu = cpu_seconds(*processes) - cpu
    made = last[1] - first[1]
    return Drained(made / (last[0] - first[0]), cpu / made * 1e6, max(map(peak_mib, processes)))


@contextlib.asynccontextmanager
async def open_rig(report: Callable[[str], None], compiled: Path | None = None) -> AsyncIterator[Rig]:
    """Start the services and the receiver; `compiled` is the folder of the code that workers run, if not the source."""
    with tempfile.TemporaryDirectory(prefix="dispatcher-bench-") as folder:
        stack = await start_local(Path(folder), kafka=True, mongo=True, report=report)
        try:
            async with running_receiver() as receiver, aiohttp.ClientSession() as session:
                yield Rig(stack, session, receiver, compiled)
        finally:
            await stack.stop()
