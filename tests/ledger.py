"""What was published, compared with what arrived and with what Kafka and the log say was done."""

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from dispatcher.core.delivery_log import DeliveryStatus
from dispatcher.core.model import Webhook
from dispatcher.core.records import decode_headers
from tests.deployment import WORKSPACE, Deployment, event, until
from tests.receiver import Received


def fails_at_first(request: Received) -> int:
    """Answer every second event's first attempt with 500: not so many that the circuit opens."""
    return 500 if request.attempt == 1 and json.loads(request.body)["data"]["n"] % 2 else 200


@dataclass
class Duplicates:
    """Requests beyond the first for the same attempt of the same delivery, and those after an accepted one."""

    same_attempt: int
    after_accepted: int
    requests: int

    def __str__(self) -> str:
        return (
            f"{self.requests} requests, {self.same_attempt} repeated attempts, "
            f"{self.after_accepted} sent again after a 2xx was written"
        )


class Ledger:
    """Events published to some webhooks, and what became of each.

    Args:
        deployment: Where.
        webhooks: By the receiver's path; each wants every event.
    """

    def __init__(self, deployment: Deployment, webhooks: dict[str, Webhook]) -> None:
        self.deployment = deployment
        self.webhooks = webhooks
        self.published: dict[tuple[int, int], str] = {}
        self._seen = 0
        self._got: dict[str, set[str]] = defaultdict(set)

    @property
    def expected(self) -> int:
        """How many pairs of event and webhook must arrive."""
        return len(self.published) * len(self.webhooks)

    async def publish(self, count: int, batch: int = 500) -> None:
        """Publish so many more events."""
        for start in range(0, count, batch):
            numbers = range(len(self.published), len(self.published) + min(batch, count - start))
            places = await self.deployment.publish(*(event(number) for number in numbers))
            self.published.update((place, f"evt_{number}") for place, number in zip(places, numbers, strict=True))

    @asynccontextmanager
    async def flow(self, per_second: int) -> AsyncIterator[None]:
        """Publish ten times a second for the time of the `async with`."""
        ended = asyncio.Event()

        async def publish() -> None:
            while not ended.is_set():
                await self.publish(per_second // 10)
                await asyncio.sleep(0.1)

        task = asyncio.create_task(publish())
        try:
            yield
            ended.set()
            await task
        finally:
            task.cancel()

    def got(self) -> int:
        """Count the pairs that arrived, at whatever attempt."""
        received = self.deployment.receiver.received
        for request in received[self._seen :]:
            self._got[request.path].add(json.loads(request.body)["id"])
        self._seen = len(received)
        return sum(map(len, self._got.values()))

    async def until_got(self, pairs: int, seconds: float = 60.0) -> None:
        """Wait until so many pairs arrived."""
        await until(lambda: self.got() >= pairs, f"{pairs} of {self.expected} pairs arrive", seconds)

    def missing(self) -> list[tuple[str, str]]:
        """List pairs of event and path that never arrived."""
        self.got()
        return [
            (each, path) for path in self.webhooks for each in self.published.values() if each not in self._got[path]
        ]

    async def check_committed(self) -> None:
        """Prove that no group has committed a record of which a part neither arrived nor waits in another topic.

        A step that an open circuit skipped arrives nowhere: its delivery must be at a later one, or have been accepted
        (a crash may leave two records of a delivery, of which one goes on while the other's request is answered).
        """
        # In the order in which deliveries move on: a worker may go on meanwhile.
        passed = await self._source_steps()
        done, waiting = await self._own_steps()
        received = self.deployment.receiver.received
        arrived = {(each.delivery_id, each.attempt) for each in received}
        accepted = {each.delivery_id for each in received if each.accepted}
        latest: dict[str, int] = {}
        for delivery_id, step in arrived | waiting:
            latest[delivery_id] = max(step, latest.get(delivery_id, 0))
        for delivery_id, step in passed | done:
            known = (delivery_id, step) in arrived or (delivery_id, step) in waiting or delivery_id in accepted
            assert known or step < latest.get(delivery_id, 0), (
                f"step {step} of {delivery_id} is committed, never arrived and waits nowhere, and no later one does"
            )

    async def _source_steps(self) -> set[tuple[str, int]]:
        """Give the first attempts that committed events stand for."""
        committed = await self.deployment.committed()
        topic = self.deployment.source
        passed = [
            event_id
            for (partition, offset), event_id in self.published.items()
            if offset < committed.get((topic, partition), 0)
        ]
        return {
            (self.deployment.delivery_id(each, webhook), 1) for each in passed for webhook in self.webhooks.values()
        }

    async def _own_steps(self) -> tuple[set[tuple[str, int]], set[tuple[str, int]]]:
        """Give the attempts that records of own topics ask for: of committed records, and of those that wait."""
        done: set[tuple[str, int]] = set()
        waiting: set[tuple[str, int]] = set()
        for role in ("overflow", *(f"retry.{tier.name}" for tier in self.deployment.names.tiers)):
            topic = f"{self.deployment.names.prefix}.{role}"
            # What is written in between must count as waiting.
            committed = await self.deployment.committed(role)
            for record in await self.deployment.records(topic):
                carried = decode_headers(record.headers)
                passed = record.offset < committed.get((topic, record.partition), 0)
                (done if passed else waiting).add((carried.delivery_id, carried.attempt + 1))
        return done, waiting

    def duplicates(self) -> Duplicates:
        """Count what arrived more than once."""
        received = self.deployment.receiver.received
        steps = Counter((request.delivery_id, request.attempt) for request in received)
        return Duplicates(len(received) - len(steps), len(self.sent_after_accepted()), len(received))

    def sent_after_accepted(self) -> Sequence[Received]:
        """List requests of deliveries that had been answered with 2xx before."""
        accepted: dict[str, float] = {}
        late = []
        for request in self.deployment.receiver.received:
            known = accepted.get(request.delivery_id)
            if known is not None and request.at > known:
                late.append(request)
            if request.accepted and request.answered is not None:
                accepted.setdefault(request.delivery_id, request.answered[1])
        return late

    async def logged_steps(self) -> set[tuple[str, int]]:
        """Read from the log which attempts of which deliveries it holds."""
        rows = self.deployment.connection.deliveries.find({"w": WORKSPACE}, {"a.n": 1})
        return {(row["_id"], step["n"]) async for row in rows for step in row["a"]}

    def repeated_since(self, at: float, steps: set[tuple[str, int]]) -> list[Received]:
        """List requests after a time that repeat one of these steps."""
        received = self.deployment.receiver.received
        return [each for each in received if each.at > at and (each.delivery_id, each.attempt) in steps]

    async def check_log(self) -> None:
        """Prove that the log holds every delivery, and as what it ended."""
        found = {}
        query = {"w": WORKSPACE}
        async for row in self.deployment.connection.deliveries.find(query, {"st": 1, "a.n": 1}):
            found[row["_id"]] = row["st"]
        assert len(found) == self.expected
        assert set(found.values()) == {DeliveryStatus.DELIVERED}
