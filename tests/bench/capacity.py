"""What one delivery costs in CPU and on disk, and what so many of them need: the figures of `deploy/CAPACITY.md`.

    python -m tests.bench --phase capacity [--deliveries 100000] [--write]

prints that part of the page; `--write` puts it there.
"""

import asyncio
import contextlib
import datetime as dt
import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.bench.capacity_model import Figures
from tests.bench.capacity_page import PAGE, render, write_page
from tests.bench.rig import DEADLINE_SECONDS, Deployment, Rig, cpu_seconds, event, peak_mib
from tests.bench.subscriptions import insert, load_elsewhere

DELIVERIES = 100_000
RETRY_TIERS = "2s,1h"
IDLE_SECONDS = 10.0
WEBHOOKS = 50_000
COMPILERS = ("C1 Compiler", "C2 Compiler")
TENANTS = 51
"""Workspaces with a webhook each; an odd number, so that odd events go to all of them."""
WARM = 0.1
"""The share of a backlog that comes before the measurement: connections are made and Java is compiled in it."""


@dataclass(frozen=True, slots=True)
class Used:
    """CPU seconds, by process, over so many seconds."""

    worker: float
    mongod: float
    broker: float
    seconds: float

    def over(self, idle: "Used") -> "Used":
        """Leave out what the same time costs without work.

        Not so of the broker: most of its idling is polls that wait, which are answered at once while there is work.
        """
        share = self.seconds / idle.seconds
        return Used(
            max(0.0, self.worker - idle.worker * share),
            max(0.0, self.mongod - idle.mongod * share),
            self.broker,
            self.seconds,
        )


@dataclass(frozen=True, slots=True)
class Run:
    """A backlog that was worked off.

    Attributes:
        used: CPU from its first tenth to its commit.
        share: Which part of the requests that was.
        publishing: CPU while it was published, before there was a worker.
        per_second: Deliveries of the worker.
        worker_mib: The worker's peak.
        log: What collStats says of the delivery log.
        source_bytes: Of the source topic's segments.
        retry_bytes: Of the first delay topic's segments.
    """

    used: Used
    share: float
    publishing: Used
    per_second: float
    worker_mib: float
    log: dict[str, float]
    source_bytes: int
    retry_bytes: int


async def show_capacity(rig: Rig, deliveries: int, *, write: bool) -> None:
    """Measure, print the page's part, and write it where that is asked for."""
    figures = await measure_capacity(rig, deliveries)
    print(render(figures))
    if write:
        write_page(figures)
        print(f"written to {PAGE}")


