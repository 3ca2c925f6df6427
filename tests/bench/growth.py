"""CPU for a delivery as the work grows: fan-out, backlog, workers."""

import contextlib

from tests.bench.rig import Drained, Rig, cpu_seconds, drain, event, peak_mib

FAN_OUTS = (1, 10, 100, 1_000)
DELIVERIES = 150_000
BACKLOG = 1_000_000
STEADY_SECONDS = 20.0
STEADY_SHARE = 0.5
BAR = 0.75
"""Of a µs, for each block of the plot."""


async def show_growth(rig: Rig, deliveries: int = DELIVERIES, backlog: int = BACKLOG) -> None:
    """Print a table, and a plot of CPU for a delivery."""
    rows = [(f"fan-out {fan_out:,}", await fanned_out(rig, fan_out, deliveries)) for fan_out in FAN_OUTS]
    rows.append(("no backlog", await without_backlog(rig, rows[0][1].per_second * STEADY_SHARE)))
    rows += [(f"backlog {backlog:,}", await with_backlog(rig, backlog, deliveries, 1))]
    rows += [(f"{count} workers", await with_backlog(rig, deliveries * count, deliveries, count)) for count in (1, 2)]
    print("as work grows        deliveries/s   µs of CPU each   peak MiB")
    for name, found in rows:
        print(
            f"  {name:<18} {found.per_second:>12,.0f} {found.cpu_us:>16.1f} {found.peak_mib:>10}  "
            f"{'█' * round(found.cpu_us * BAR)}"
        )


async def fanned_out(rig: Rig, fan_out: int, deliveries: int) -> Drained:
    """Each event goes to so many webhooks."""
    async with rig.deployment("fan-out") as deployment:
        for number in range(fan_out):
            await deployment.webhook(f"/fan/{number}")
        await deployment.publish(event(number) for number in range(deliveries // fan_out))
        async with deployment.worker() as process:
            return await drain(rig, deliveries, [process], "fan")


async def with_backlog(rig: Rig, backlog: int, deliveries: int, workers: int) -> Drained:
    """Workers begin on a backlog; measured over its first part."""
    async with rig.deployment("backlog") as deployment:
        await deployment.webhook("/backlog")
        await deployment.publish(event(number) for number in range(backlog))
        async with contextlib.AsyncExitStack() as stack:
            processes = [await stack.enter_async_context(deployment.worker()) for _ in range(workers)]
            return await drain(rig, deliveries, processes, "backlog")


async def without_backlog(rig: Rig, per_second: float) -> Drained:
    """Events come as they are worked off."""
    async with rig.deployment("no-backlog") as deployment:
        await deployment.webhook("/flow")
        async with deployment.worker() as process:
            await deployment.awake()
            cpu = cpu_seconds(process)
            count = await deployment.offer(event, per_second, STEADY_SECONDS)
            await rig.reached(count, "flow")
            cpu = cpu_seconds(process) - cpu
            return Drained(count / STEADY_SECONDS, cpu / count * 1e6, peak_mib(process))
