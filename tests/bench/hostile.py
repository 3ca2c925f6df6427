"""What one worker's memory and descriptors do over many deliveries to hostile endpoints of twenty-three kinds.

Each webhook gets fifteen events and one attempt for each, so that none fails often enough for its circuit to open:
every delivery really meets its endpoint. The first third warms up: by then every webhook was sent to, with all slots
taken.
"""

import asyncio
import collections
import contextlib
import json
import re
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import psutil

from dispatcher.app.clock import SystemClock, draw
from dispatcher.core.addresses import AddressPolicy
from dispatcher.core.sealing import Keyring
from dispatcher.mongo.webhooks import MongoWebhooks
from dispatcher.operations.webhooks import Webhooks
from tests.bench.rig import DEADLINE_SECONDS, Deployment, Rig, event

DELIVERIES = 100_000
EACH = 10
WARMING = 5
TIMEOUT_SECONDS = 2
SAMPLE_SECONDS = 1.0
ROWS = 10
ALLOWED_GROWTH = 1.10


@dataclass(frozen=True)
class Sample:
    """A worker at one moment."""

    at_seconds: float
    done: int
    resident_mib: float
    descriptors: int


async def show_hostile(rig: Rig, deliveries: int = DELIVERIES) -> None:
    """Print the worker over time, how the deliveries ended, and whether its last third took more than its first."""
    async with running_endpoints() as urls, rig.deployment("hostile") as deployment:
        each = max(1, deliveries // (len(urls) * EACH))
        await make_webhooks(deployment, urls, each)
        total = len(urls) * each * (EACH + WARMING)
        async with deployment.worker(MAX_IN_FLIGHT="2048") as process:
            await deployment.awake()
            samples = await watch(deployment, process, total)
        outcomes = await ended_as(deployment)
    print(f"hostile              {total:,} deliveries to {len(urls)} kinds of endpoint, {each} webhooks a kind")
    print("  seconds       done   resident MiB   descriptors")
    for sample in samples[:: max(1, len(samples) // ROWS)] + samples[-1:]:
        print(f"  {sample.at_seconds:>7.0f} {sample.done:>10,} {sample.resident_mib:>14.1f} {sample.descriptors:>13,}")
    for words, count in outcomes.most_common():
        print(f"  {count:>8,}  {words}")
    print(f"  after the first {WARMING / (EACH + WARMING):.0%}: {flat(samples, total)}")


def flat(samples: list[Sample], total: int) -> str:
    """Say whether the last third of the deliveries took more than the first, the warming up left out."""
    warm = total * WARMING / (EACH + WARMING)
    first = [sample for sample in samples if 0 < sample.done - warm <= (total - warm) / 3]
    last = [sample for sample in samples if sample.done - warm > (total - warm) * 2 / 3]
    if not first or not last:
        return "too few samples to compare"
    parts = []
    for name, of in (("MiB", lambda each: each.resident_mib), ("descriptors", lambda each: each.descriptors)):
        before, after = max(map(of, first)), max(map(of, last))
        verdict = "flat" if after <= before * ALLOWED_GROWTH else "GROWN"
        parts.append(f"{name} at most {before:,.0f} in the first third, {after:,.0f} in the last: {verdict}")
    return "; ".join(parts)


async def make_webhooks(deployment: Deployment, urls: dict[str, str], each: int) -> None:
    """Make so many webhooks of each kind, each wanting events of its own, one attempt a delivery."""
    policy = AddressPolicy(allow_http=True, allowed_networks=deployment.settings.send.allowed_networks)
    keyring = Keyring(deployment.settings.encryption_keys)
    webhooks = Webhooks(MongoWebhooks(deployment.connection.webhooks), SystemClock(), policy, keyring, draw)
    for kind, url in enumerate(urls.values()):
        for number in range(each):
            fields = {"url": url, "events": [_type(kind, number)], "max_attempts": 1}
            await webhooks.create("hostile", {**fields, "timeout_seconds": TIMEOUT_SECONDS})


def _type(kind: int, number: int) -> str:
    return f"kind.{kind}.{number}"


async def watch(deployment: Deployment, process: psutil.Process, total: int) -> list[Sample]:
    """Publish the events and look at the worker until every delivery has ended."""
    kinds = await deployment.connection.webhooks.distinct("events", {"workspace_id": "hostile"})
    events = (
        event(number, kind, "hostile")
        for number, kind in enumerate(kind for _ in range(EACH + WARMING) for kind in sorted(kinds))
    )
    publishing = asyncio.create_task(deployment.publish(events))
    began, samples = time.monotonic(), list[Sample]()
    while not samples or samples[-1].done < total:
        done = await count_ended(deployment)
        now = time.monotonic() - began
        samples.append(Sample(now, done, process.memory_info().rss / 2**20, process.num_fds()))
        if now > DEADLINE_SECONDS:
            raise TimeoutError(f"{done} of {total} deliveries ended after {DEADLINE_SECONDS} s")
        await asyncio.sleep(SAMPLE_SECONDS)
    await publishing
    await asyncio.sleep(SAMPLE_SECONDS)
    rest = Sample(time.monotonic() - began, total, process.memory_info().rss / 2**20, process.num_fds())
    return [*samples, replace(rest, done=total)]


async def count_ended(deployment: Deployment) -> int:
    """Count the deliveries that the log shows as ended."""
    wanted: dict[str, Any] = {"w": "hostile", "st": {"$in": ["delivered", "failed"]}}
    return int(await deployment.connection.deliveries.count_documents(wanted))


async def ended_as(deployment: Deployment) -> collections.Counter[str]:
    """Count the deliveries by what the log says of their attempt."""
    counts: collections.Counter[str] = collections.Counter()
    async for stored in deployment.connection.deliveries.find({"w": "hostile"}, {"a": 1, "st": 1}):
        error = next(iter(stored["a"]), {}).get("e") or ""
        counts[re.sub(r"\d+ bytes", "… bytes", error)[:100] or stored["st"]] += 1
    return counts


@contextlib.asynccontextmanager
async def running_endpoints() -> AsyncIterator[dict[str, str]]:
    """Run the endpoints in a process of their own; yields each kind's URL."""
    command = ("-m", "tests.bench.hostile_endpoints")
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield json.loads(await process.stdout.readline())
    finally:
        process.terminate()
        await process.wait()
