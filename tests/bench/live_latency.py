"""Live latency while dead letters are replayed, beside that of quiet phases of the same run.

One worker process; live events at a steady low rate to one webhook; dead letters of another webhook of the same
workspace, replayed by the command that an operator uses. Latency is from publishing to the endpoint's receipt.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from aiokafka import AIOKafkaProducer

from dispatcher.core.delivery_id import DeliveryIds
from dispatcher.core.model import DeadLetterReason, Origin
from dispatcher.core.records import DeliveryRecord, encode_headers
from dispatcher.core.topics import TopicNames

PER_SECOND = 200
QUIET_SECONDS = 20.0
PATIENCE_SECONDS = 600.0
WORKSPACE = "default"


@dataclass(frozen=True)
class Latencies:
    """What live events of one phase took.

    Attributes:
        count: How many there were.
        p50_ms: Median, milliseconds.
        p99_ms: Of a hundred, one takes longer.
    """

    count: int
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Comparison:
    """The phases of one run.

    Attributes:
        before: Nothing but live events.
        sending: The same, while the command put replays on their topic (on this machine, which it shares with all
            else) and the worker delivered them.
        delivering: The same, while the worker delivered the rest.
        after: Nothing but live events again.
        replayed: How many dead letters there were.
        seconds: From the first replay on its topic to the last one's end.
    """

    before: Latencies
    sending: Latencies
    delivering: Latencies
    after: Latencies
    replayed: int
    seconds: float

    def change(self, phase: Latencies) -> float:
        """Return the p99 of a phase over the mean of the quiet ones', less one."""
        return phase.p99_ms / ((self.before.p99_ms + self.after.p99_ms) / 2) - 1


async def measure_live_latency(bench, topic: str, webhook_id: str, count: int, rate: float) -> Comparison:
    """Measure with a worker that runs already.

    Args:
        bench: The run's surroundings.
        topic: The source topic.
        webhook_id: The webhook whose dead letters are made and replayed; it gets nothing else.
        count: How many dead letters.
        rate: Replays a second, at most.
    """
    await put_dead_letters(bench, webhook_id, count)
    before = await live_phase(bench, topic, until=after_seconds(QUIET_SECONDS))
    replaying = asyncio.create_task(replay(bench, webhook_id, rate))
    # The command looks before it sends; that is no replay yet.
    while not (replaying.done() or await replays_left(bench)):
        await asyncio.sleep(0.1)
    began = time.perf_counter()
    sending = await live_phase(bench, topic, until=replaying.done)
    await replaying
    watching = asyncio.create_task(all_delivered(bench))
    delivering = await live_phase(bench, topic, until=watching.done)
    await watching
    seconds = time.perf_counter() - began
    after = await live_phase(bench, topic, until=after_seconds(QUIET_SECONDS))
    return Comparison(before, sending, delivering, after, count, seconds)


def after_seconds(seconds: float) -> Callable[[], bool]:
    """Return what says whether so much time has passed."""
    ends_at = time.perf_counter() + seconds
    return lambda: time.perf_counter() >= ends_at


async def live_phase(bench, topic: str, until: Callable[[], bool]) -> Latencies:
    """Publish live events at a steady rate until it is over, and wait for all of them."""
    await bench.reset()
    producer = AIOKafkaProducer(bootstrap_servers=bench.stack.kafka_bootstrap, acks=1, linger_ms=0)
    await producer.start()
    began, number = time.perf_counter(), 0
    run = time.time_ns()
    try:
        while not until():
            wait = began + number / PER_SECOND - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            await producer.send(topic, live_event(f"{run}-{number}"))
            number += 1
    finally:
        await producer.stop()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(samples := (await bench.stats())["latencies_ms"]) < number:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(samples)} of {number} live events arrived")
        await asyncio.sleep(0.1)
    samples.sort()
    return Latencies(number, samples[number // 2], samples[int(number * 0.99)])


def live_event(number: str) -> bytes:
    """Return an event whose receipt is timed."""
    sent_at_ms = round(time.time() * 1000, 3)
    body = {
        "id": f"evt_{number}",
        "type": "user.created",
        "workspace_id": WORKSPACE,
        "data": {"sent_at_ms": sent_at_ms},
    }
    return json.dumps(body, separators=(",", ":")).encode()


async def put_dead_letters(bench, webhook_id: str, count: int) -> None:
    """Produce dead letters as a worker would."""
    producer = AIOKafkaProducer(
        bootstrap_servers=bench.stack.kafka_bootstrap, acks=1, linger_ms=20, max_batch_size=262_144
    )
    await producer.start()
    name = names(bench).dead_letter
    try:
        for number in range(count):
            body = {"id": f"evt_dead_{number}", "type": "dead.made", "workspace_id": WORKSPACE, "data": {"n": number}}
            delivery_id = DeliveryIds(WORKSPACE, "", body["id"]).of(webhook_id)
            record = DeliveryRecord(
                delivery_id,
                webhook_id,
                WORKSPACE,
                attempt=6,
                not_before_ms=0,
                first_attempt_ms=1,
                parked_since_ms=None,
                origin=Origin("events", 0, number, int(time.time() * 1000)),
                reason=DeadLetterReason.ATTEMPTS_EXHAUSTED,
                http_status=503,
                error="status 503",
            )
            headers = list(encode_headers(record, ()))
            await producer.send(name, json.dumps(body).encode(), key=b"%d" % number, headers=headers)
        await producer.flush()
    finally:
        await producer.stop()


async def replay(bench, webhook_id: str, rate: float) -> None:
    """Run the operator's command, which elsewhere has a machine of its own: here it takes what the worker leaves."""
    process = await asyncio.create_subprocess_exec(
        "nice",
        "-n",
        "15",
        sys.executable,
        "-m",
        "dispatcher",
        "dead-letters",
        "replay",
        "--subscription",
        webhook_id,
        "--rate",
        f"{rate}/s",
        env={**os.environ, **bench.environ},
    )
    if await process.wait():
        raise RuntimeError("the replay failed")


async def all_delivered(bench) -> None:
    """Return when everything on the replay topic is dealt with."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while await replays_left(bench):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{await replays_left(bench)} replays are not dealt with")
        await asyncio.sleep(0.5)


async def replays_left(bench) -> int:
    """Return how many records of the replay topic are not committed yet."""
    return await bench.lag("webhook-dispatcher.replay", names(bench).replay)


def names(bench) -> TopicNames:
    """Return the own topics."""
    return TopicNames(bench.settings.topics.prefix, bench.settings.topics.tiers)
