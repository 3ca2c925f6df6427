"""What one tenant's flood costs another: the other's latency from publishing to the endpoint's receipt."""

import asyncio
from dataclasses import dataclass
from functools import partial

from dispatcher.core.sealing import Keyring
from dispatcher.mongo.webhook_documents import document_of
from tests.bench.isolation import capacity_live, saturated
from tests.bench.rig import Deployment, Rig, event
from tests.bench.subscriptions import BATCH, clone

QUIET_PER_SECOND = 100
SECONDS = 30.0
FAN_OUT = 100_000
HANGING = 5_000
LIMIT = 10


@dataclass(frozen=True)
class Flood:
    """What the loud tenant does.

    Attributes:
        what: In words.
        path: Where its webhooks send to.
        webhooks: How many there are.
        events_per_second: What it publishes; 0: one event in all.
        settings: Of the worker.
    """

    what: str
    path: str
    webhooks: int
    events_per_second: float
    settings: tuple[tuple[str, str], ...] = ()


async def show_neighbours(rig: Rig, events: int) -> None:
    """Print the quiet tenant's latency alone and beside each flood."""
    backlog = await saturated(rig, events, None)
    make = partial(event, event_type="loud", workspace="loud", prefix="loud")
    capacity = await capacity_live(rig, backlog.per_second, one_webhook, make, "loud")
    print(f"one worker delivers {capacity:,.0f}/s while they are published, {backlog.per_second:,.0f}/s of a backlog")
    limited = (("MAX_IN_FLIGHT_PER_WEBHOOK", str(LIMIT)),)
    for flood in (
        Flood(f"{capacity / 2:,.0f} events/s", "/loud", 1, capacity / 2),
        Flood(f"one event to {FAN_OUT:,} webhooks", "/loud", FAN_OUT, 0),
        Flood(f"one event to {HANGING:,} that hang", "/hang", HANGING, 0),
        Flood(f"twice what an endpoint takes ({LIMIT} at a time)", "/wait-10", 1, 2 * LIMIT * 100, limited),
    ):
        await show_flood(rig, flood)


async def one_webhook(deployment: Deployment) -> None:
    """Create the one webhook that a capacity is measured with."""
    await deployment.webhook("/loud", "loud", events=["loud"])


async def show_flood(rig: Rig, flood: Flood) -> None:
    """Measure the quiet tenant before and beside a flood."""
    async with rig.deployment("neighbours", **dict(flood.settings)) as deployment:
        await deployment.webhook("/ok", "quiet", events=["quiet"])
        await make_loud(deployment, flood)
        async with deployment.worker() as process:
            del process
            await deployment.awake()
            await deployment.warm_up("quiet", "quiet")
            before = await quiet_latency(deployment, 0)
            loud = asyncio.ensure_future(make_noise(deployment, flood))
            beside = await quiet_latency(deployment, 1)
            await loud
    print(
        f"beside {flood.what}\n  another tenant's p50 {beside[0]:.1f} ms, p99 {beside[1]:.1f} ms; "
        f"alone {before[0]:.1f} and {before[1]:.1f} ms; ratio of the p99 {beside[1] / before[1]:.2f}"
    )


async def quiet_latency(deployment: Deployment, turn: int) -> tuple[float, float]:
    """Offer the quiet tenant's events; return its p50 and p99 in milliseconds."""
    await deployment.rig.reset()
    make = partial(event, event_type="quiet", workspace="quiet", prefix=f"quiet{turn}", is_timed=True)
    count = await deployment.offer(make, QUIET_PER_SECOND, SECONDS)
    await deployment.rig.reached(count, "ok")
    seen = (await deployment.rig.counts())["ok"]
    return seen.latency_ms(0.5), seen.latency_ms(0.99)


async def make_loud(deployment: Deployment, flood: Flood) -> None:
    """Create the loud tenant's webhooks."""
    template = await deployment.webhook(flood.path, "loud", events=["loud"])
    keyring = Keyring(deployment.settings.encryption_keys)
    for start in range(1, flood.webhooks, BATCH):
        numbers = range(start, min(start + BATCH, flood.webhooks))
        made = [clone(template, keyring, f"wh_{number:016d}", "loud", ("loud",)) for number in numbers]
        await deployment.connection.webhooks.insert_many([document_of(each) for each in made], ordered=False)


async def make_noise(deployment: Deployment, flood: Flood) -> None:
    """Publish the loud tenant's events."""
    make = partial(event, event_type="loud", workspace="loud", prefix="loud")
    if flood.events_per_second:
        await deployment.offer(make, flood.events_per_second, SECONDS)
    else:
        await asyncio.sleep(1)
        await deployment.publish([make(0)])
