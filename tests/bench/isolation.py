"""What endpoints that hang, or take 9 s, cost fifty healthy ones; and endpoints that take 100 ms."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from tests.bench.publisher import Make
from tests.bench.rig import Deployment, Drained, Rig, drain, event, peak_mib

HEALTHY = 50
HANGING = 10
TAKING_LONG = 200
WAITING = 100
LOAD = 0.4
STEADY_SECONDS = 30.0
LIVE_SECONDS = 20.0


@dataclass(frozen=True)
class Steady:
    """How the healthy ones fared at a steady load."""

    per_second: float
    p50_ms: float
    p99_ms: float
    peak_mib: int


def healthy(number: int) -> bytes:
    """Make an event for one healthy endpoint."""
    return event(number, f"healthy.{number % HEALTHY}", is_timed=True)


def mixed(number: int, *, group: str, endpoints: int) -> bytes:
    """Make an event; every second one is for a broken endpoint."""
    if number % 2:
        return healthy(number)
    return event(number, f"{group}.{number // 2 % endpoints}")


def events_beside(broken: tuple[str, int] | None) -> Make:
    """Say how events are made, with broken endpoints or without."""
    return partial(mixed, group=broken[0], endpoints=broken[1]) if broken else healthy


async def show_isolation(rig: Rig, events: int) -> None:
    """Print how healthy endpoints fare alone, beside hanging ones and beside ones that take 9 s."""
    alone = await saturated(rig, events, None)
    print(f"{HEALTHY} healthy endpoints   {alone.per_second:>9,.0f}/s alone, as fast as it goes")
    live = await capacity_live(rig, alone.per_second, prepare, healthy, "ok")
    print(f"  while they come     {live:>9,.0f}/s: what the loads below are shares of")
    offered = LOAD * live
    quiet = await steady(rig, offered / 2, None)
    print(
        f"  at {offered / 2:,.0f}/s alone   {quiet.per_second:>9,.0f}/s  p50 {quiet.p50_ms:.1f} ms, "
        f"p99 {quiet.p99_ms:.1f} ms, {quiet.peak_mib} MiB"
    )
    for what, broken in (
        (f"{HANGING} that hang", ("hang", HANGING)),
        (f"{TAKING_LONG} that take 9 s", ("wait-9000", TAKING_LONG)),
    ):
        found = await steady(rig, offered, broken)
        print(
            f"  beside {what:<14}{found.per_second:>8,.0f}/s  p50 {found.p50_ms:.1f} ms, p99 {found.p99_ms:.1f} ms, "
            f"{found.peak_mib} MiB; ratio {found.per_second / quiet.per_second:.2f} of the rate, "
            f"{found.p99_ms / quiet.p99_ms:.2f} of the p99"
        )
        full = await saturated(rig, events, broken)
        print(
            f"    as fast as it goes {full.per_second:>6,.0f}/s  ratio {full.per_second / alone.per_second:.2f}, "
            f"{full.peak_mib} MiB"
        )


async def show_waiting(rig: Rig, events: int) -> None:
    """Print what one worker makes of endpoints that take 100 ms."""
    async with rig.deployment("waiting") as deployment:
        for number in range(WAITING):
            await deployment.webhook(f"/wait-100/{number}", events=[f"waiting.{number}"])
        await deployment.publish(event(number, f"waiting.{number % WAITING}") for number in range(events))
        async with deployment.worker() as process:
            found = await drain(rig, events, [process], "wait-100")
    print(
        f"{WAITING} that take 100 ms {found.per_second:>10,.0f}/s  {found.cpu_us:.1f} µs of CPU each, "
        f"{found.peak_mib} MiB peak"
    )


async def prepare(deployment: Deployment, broken: tuple[str, int] | None = None) -> None:
    """Create the webhooks."""
    for number in range(HEALTHY):
        await deployment.webhook(f"/ok/{number}", events=[f"healthy.{number}"])
    group, count = broken or ("", 0)
    for number in range(count):
        await deployment.webhook(f"/{group}/{number}", events=[f"{group}.{number}"])


async def saturated(rig: Rig, events: int, broken: tuple[str, int] | None) -> Drained:
    """Work off a backlog; the rate is that of the healthy ones."""
    async with rig.deployment("full") as deployment:
        await prepare(deployment, broken)
        await deployment.publish(map(events_beside(broken), range(events * 2 if broken else events)))
        async with deployment.worker() as process:
            return await drain(rig, events, [process], "ok")


async def capacity_live(
    rig: Rig, per_second: float, prepare: Callable[[Deployment], Awaitable[None]], make: Make, group: str
) -> float:
    """Offer more than can be delivered beside the publishing; return how many a second were.

    A backlog says what one worker does with the cores that it finds free: publisher and broker take theirs of what
    comes meanwhile.
    """
    async with rig.deployment("live") as deployment:
        await prepare(deployment)
        async with deployment.worker():
            await deployment.awake()
            offering = asyncio.ensure_future(deployment.offer(make, per_second, LIVE_SECONDS))
            await asyncio.sleep(LIVE_SECONDS / 3)
            first = await rig.reached(0, group)
            await asyncio.sleep(LIVE_SECONDS / 3)
            last = await rig.reached(0, group)
            await offering
    return (last[1] - first[1]) / (last[0] - first[0])


async def steady(rig: Rig, per_second: float, broken: tuple[str, int] | None) -> Steady:
    """Offer a steady load, of which broken endpoints get half."""
    async with rig.deployment("steady") as deployment:
        await prepare(deployment, broken)
        async with deployment.worker() as process:
            await deployment.awake()
            await deployment.warm_up("healthy.0")
            await rig.reset()
            count = await deployment.offer(events_beside(broken), per_second, STEADY_SECONDS)
            due = count // 2 if broken else count
            at_end = (await rig.counts())["ok"].requests
            await rig.reached(due, "ok")
            seen = (await rig.counts())["ok"]
            return Steady(at_end / STEADY_SECONDS, seen.latency_ms(0.5), seen.latency_ms(0.99), peak_mib(process))
