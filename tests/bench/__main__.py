"""`make bench`: throughput, CPU, memory and latency of one worker process, on real services of its own.

    python -m tests.bench [--events 300000] [--replayed 100000] [--profile FILE]

A backlog of events lies on the source topic; a worker process starts; a receiver in a process of its own counts
deliveries. Everything runs on this machine and shares its cores, so the figures are for this machine, and the ratio
to the plain send loop of the same run is what can be compared.
"""

import argparse
import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
import psutil
import uvloop
from aiokafka import AIOKafkaProducer

from dispatcher import config
from dispatcher.app.clock import SystemClock, draw
from dispatcher.app.connections import mongo_connection
from dispatcher.app.resolve import offered
from dispatcher.core.addresses import AddressPolicy
from dispatcher.core.sealing import Keyring
from dispatcher.kafka import topics
from dispatcher.kafka.lag import LagReader
from dispatcher.local import LocalStack, start_local
from dispatcher.mongo.webhooks import MongoWebhooks
from dispatcher.operations.catalogue import load_catalogue
from dispatcher.operations.webhooks import Webhooks
from dispatcher.settings import Settings
from tests.bench.dead_letters import show_dead_letters
from tests.bench.live_latency import measure_live_latency
from tests.bench.send_loop import measure_send_loop, running_receiver
from tests.bench.validation import measure

QUIET_PER_SECOND = 200
QUIET_SECONDS = 15
REPLAYS_PER_SECOND = 1_000.0
TOPIC = "events"
PHASES = ("validation", "throughput", "latency", "replay", "dead-letters")


@dataclass
class Bench:
    """What the phases share."""

    stack: LocalStack
    settings: Settings
    session: aiohttp.ClientSession
    receiver: str
    environ: dict[str, str]

    async def stats(self) -> dict:
        """Return the receiver's counts."""
        async with self.session.get(f"{self.receiver}/stats") as response:
            return await response.json(content_type=None)

    async def reset(self) -> None:
        """Let the receiver count from zero."""
        async with self.session.post(f"{self.receiver}/reset"):
            pass

    async def lag(self, group: str = "webhook-dispatcher", topic: str = TOPIC) -> int:
        """Return how many records of a topic, the source topic unless named, are not committed yet."""
        reader = LagReader(self.settings.kafka)
        try:
            return sum((await reader.lag(group, [topic])).values())
        finally:
            await reader.stop()


def event(number: int, **data: float) -> bytes:
    """Return an event of about 135 bytes."""
    body = {
        "id": f"evt_{number:012d}",
        "type": "user.created",
        "created_at": "2026-01-15T10:30:00Z",
        "workspace_id": "default",
        "data": {"n": number, **data},
    }
    return json.dumps(body, separators=(",", ":")).encode()


async def publish(bench: Bench, count: int) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=bench.stack.kafka_bootstrap, acks=1, linger_ms=20, max_batch_size=262_144
    )
    await producer.start()
    try:
        for number in range(count):
            await producer.send(TOPIC, event(number))
        await producer.flush()
    finally:
        await producer.stop()


@contextlib.asynccontextmanager
async def worker(bench: Bench) -> AsyncIterator[psutil.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "dispatcher", "worker", "--local", env={**os.environ, **bench.environ}
    )
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        await process.wait()


def cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def peak_bytes(process: psutil.Process) -> int:
    """Return the largest resident size that a process ever had."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


async def throughput(bench: Bench, events: int, profile: str | None) -> dict:
    """Drain a backlog; rate and CPU are those between a tenth and the whole of it."""
    await publish(bench, events)
    await bench.reset()
    async with worker(bench) as process:
        first = await reached(bench, events // 10)
        cpu = cpu_seconds(process)
        if profile:
            await asyncio.create_subprocess_exec(
                sys.executable.replace("python", "py-spy"), "record", "-p", str(process.pid), "-d", "8", "-r", "500",
                "-o", profile, "-f", "raw", "--nonblocking", stdout=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
        last = await reached(bench, events)
        cpu = cpu_seconds(process) - cpu
        while await bench.lag():
            await asyncio.sleep(0.2)
        memory = peak_bytes(process)
        async with mongo_connection(bench.settings) as connection:
            logged = await connection.deliveries.estimated_document_count()
    made = last[1] - first[1]
    return {
        "deliveries_per_second": round(made / (last[0] - first[0])),
        "cpu_us_per_delivery": round(cpu / made * 1e6, 1),
        "peak_memory_mib": round(memory / 2**20),
        "logged": logged,
        "received": (await bench.stats())["count"],
    }


async def reached(bench: Bench, count: int) -> tuple[float, int]:
    """Wait until so many were received; return when that was seen, and how many they were then."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        seen = (await bench.stats())["count"]
        if seen >= count:
            return time.perf_counter(), seen
        await asyncio.sleep(0.05)
    raise TimeoutError(f"{seen} of {count} deliveries after 300 s")


