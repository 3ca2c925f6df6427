"""Live latency while dead letters are replayed, beside that of quiet phases of the same run.

One worker process; live events at a steady low rate to one webhook; dead letters of another webhook of the same
workspace, replayed by the command that an operator uses. Latency is from publishing to the endpoint's receipt.
"""

import asyncio
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from dispatcher.core.delivery_id import DeliveryIds
from dispatcher.core.model import DeadLetterReason, Origin
from dispatcher.core.records import DeliveryRecord, encode_headers
from dispatcher.core.topics import group_of
from tests.bench.publisher import TICK_SECONDS
from tests.bench.rig import DEADLINE_SECONDS, Count, Deployment, Rig, event

PER_SECOND = 200
QUIET_SECONDS = 20.0
REPLAYED = 100_000
REPLAYS_PER_SECOND = 1_000.0
WORKSPACE = "default"


@dataclass(frozen=True)
class Comparison:
    """The phases of one run.

    Attributes:
        before: Nothing but live events.
        sending: The same, while the command put replays on their topic (on this machine, which it shares with all
            else) and the worker delivered them.
        delivering: The same, while the worker delivered the rest.
        after: Nothing but live events again.
        seconds: From the first replay on its topic to the last one's end.
    """

    before: Count
    sending: Count
    delivering: Count
    after: Count
    seconds: float

    def change(self, phase: Count) -> float:
        """Return the p99 of a phase over the mean of the quiet ones', less one."""
        return phase.latency_ms(0.99) / ((self.before.latency_ms(0.99) + self.after.latency_ms(0.99)) / 2) - 1


async def show_replay(rig: Rig, count: int = REPLAYED) -> None:
    """Print what live events take while dead letters are replayed."""
    async with rig.deployment("replay") as deployment:
        await deployment.webhook("/live", events=["user.*"])
        dead = await deployment.webhook("/dead", events=["dead.*"])
        async with deployment.worker():
            await deployment.awake()
            found = await measure_live_latency(deployment, dead.subscription.id, count, REPLAYS_PER_SECOND)
    for name, phase in (
        ("quiet", found.before),
        ("replay is sent", found.sending),
        ("delivered", found.delivering),
        ("quiet again", found.after),
    ):
        print(
            f"live, {name:<14} p50 {phase.latency_ms(0.5):.2f} ms, p99 {phase.latency_ms(0.99):.2f} ms of "
            f"{phase.requests:,} events, p99 {found.change(phase):+.0%} beside the quiet phases"
        )
    print(f"replay of {count:,}    {count / found.seconds:,.0f}/s for {found.seconds:.0f} s")


async def measure_live_latency(deployment: Deployment, webhook_id: str, count: int, rate: float) -> Comparison:
    """Measure with a worker that runs already.

    Args:
        deployment: The run's surroundings.
        webhook_id: The webhook whose dead letters are made and replayed; it gets nothing else.
        count: How many dead letters.
        rate: Replays a second, at most.
    """
    await put_dead_letters(deployment, webhook_id, count)
    before = await live_phase(deployment, until=after_seconds(QUIET_SECONDS))
    replaying = asyncio.create_task(replay(deployment, webhook_id, rate))
    # The command looks before it sends; that is no replay yet.
    while not (replaying.done() or await replays_left(deployment)):
        await asyncio.sleep(0.1)
    began = time.perf_counter()
    sending = await live_phase(deployment, until=replaying.done)
    await replaying
    watching = asyncio.create_task(all_delivered(deployment))
    delivering = await live_phase(deployment, until=watching.done)
    await watching
    seconds = time.perf_counter() - began
    after = await live_phase(deployment, until=after_seconds(QUIET_SECONDS))
    return Comparison(before, sending, delivering, after, seconds)


def after_seconds(seconds: float) -> Callable[[], bool]:
    """Return what says whether so much time has passed."""
    ends_at = time.perf_counter() + seconds
    return lambda: time.perf_counter() >= ends_at


async def live_phase(deployment: Deployment, until: Callable[[], bool]) -> Count:
    """Publish live events at a steady rate until it is over, and wait for all of them."""
    await deployment.rig.reset()
    prefix = f"live{time.time_ns()}"
    began, number = time.perf_counter(), 0
    async with deployment.producer(linger_ms=0) as producer:
        while not until():
            while number < (time.perf_counter() - began) * PER_SECOND:
                await producer.send(deployment.source, event(number, prefix=prefix, is_timed=True))
                number += 1
            await asyncio.sleep(TICK_SECONDS)
    await deployment.rig.reached(number, "live")
    return (await deployment.rig.counts())["live"]


async def put_dead_letters(deployment: Deployment, webhook_id: str, count: int) -> None:
    """Produce dead letters as a worker would."""
    async with deployment.producer() as producer:
        for number in range(count):
            record = DeliveryRecord(
                DeliveryIds(WORKSPACE, "", f"dead_{number:012d}").of(webhook_id),
                webhook_id,
                WORKSPACE,
                attempt=6,
                not_before_ms=0,
                first_attempt_ms=1,
                parked_since_ms=None,
                origin=Origin(deployment.source, 0, number, int(time.time() * 1000)),
                reason=DeadLetterReason.ATTEMPTS_EXHAUSTED,
                http_status=503,
                error="status 503",
            )
            value = event(number, "dead.made", prefix="dead")
            headers = list(encode_headers(record, ()))
            await producer.send(deployment.names.dead_letter, value, key=b"%d" % number, headers=headers)


async def replay(deployment: Deployment, webhook_id: str, rate: float) -> None:
    """Run the operator's command, which elsewhere has a machine of its own: here it takes what the worker leaves."""
    process = await asyncio.create_subprocess_exec(
        *("nice", "-n", "15", sys.executable, "-m", "dispatcher", "dead-letters", "replay"),
        *("--subscription", webhook_id, "--rate", f"{rate}/s"),
        env={**os.environ, **deployment.environ},
    )
    if await process.wait():
        raise RuntimeError("the replay failed")


async def all_delivered(deployment: Deployment) -> None:
    """Return when everything on the replay topic is dealt with."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while await replays_left(deployment):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{await replays_left(deployment)} replays are not dealt with")
        await asyncio.sleep(0.5)


async def replays_left(deployment: Deployment) -> int:
    """Return how many records of the replay topic are not committed yet."""
    group = group_of(deployment.settings.topics.consumer_group, "replay")
    return await deployment.lag(group, deployment.names.replay)
