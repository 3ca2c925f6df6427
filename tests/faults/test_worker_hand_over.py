"""An endpoint that hangs while a worker is told to end: its delivery goes on with the next worker."""

import time

import pytest

from dispatcher.core.delivery_log import DeliveryStatus
from tests.deployment import Deployment, event, until
from tests.receiver import HANG, Answer


@pytest.mark.timeout(90)
async def test_hung_deliveries_are_handed_over_with_their_attempt_number(deployment: Deployment) -> None:
    """First and second attempts hang at SIGTERM: exit 0 within 25 s; the next worker makes the same attempts anew."""
    receiver = deployment.receiver
    receiver.answer("/first", HANG)
    receiver.answer("/second", lambda request: 500 if request.attempt == 1 else HANG)
    first = await deployment.webhook("/first", timeout_seconds=30)
    second = await deployment.webhook("/second", timeout_seconds=30)
    healthy = await deployment.webhook("/healthy")
    wanted = {path: deployment.delivery_id("evt_hung", webhook) for path, webhook in
              (("/first", first), ("/second", second))}  # fmt: skip
    async with deployment.process() as worker:
        await deployment.publish(event("hung"))
        await until(lambda: len(receiver.at("/second")) == 2 and receiver.at("/first"), "both hang")
        worker.terminate()
        began = time.monotonic()
        assert await worker.ended(25) == 0
        assert time.monotonic() - began < 25
        handed = {each.delivery_id: each for each in await deployment.carried(deployment.names.overflow)}
        assert {each: handed[each].attempt for each in handed} == {wanted["/first"]: 0, wanted["/second"]: 1}
        assert {each.reason for each in handed.values()} == {"handed_over"}
        assert await deployment.lag("source", "retry.300ms") == 0

        for path in wanted:
            receiver.answer(path, 200)
        await worker.start()
        await deployment.until_logged(wanted["/first"], first, DeliveryStatus.DELIVERED)
        logged = await deployment.until_logged(wanted["/second"], second, DeliveryStatus.DELIVERED)
        await deployment.until_done()
    assert [request.attempt for request in receiver.at("/first")] == [1, 1]
    assert [request.attempt for request in receiver.at("/second")] == [1, 2, 2]
    assert logged.attempts_made == 2
    assert len(receiver.at("/healthy")) == 1
    assert await deployment.logged(deployment.delivery_id("evt_hung", healthy), healthy)


@pytest.mark.timeout(90)
async def test_answer_that_comes_while_the_worker_drains_counts(deployment: Deployment) -> None:
    """An endpoint that answers 3 s after SIGTERM is waited for: logged as delivered, handed to nobody."""
    receiver = deployment.receiver
    webhook = await deployment.webhook("/slow")
    receiver.answer("/slow", Answer(200, 3.0))
    async with deployment.process() as worker:
        await deployment.publish(event("slow"))
        await until(lambda: receiver.at("/slow"), "the request is under way")
        worker.terminate()
        assert await worker.ended(25) == 0
    assert len(receiver.at("/slow")) == 1
    logged = await deployment.logged(deployment.delivery_id("evt_slow", webhook), webhook)
    assert logged is not None
    assert logged.status == DeliveryStatus.DELIVERED
    assert await deployment.records(deployment.names.overflow) == []
    assert await deployment.lag() == 0
