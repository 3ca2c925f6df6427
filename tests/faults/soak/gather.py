"""Reads what a deployment left in Kafka and MongoDB, each time from where the last reading ended."""

import asyncio
import json
from collections.abc import Iterable

from aiokafka import AIOKafkaConsumer, TopicPartition

from dispatcher.core.records import decode_dead_letter, decode_headers
from dispatcher.core.topics import group_of
from tests.deployment import Deployment
from tests.faults.soak.facts import Facts, Letter, Logged, Record, Request, Step
from tests.kafka_support import admin_client

READ_SECONDS = 30.0
ASK_SECONDS = 1.0
IDS_AT_ONCE = 1_000


class Gatherer:
    """Brings facts up to date.

    Args:
        deployment: Where to read.
        facts: What to add to.
    """

    def __init__(self, deployment: Deployment, facts: Facts) -> None:
        self._deployment = deployment
        self._facts = facts
        names = deployment.names
        self._roles = {deployment.source: "source", names.overflow: "overflow"}
        self._roles |= {names.retry(tier): f"retry.{tier.name}" for tier in names.tiers}
        self._topics = (*self._roles, names.dead_letter)
        self._positions: dict[TopicPartition, int] = {}

    async def read_on(self) -> None:
        """Read what is committed, then what is new in all topics.

        In this order whatever a worker does in between shows as waiting: it writes before it commits.

        Raises:
            TimeoutError: Kafka doesn't answer.
        """
        facts = self._facts
        facts.acknowledged.update(facts.acknowledging)
        facts.acknowledging.clear()
        async with asyncio.timeout(READ_SECONDS):
            await self._read_committed()
            await self._read_topics()

    async def _read_committed(self) -> None:
        settings = self._deployment.settings
        committed: dict[tuple[str, int], int] = {}
        async with admin_client(settings.kafka.bootstrap_servers) as admin:
            for role in self._roles.values():
                points = await admin.list_consumer_group_offsets(group_of(settings.topics.consumer_group, role))
                committed |= {(role, each.partition): point.offset for each, point in points.items()}
        self._facts.committed = committed

    async def _read_topics(self) -> None:
        async with AIOKafkaConsumer(
            bootstrap_servers=self._deployment.settings.kafka.bootstrap_servers, isolation_level="read_committed"
        ) as consumer:
            cluster = await consumer._client.fetch_all_metadata()
            partitions = [
                TopicPartition(topic, number)
                for topic in self._topics
                for number in sorted(cluster.partitions_for_topic(topic) or ())
            ]
            ends = await consumer.end_offsets(partitions)
            behind = [each for each in partitions if self._positions.get(each, 0) < ends[each]]
            consumer.assign(behind)
            for each in behind:
                consumer.seek(each, self._positions.get(each, 0))
            while behind:
                for each, records in (await consumer.getmany(*behind, timeout_ms=200)).items():
                    for record in records:
                        self._take(each.topic, record)
                for each in behind:
                    self._positions[each] = await consumer.position(each)
                behind = [each for each in behind if self._positions[each] < ends[each]]

    def _take(self, topic: str, record) -> None:
        facts, at = self._facts, record.timestamp / 1000
        if topic == self._deployment.source:
            facts.place(record.partition, record.offset, json.loads(record.value)["id"])
        elif topic == self._deployment.names.dead_letter:
            letter = decode_dead_letter(record.headers)
            facts.letters.append(Letter(getattr(letter, "delivery_id", ""), letter.reason, at))
        else:
            carried = decode_headers(record.headers)
            step = (carried.delivery_id, carried.attempt + 1)
            role = self._roles[topic]
            facts.records.append(Record(role, record.partition, record.offset, step, carried.reason, at))

    async def read_log(self) -> None:
        """Read the whole delivery log."""
        fields = {"st": 1, "a.n": 1, "a.c": 1, "a.s": 1, "a.x": 1}
        log = {}
        async for row in self._deployment.connection.deliveries.find({}, fields, batch_size=5_000):
            reasons = [step["x"] for step in row["a"] if step["s"] == row["st"] and step["x"]]
            codes = {step["n"]: step["c"] for step in row["a"]}
            log[row["_id"]] = Logged(row["st"], reasons[-1] if reasons else "", codes)
        self._facts.log = log


class Unsettled:
    """Follows which attempts were asked for at an endpoint and are not in the log yet.

    Args:
        deployment: Where the log is.
        requests: What the endpoints have seen; it grows.
    """

    def __init__(self, deployment: Deployment, requests: list[Request]) -> None:
        self._deliveries = deployment.connection.deliveries
        self._requests = requests
        self._seen = 0
        self._open: set[Step] = set()
        self._asking: asyncio.Task[set[Step]] | None = None
        self._lock = asyncio.Lock()

    async def sample(self) -> set[Step]:
        """Give them as they are now; with MongoDB out of reach, all that may be."""
        async with self._lock:
            return await self._sample()

    async def _sample(self) -> set[Step]:
        new = self._requests[self._seen :]
        self._seen += len(new)
        self._open.update((each.delivery_id, each.attempt) for each in new)
        if self._asking is None or self._asking.done():
            asking = self._asking = asyncio.create_task(self._logged({delivery for delivery, _ in self._open}))
            await asyncio.wait({asking}, timeout=ASK_SECONDS)
            if asking.done() and asking.exception() is None:
                self._open -= asking.result()
        return set(self._open)

    async def _logged(self, deliveries: Iterable[str]) -> set[Step]:
        found: set[Step] = set()
        wanted = list(deliveries)
        for start in range(0, len(wanted), IDS_AT_ONCE):
            query = {"_id": {"$in": wanted[start : start + IDS_AT_ONCE]}}
            async for row in self._deliveries.find(query, {"a.n": 1}):
                found.update((row["_id"], step["n"]) for step in row["a"])
        return found
