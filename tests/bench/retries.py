"""Retries: a backlog that is due beside new events, and how late they are when their tier isn't saturated."""

import time
from functools import partial

from dispatcher.core.delivery_id import DeliveryIds
from dispatcher.core.model import Origin
from dispatcher.core.records import DeliveryRecord, encode_headers
from tests.bench.rig import Deployment, Rig, cpu_seconds, event, steadily
from tests.bench.throughput import QUIET_PER_SECOND

BACKLOG = 200_000
QUIET_SECONDS = 15.0
RATES = (100, 1_000, 3_000)
DUE_IN_MS = 4_000
LATENESS_SECONDS = 12.0


async def show_retries(rig: Rig) -> None:
    """Print what due retries cost new events, and how late they are."""
    await show_due_backlog(rig)
    await show_lateness(rig)


async def show_due_backlog(rig: Rig, backlog: int = BACKLOG) -> None:
    """Print the latency of new events, alone and while a tier has a backlog of due retries."""
    async with rig.deployment("due") as deployment:
        await deployment.webhook("/new", events=["user.*"])
        old = await deployment.webhook("/old", "other")
        async with deployment.worker() as process:
            await deployment.awake()
            await deployment.warm_up()
            await rig.reset()
            count = await deployment.offer(partial(event, is_timed=True), QUIET_PER_SECOND, QUIET_SECONDS)
            await rig.reached(count, "new")
            quiet = (await rig.counts())["new"]
            await put_retries(deployment, old.subscription.id, range(backlog))
            await rig.reset()
            began, cpu = time.perf_counter(), cpu_seconds(process)
            count = await deployment.offer(
                partial(event, prefix="busy", is_timed=True), QUIET_PER_SECOND, QUIET_SECONDS
            )
            cpu, seconds = cpu_seconds(process) - cpu, time.perf_counter() - began
            await rig.reached(count, "new")
            counts = await rig.counts()
            busy, retried = counts["new"], counts["old"].requests
    p99, quiet_p99 = busy.latency_ms(0.99), quiet.latency_ms(0.99)
    print(
        f"{backlog:,} due retries  {retried / seconds:>9,.0f}/s  {cpu / (retried + count) * 1e6:.1f} µs of CPU each; "
        f"p99 of new events at {QUIET_PER_SECOND}/s {p99:.1f} ms, quiet {quiet_p99:.1f} ms, ratio {p99 / quiet_p99:.1f}"
    )


async def show_lateness(rig: Rig) -> None:
    """Print how late retries are sent, by how many are due a second."""
    for rate in RATES:
        async with rig.deployment("late") as deployment:
            webhook = await deployment.webhook("/late", "other")
            async with deployment.worker():
                await deployment.awake()
                await deployment.warm_up(workspace="other")
                await rig.reset()
                count = await put_due(deployment, webhook.subscription.id, rate)
                await rig.reached(count, "late")
                seen = (await rig.counts())["late"]
        p50, p99 = seen.latency_ms(0.5), seen.latency_ms(0.99)
        print(f"retries due at {rate:>5,}/s  lateness p50 {p50:.1f} ms, p99 {p99:.1f} ms")


def retry(deployment: Deployment, subscription_id: str, number: int, due_ms: int) -> tuple[bytes, bytes, list]:
    """Return key, value and headers of a retry; its event carries when it is due as the time it was sent at."""
    value = event(number, workspace="other", is_timed=True)
    at = value.index(b'"sent_at_ms":') + 13
    value = value[:at] + str(due_ms).encode() + b"}}"
    record = DeliveryRecord(
        DeliveryIds("other", "", f"evt_{number:012d}").of(subscription_id),
        subscription_id,
        "other",
        1,
        due_ms,
        due_ms - 60_000,
        None,
        Origin(deployment.source, 0, number, due_ms - 60_000),
    )
    return record.key, value, list(encode_headers(record, ()))


async def put_retries(deployment: Deployment, subscription_id: str, numbers: range) -> None:
    """Put retries that are all due now on the first tier's topic."""
    topic = deployment.names.retry(deployment.names.tiers[0])
    now_ms = int(time.time() * 1000)
    async with deployment.producer() as producer:
        for number in numbers:
            key, value, headers = retry(deployment, subscription_id, number, now_ms)
            await producer.send(topic, value, key=key, headers=headers)


async def put_due(deployment: Deployment, subscription_id: str, per_second: int) -> int:
    """Put retries on the first tier's topic at a steady rate, each due some seconds later; return how many."""
    topic = deployment.names.retry(deployment.names.tiers[0])
    partitions = deployment.settings.topics.partitions
    async with deployment.producer(linger_ms=5) as producer:

        async def put(number: int) -> None:
            due_ms = int(time.time() * 1000) + DUE_IN_MS
            _, value, headers = retry(deployment, subscription_id, number, due_ms)
            await producer.send(topic, value, partition=number % partitions, headers=headers)

        return await steadily(put, per_second, LATENESS_SECONDS)
