"""The rate limit of a webhook, over all workers."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable

import pytest

from tests.deployment import Deployment, deploy, event, eventually, make_settings, until
from tests.services import Services

RATE = 20
MEASURED = 160


@pytest.fixture
async def deployment(services: Services, unique_name: Callable[..., str]) -> AsyncIterator[Deployment]:
    """A deployment of the test's own, without a worker."""
    async with deploy(make_settings(services.kafka_bootstrap, services.mongo_uri, unique_name("rate"))) as made:
        yield made


@pytest.mark.timeout(150)
async def test_two_workers_share_a_rate_limit(deployment: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    """Together two workers send no more than the limit and one second's worth at once, and everything arrives."""
    limited = await deployment.webhook("/limited", events=["limited"], rate_limit=RATE)
    await deployment.webhook("/free", events=["free"])
    receiver = deployment.receiver
    async with deployment.process() as first, deployment.process() as second:

        async def both_take_part() -> bool:
            await deployment.publish(*(event(f"free-{number}", "free") for number in range(20)))
            taken = [await worker.metric("dispatcher_events_total") for worker in (first, second)]
            return all(taken)

        await eventually(both_take_part, bool, "both workers take events", 60)
        # Each asks every two seconds how many they are.
        await asyncio.sleep(4)
        await deployment.publish(*(event(number, "limited") for number in range(MEASURED)))
        await until(lambda: len(receiver.at("/limited")) >= MEASURED, "everything arrived", 90)
        await deployment.until_done(seconds=60)
    times = [request.at for request in receiver.at("/limited")]
    assert len(times) == MEASURED
    for start in range(MEASURED):
        # One second's worth was saved up, and requests are a few milliseconds under way.
        allowed = [RATE * (at - times[start] + 0.5) + RATE for at in times[start:]]
        assert all(number <= most for number, most in enumerate(allowed, start=1)), f"too many from {start} on"
    with capsys.disabled():
        sys.stdout.write(f"\nlimit {RATE}/s: {(MEASURED - 1) / (times[-1] - times[0]):.1f}/s by two workers\n")
    waited = await deployment.records(deployment.names.overflow)
    assert {record.partition for record in waited} == {0, 1}
    assert {record.key.decode() for record in waited} == {limited.subscription.id}
