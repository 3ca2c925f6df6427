"""What a million subscriptions cost: memory, the time to load them, matching, and throughput beside a thousand.

    python -m tests.bench.subscriptions

measures the load in a process of its own; it takes the database from the settings.
"""

import asyncio
import gc
import json
import os
import random
import sys
import time
from dataclasses import replace
from pathlib import Path

from dispatcher import config
from dispatcher.app.clock import SystemClock, draw
from dispatcher.app.connections import mongo_connection
from dispatcher.core.matching import SubscriptionIndex
from dispatcher.core.model import SealedSecret, Webhook
from dispatcher.core.sealing import NONCE_BYTES, Keyring, SealPurpose, binding
from dispatcher.mongo.subscription_feed import SubscriptionFeed
from dispatcher.mongo.webhook_documents import document_of
from tests.bench.rig import Deployment, Drained, Rig, drain, event

MANY = 1_000_000
WORKSPACES = 10_000
FEW = 1_000
BATCH = 5_000
TYPES = ("user.created", "user.*", "order.paid", "order.*", "invoice.sent", "invoice.*", "ticket.closed", "ticket.*")
MATCHES = 200_000


async def show_subscriptions(rig: Rig, events: int, many: int = MANY) -> None:
    """Print memory, load time, matching cost and throughput."""
    few = await throughput_with(rig, FEW, FEW // 100, events)
    many_found, loaded = await throughput_with(rig, many, min(WORKSPACES, many // 100), events, measure_load=True)
    print(
        f"{many:,} subscriptions  {loaded['bytes_each'] / 1000:.2f} KB each, loaded in {loaded['load_seconds']:.1f} s, "
        f"{loaded['match_us']:.2f} µs to match an event"
    )
    print(
        f"  throughput         {many_found.per_second:>9,.0f}/s, {many_found.cpu_us:.1f} µs of CPU each; with {FEW:,}: "
        f"{few[0].per_second:,.0f}/s, {few[0].cpu_us:.1f} µs; ratio {many_found.per_second / few[0].per_second:.2f}"
    )


async def throughput_with(
    rig: Rig, subscriptions: int, workspaces: int, events: int, *, measure_load: bool = False
) -> tuple[Drained, dict[str, float]]:
    """Work off a backlog of events that each match one webhook, every workspace having its turn."""
    async with rig.deployment("many") as deployment:
        await insert(deployment, subscriptions, workspaces)
        loaded = await load_elsewhere(deployment) if measure_load else {}
        await deployment.publish(event(number, "match.once", f"ws_{number % workspaces}") for number in range(events))
        async with deployment.worker() as process:
            return await drain(rig, events, [process], "many"), loaded


async def insert(deployment: Deployment, count: int, workspaces: int) -> None:
    """Write webhooks as the API would; one of each workspace wants `match.once`."""
    template = await deployment.webhook("/many", "template")
    await deployment.connection.webhooks.delete_one({"_id": template.subscription.id})
    keyring = Keyring(deployment.settings.encryption_keys)
    for start in range(0, count, BATCH):
        rows = [document_of(another(template, keyring, number, workspaces)) for number in range(start, start + BATCH)]
        await deployment.connection.webhooks.insert_many(rows[: count - start], ordered=False)


def another(template: Webhook, keyring: Keyring, number: int, workspaces: int) -> Webhook:
    """Make one of many webhooks."""
    turn = number // workspaces
    events = ("match.once",) if not turn else (TYPES[turn % len(TYPES)],)
    return clone(template, keyring, f"wh_{number:016d}", f"ws_{number % workspaces}", events)


def clone(template: Webhook, keyring: Keyring, own: str, workspace: str, events: tuple[str, ...]) -> Webhook:
    """Make a webhook like another, with a secret of its own."""
    aad = binding(workspace, own, SealPurpose.SIGNING_SECRET)
    secret = SealedSecret(keyring.seal(b"whsec_" + own.encode(), nonce=draw(NONCE_BYTES), aad=aad))
    subscription = replace(template.subscription, id=own, workspace_id=workspace, events=events, secrets=(secret,))
    return replace(template, subscription=subscription)


async def load_elsewhere(deployment: Deployment) -> dict[str, float]:
    """Load all of them in a process of its own; return what it measured."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.subscriptions",
        env={**os.environ, **deployment.environ}, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await process.communicate()
    return json.loads(output.splitlines()[-1])  # before it, log lines


async def measure_load() -> dict[str, float]:
    """Load the subscriptions as a worker does, and match events."""
    settings = config.load(dict(os.environ))
    index = SubscriptionIndex()
    async with mongo_connection(settings) as connection:
        feed = SubscriptionFeed(connection.webhooks, index, SystemClock())
        await connection.ping()
        gc.collect()
        before, began = resident_bytes(), time.perf_counter()
        running = asyncio.create_task(feed.run())
        await feed.ready()
        seconds = time.perf_counter() - began
        running.cancel()
    gc.collect()
    each = (resident_bytes() - before) / len(index)
    chance = random.Random(1)
    asked = [(f"ws_{chance.randrange(WORKSPACES)}", chance.choice(("match.once", *TYPES[::2]))) for _ in range(MATCHES)]
    cpu = time.process_time()
    for workspace, event_type in asked:
        index.match(workspace, event_type)
    cpu = time.process_time() - cpu
    return {"bytes_each": each, "load_seconds": seconds, "match_us": cpu / MATCHES * 1e6}


def resident_bytes() -> int:
    """Return this process's resident size."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure_load())))
