"""Endpoints that never answer, while the group changes and while Kafka wants to be polled."""

import pytest

from dispatcher.core.delivery_log import DeliveryStatus
from tests.deployment import Deployment, event, event_ids, eventually, until
from tests.receiver import HANG

EVENTS = 40


@pytest.mark.timeout(150)
async def test_second_worker_joins_while_an_endpoint_hangs(deployment: Deployment) -> None:
    """A rebalance doesn't wait for a hung endpoint: both workers go on, and the healthy webhook gets all, once."""
    receiver = deployment.receiver
    receiver.answer("/hung", HANG)
    healthy = await deployment.webhook("/healthy")
    # Longer than a worker that gives partitions back waits for answers, so that attempts are handed over.
    hung = await deployment.webhook("/hung", timeout_seconds=15)
    async with deployment.process() as first:
        await deployment.publish(*(event(number) for number in range(EVENTS)))
        await until(lambda: len(receiver.at("/hung")) >= EVENTS, "all attempts hang")
        async with deployment.process() as second:
            for number in range(EVENTS, 2 * EVENTS):
                await deployment.publish(event(number))
            await until(lambda: len(receiver.at("/healthy")) >= 2 * EVENTS, "the healthy webhook gets all", 60)
            await eventually(
                lambda: second.metric("dispatcher_events_total"), lambda taken: taken > 0, "the second takes part", 60
            )
            receiver.answer("/hung", 200)
            for number in range(2 * EVENTS):
                wanted = deployment.delivery_id(f"evt_{number}", hung)
                await deployment.until_logged(wanted, hung, DeliveryStatus.DELIVERED, 60)
            await deployment.until_done()
            assert first.runs
            assert second.runs
    assert sorted(event_ids(receiver.at("/healthy"))) == sorted(f"evt_{number}" for number in range(2 * EVENTS))
    for number in range(2 * EVENTS):
        assert await deployment.logged(deployment.delivery_id(f"evt_{number}", healthy), healthy)


@pytest.mark.slow
@pytest.mark.timeout(150)
async def test_all_endpoints_hang_for_longer_than_a_poll_may_take(deployment: Deployment) -> None:
    """With every slot hanging beyond max_poll_interval the worker stays a member: no step is sent twice."""
    receiver = deployment.receiver
    receiver.answer("/hung", HANG)
    webhook = await deployment.webhook("/hung", timeout_seconds=12)
    async with deployment.process(KAFKA_MAX_POLL_INTERVAL_MS="6000", MAX_IN_FLIGHT="8") as worker:
        await deployment.publish(*(event(number) for number in range(EVENTS)))
        await until(lambda: len(receiver.at("/hung")) >= 8, "every slot hangs")
        rebalances = await worker.metric("dispatcher_rebalances_total")
        first = {request.delivery_id for request in receiver.at("/hung")}
        await eventually(
            lambda: worker.metric("dispatcher_retries_scheduled_total"),
            lambda retried: retried >= 1,
            "an attempt timed out",
        )
        receiver.answer("/hung", 200)
        for number in range(EVENTS):
            wanted = deployment.delivery_id(f"evt_{number}", webhook)
            await deployment.until_logged(wanted, webhook, DeliveryStatus.DELIVERED, 60)
        await deployment.until_done()
        assert await worker.metric("dispatcher_rebalances_total") == rebalances
        assert worker.runs
    steps = [(request.delivery_id, request.attempt) for request in receiver.at("/hung")]
    assert len(steps) == len(set(steps))
    assert first <= {delivery for delivery, attempt in steps if attempt == 1}