async def latency(bench: Bench) -> dict:
    """Publish at a steady low rate; latency is from the publisher's send to the endpoint's receipt."""
    async with worker(bench):
        await publish_one_and_wait(bench)
        await bench.reset()
        producer = AIOKafkaProducer(bootstrap_servers=bench.stack.kafka_bootstrap, acks=1, linger_ms=0)
        await producer.start()
        count = QUIET_PER_SECOND * QUIET_SECONDS
        began = time.perf_counter()
        for number in range(count):
            wait = began + number / QUIET_PER_SECOND - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            await producer.send(TOPIC, event(number, sent_at_ms=round(time.time() * 1000, 3)))
        await producer.stop()
        await reached(bench, count)
    samples = sorted((await bench.stats())["latencies_ms"])
    return {
        "events_per_second": QUIET_PER_SECOND,
        "p50_ms": round(samples[len(samples) // 2], 2),
        "p99_ms": round(samples[int(len(samples) * 0.99)], 2),
    }


async def publish_one_and_wait(bench: Bench) -> None:
    await bench.reset()
    await publish(bench, 1)
    await reached(bench, 1)


async def main(events: int, profile: str | None, phases: list[str], replayed: int) -> None:
    if "validation" in phases:
        show_validation()
    if {"throughput", "latency", "replay"} & set(phases):
        await whole_way(events, profile, phases, replayed)
    if "dead-letters" in phases:
        await show_dead_letters()


def show_validation() -> None:
    """Print what decoding an event costs, and what looking it up in the event catalogue adds."""
    cost = measure(load_catalogue(None), turns=500)
    alone, checked = cost["decoded"], cost["decoded and looked up"]
    print(f"catalogue            {checked - alone:.2f} µs of CPU an event, beside {alone:.2f} µs to decode it")


async def whole_way(events: int, profile: str | None, phases: list[str], replayed: int) -> None:
    """Start the services, and measure one worker on them."""
    with tempfile.TemporaryDirectory(prefix="dispatcher-bench-") as folder:
        stack = await start_local(Path(folder), kafka=True, mongo=True, report=print)
        environ = {
            "DISPATCHER_KAFKA_BOOTSTRAP_SERVERS": stack.kafka_bootstrap,
            "DISPATCHER_MONGO_URI": stack.mongo_uri,
            "DISPATCHER_ENCRYPTION_KEYS": stack.encryption_key,
            "DISPATCHER_METRICS_PORT": "0",
            "DISPATCHER_LOG_LEVEL": "warning",
        }
        settings = config.load(environ, local=offered(stack), run_local=True)
        settings = replace(settings, topics=replace(settings.topics, source_topics=(TOPIC,)))
        try:
            await topics.ensure(settings.kafka, settings.topics)
            await topics.create_source_topic(settings.kafka, settings.topics, TOPIC)
            async with running_receiver() as receiver, aiohttp.ClientSession() as session:
                bench = Bench(stack, settings, session, receiver, environ)
                await subscribe(settings, receiver)
                if "throughput" in phases:
                    await show_throughput(bench, events, profile)
                if "latency" in phases:
                    quiet = await latency(bench)
                    print(
                        f"latency at {quiet['events_per_second']}/s      "
                        f"p50 {quiet['p50_ms']} ms, p99 {quiet['p99_ms']} ms"
                    )
                if "replay" in phases:
                    await show_replay(bench, replayed)
        finally:
            await stack.stop()


async def show_replay(bench: Bench, count: int) -> None:
    """Print what live events take while dead letters are replayed."""
    webhook_id = await subscribe(bench.settings, bench.receiver, "dead.*")
    async with worker(bench):
        await publish_one_and_wait(bench)
        found = await measure_live_latency(bench, TOPIC, webhook_id, count, REPLAYS_PER_SECOND)
    phases = {
        "quiet": found.before,
        "replay is sent": found.sending,
        "delivered": found.delivering,
        "quiet again": found.after,
    }
    for name, phase in phases.items():
        print(
            f"live, {name:<14} p50 {phase.p50_ms:.2f} ms, p99 {phase.p99_ms:.2f} ms of {phase.count:,} events, "
            f"p99 {found.change(phase):+.0%} beside the quiet phases"
        )
    print(f"replay of {found.replayed:,}    {found.replayed / found.seconds:,.0f}/s for {found.seconds:.0f} s")


async def show_throughput(bench: Bench, events: int, profile: str | None) -> None:
    """Print the plain send loop's figures, the whole way's, and their ratio."""
    plain = await measure_send_loop(f"{bench.receiver}/hook", 100_000, 128)
    print(f"plain send loop      {plain.per_second:>9,.0f}/s  {plain.cpu_us_each:.1f} µs of CPU each")
    full = await throughput(bench, events, profile)
    print(
        f"whole way            {full['deliveries_per_second']:>9,}/s  "
        f"{full['cpu_us_per_delivery']} µs of the worker's CPU each, {full['peak_memory_mib']} MiB peak; "
        f"{full['received']:,} received, {full['logged']:,} logged"
    )
    print(f"ratio to plain loop  {full['deliveries_per_second'] / plain.per_second:>9.2f}")


async def subscribe(settings: Settings, receiver: str, wanted: str = "user.*") -> str:
    async with mongo_connection(settings) as connection:
        webhooks = Webhooks(
            MongoWebhooks(connection.webhooks),
            SystemClock(),
            AddressPolicy(True, settings.send.allowed_networks, settings.send.allowed_ports),
            Keyring(settings.encryption_keys),
            draw,
        )
        made = await webhooks.create("default", {"url": f"{receiver}/hook", "events": [wanted]})
    return made.webhook.subscription.id


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--replayed", type=int, default=100_000, help="dead letters of the phase replay")
    parser.add_argument("--phase", action="append", choices=PHASES, help="only this phase; may be given twice")
    parser.add_argument("--profile", help="write a py-spy profile of the worker (raw stacks) to this file")
    arguments = parser.parse_args()
    uvloop.run(main(arguments.events, arguments.profile, arguments.phase or list(PHASES), arguments.replayed))