async def measure_capacity(rig: Rig, deliveries: int) -> Figures:
    """Measure deliveries that succeed at once, and half as many of which every second takes one retry."""
    webhook_bytes = await webhook_size(rig)
    alone = await work_off(rig, "once", deliveries, deliveries)
    retried = max(1, deliveries // 4)
    mixed = 2 * retried
    again = await work_off(rig, "odd", mixed, mixed + retried)
    async with rig.deployment("idle") as deployment, deployment.worker() as process:
        await deployment.awake()
        idle = await used_during(rig, process, asyncio.sleep(IDLE_SECONDS))
    firsts, both = costs(alone, deliveries, idle), costs(again, mixed, idle)
    adds = [max(0.0, (each - first) * mixed / retried) for each, first in zip(both, firsts, strict=True)]
    return Figures(
        measured_on=dt.datetime.now(dt.UTC).date().isoformat(),
        machine=f"{os.cpu_count()} processors",
        deliveries=deliveries,
        retried=retried,
        per_second=alone.per_second,
        worker_mib=alone.worker_mib,
        webhook_bytes=webhook_bytes,
        worker_us=firsts[0],
        mongod_us=firsts[1],
        broker_us=firsts[2],
        retry_worker_us=adds[0],
        retry_mongod_us=adds[1],
        retry_broker_us=adds[2],
        idle_worker=idle.worker / idle.seconds,
        idle_mongod=idle.mongod / idle.seconds,
        idle_broker=idle.broker / idle.seconds,
        event_bytes=len(unlike(0)),
        source_bytes=alone.source_bytes / deliveries,
        retry_bytes=again.retry_bytes / retried,
        log_bytes=alone.log["size"] / deliveries,
        retry_log_bytes=max(0.0, (again.log["size"] - alone.log["size"] / deliveries * mixed) / retried),
        log_disk_bytes=alone.log["storageSize"] / deliveries,
        index_bytes=alone.log["totalIndexSize"] / deliveries,
    )


def costs(run: Run, deliveries: int, idle: Used) -> tuple[float, float, float]:
    """Return microseconds of worker, mongod and broker for each delivery; publishing is a part of the broker's."""
    used, counted = run.used.over(idle), deliveries * run.share
    publishing = run.publishing.broker / deliveries
    return used.worker / counted * 1e6, used.mongod / counted * 1e6, (used.broker / counted + publishing) * 1e6


async def work_off(rig: Rig, group: str, events: int, requests: int) -> Run:
    """Publish events to webhooks of this group, let a worker work them off, and look at what they left behind."""
    async with rig.deployment("capacity", RETRY_TIERS=RETRY_TIERS) as deployment:
        for number in range(TENANTS):
            await deployment.webhook(f"/{group}/{number}", tenant(number))
        published = await used_during(rig, None, deployment.publish(map(unlike, range(events))))
        async with deployment.worker() as process:
            first = await rig.reached(max(1, round(requests * WARM)), group)
            began = time.perf_counter()
            cpu = cpu_of(rig, process)
            last = await rig.reached(requests, group)
            await settled(deployment, events)
            used = subtract(cpu_of(rig, process), cpu, time.perf_counter() - began)
            peak = peak_mib(process)
        tier = deployment.names.retry(deployment.names.tiers[0])
        return Run(
            used=used,
            share=1 - first[1] / requests,
            publishing=published,
            per_second=(last[1] - first[1]) / (last[0] - first[0]),
            worker_mib=peak,
            log=await log_size(deployment),
            source_bytes=topic_bytes(rig.stack.folder, deployment.source),
            retry_bytes=topic_bytes(rig.stack.folder, tier),
        )


def tenant(number: int) -> str:
    """Return the workspace of an event."""
    return f"ws_{number % TENANTS}"


def unlike(number: int) -> bytes:
    """Return an event whose id is like no other's: what is alike compresses better than anybody's events."""
    return event(number, workspace=tenant(number), prefix=hashlib.sha256(b"%d" % number).hexdigest()[:24])


async def webhook_size(rig: Rig) -> float:
    """Measure what a webhook takes in memory, in a process of its own that loads them."""
    async with rig.deployment("webhooks") as deployment:
        await insert(deployment, WEBHOOKS, WEBHOOKS // 100)
        return (await load_elsewhere(deployment))["bytes_each"]


async def settled(deployment: Deployment, events: int) -> None:
    """Wait until every event is committed and every delivery stands in the log as delivered."""
    await deployment.until_committed()
    deadline = time.monotonic() + DEADLINE_SECONDS
    while await deployment.connection.deliveries.count_documents({"st": "delivered"}) < events:
        if time.monotonic() > deadline:
            raise TimeoutError("deliveries are not logged")
        await asyncio.sleep(0.2)


async def log_size(deployment: Deployment) -> dict[str, float]:
    """Ask for the sizes of the delivery log, after all of it was written to disk."""
    log = deployment.connection.deliveries
    await deployment.connection.client.admin.command("fsync")
    found: dict[str, Any] = await log.database.command("collStats", log.name)
    return {name: float(found[name]) for name in ("size", "storageSize", "totalIndexSize")}


def topic_bytes(folder: Path, topic: str) -> int:
    """Add up the segments of a topic's partitions, without their indexes, which are made larger than they are full."""
    return sum(path.stat().st_size for path in (folder / "kafka").glob(f"{topic}-[0-9]*/*.log"))


async def used_during(rig: Rig, worker: psutil.Process | None, work: Any) -> Used:
    """Measure CPU while something is waited for."""
    began, cpu = time.perf_counter(), cpu_of(rig, worker)
    await work
    return subtract(cpu_of(rig, worker), cpu, time.perf_counter() - began)


def cpu_of(rig: Rig, worker: psutil.Process | None) -> Sequence[float]:
    """Return the CPU seconds of worker, mongod and broker so far."""
    mongod, broker = (psutil.Process(each.pid) for each in (rig.stack.mongo_process, rig.stack.kafka_process) if each)
    return 0.0 if worker is None else cpu_seconds(worker), cpu_seconds(mongod), java_seconds(broker)


def java_seconds(process: psutil.Process) -> float:
    """Return the CPU time of Java without its compiler's, which goes on for minutes after a start and then is over."""
    seconds = 0.0
    for thread in process.threads():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            name = Path(f"/proc/{process.pid}/task/{thread.id}/comm").read_text()
            seconds += 0.0 if name.startswith(COMPILERS) else thread.user_time + thread.system_time
    return seconds


def subtract(after: Sequence[float], before: Sequence[float], seconds: float) -> Used:
    """Return what was used between two readings."""
    return Used(*(end - start for end, start in zip(after, before, strict=True)), seconds)
