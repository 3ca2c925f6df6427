"""One worker on a backlog, beside the plain send loop; and latency at a low steady rate."""

import asyncio
import sys
from functools import partial

from tests.bench.rig import Rig, drain, event
from tests.bench.send_loop import measure_send_loop

QUIET_PER_SECOND = 200
QUIET_SECONDS = 15
PLAIN_REQUESTS = 100_000
PLAIN_CONCURRENCY = 128


async def show_throughput(rig: Rig, events: int, profile: str | None) -> None:
    """Print the plain send loop's figures, the whole way's, and their ratio."""
    plain = await measure_send_loop(f"{rig.receiver}/plain", PLAIN_REQUESTS, PLAIN_CONCURRENCY)
    print(f"plain send loop      {plain.per_second:>9,.0f}/s  {plain.cpu_us_each:.1f} µs of CPU each")
    async with rig.deployment("throughput") as deployment:
        await deployment.webhook("/hook", events=["user.*"])
        await deployment.publish(event(number) for number in range(events))
        async with deployment.worker() as process:
            if profile:
                await rig.reached(events // 10, "hook")
                await asyncio.create_subprocess_exec(
                    sys.executable.replace("python", "py-spy"), "record", "-p", str(process.pid), "-d", "8",
                    "-r", "500", "-o", profile, "-f", "raw", "--nonblocking", stdout=asyncio.subprocess.DEVNULL,
                )  # fmt: skip
            found = await drain(rig, events, [process], "hook")
            await deployment.until_committed()
        logged = await deployment.connection.deliveries.estimated_document_count()
        received = (await rig.counts())["hook"].requests
    print(
        f"whole way            {found.per_second:>9,.0f}/s  {found.cpu_us:.1f} µs of the worker's CPU each, "
        f"{found.peak_mib} MiB peak; {received:,} received, {logged:,} logged"
    )
    print(f"ratio to plain loop  {found.per_second / plain.per_second:>9.2f}")


async def show_latency(rig: Rig) -> None:
    """Publish at a steady low rate; latency is from the publisher's send to the endpoint's receipt."""
    async with rig.deployment("latency") as deployment:
        await deployment.webhook("/hook")
        async with deployment.worker():
            await deployment.awake()
            await deployment.warm_up()
            await rig.reset()
            count = await deployment.offer(partial(event, is_timed=True), QUIET_PER_SECOND, QUIET_SECONDS)
            await rig.reached(count, "hook")
            seen = (await rig.counts())["hook"]
    print(f"latency at {QUIET_PER_SECOND}/s      p50 {seen.latency_ms(0.5):.2f} ms, p99 {seen.latency_ms(0.99):.2f} ms")
