"""Records that are read a second time, too early or too late: each delivery still ends once, and as it should."""

from dispatcher.core.delivery_log import DeliveryStatus, LogEntry
from dispatcher.core.model import Origin
from dispatcher.core.records import DeliveryRecord
from dispatcher.mongo.delivery_log import MongoDeliveryLog
from tests.deployment import Deployment, event, until


async def test_forked_retry_chain_is_closed(shared: Deployment, workspace: str) -> None:
    """A retry record that is produced a second time, after a crash, is closed without a request."""
    path = f"/{workspace}"
    shared.receiver.answer(path, lambda request: 500 if request.attempt < 3 else 200)
    webhook = await shared.webhook_known_to(shared.running, path, workspace)
    await shared.publish(event("fork", workspace=workspace))
    wanted = shared.delivery_id("evt_fork", webhook)
    await shared.until_logged(wanted, webhook, DeliveryStatus.DELIVERED)
    closed = shared.running.metrics.closed._value.get()
    for tier in shared.names.tiers[:2]:
        (record,) = [
            each
            for each in await shared.records(shared.names.retry(tier))
            if dict(each.headers)["dispatcher-delivery-id"].decode() == wanted
        ]
        again = shared.producer.send_and_wait(record.topic, record.value, key=record.key, headers=list(record.headers))
        await again
    await shared.until_done()
    assert shared.running.metrics.closed._value.get() == closed + 2
    assert [request.attempt for request in shared.receiver.at(path)] == [1, 2, 3]


async def test_forked_chain_of_a_failed_delivery_leaves_one_dead_letter(shared: Deployment, workspace: str) -> None:
    """Even the last rung's record, read twice, makes no second dead letter."""
    path = f"/{workspace}"
    shared.receiver.answer(path, 500)
    webhook = await shared.webhook_known_to(shared.running, path, workspace, max_attempts=2)
    await shared.publish(event("fork", workspace=workspace))
    wanted = shared.delivery_id("evt_fork", webhook)
    await shared.until_logged(wanted, webhook, DeliveryStatus.FAILED)
    (record,) = [
        each
        for each in await shared.records(shared.names.retry(shared.names.tiers[0]))
        if dict(each.headers)["dispatcher-delivery-id"].decode() == wanted
    ]
    await shared.producer.send_and_wait(record.topic, record.value, key=record.key, headers=list(record.headers))
    await shared.until_done()
    assert len(await shared.letters(wanted)) == 1
    assert len(shared.receiver.at(path)) == 2


async def test_late_log_write_does_not_undo_delivered(shared: Deployment, workspace: str) -> None:
    """The first attempt's failure, written once more after the second delivered, changes nothing."""
    path = f"/{workspace}"
    shared.receiver.answer(path, lambda request: 500 if request.attempt == 1 else 200)
    webhook = await shared.webhook_known_to(shared.running, path, workspace)
    await shared.publish(event("late", workspace=workspace))
    wanted = shared.delivery_id("evt_late", webhook)
    before = await shared.until_logged(wanted, webhook, DeliveryStatus.DELIVERED)
    first = before.attempts[0]
    late = LogEntry(
        delivery_id=wanted,
        workspace_id=workspace,
        subscription_id=webhook.subscription.id,
        event_id="evt_late",
        event_type="user.created",
        source="",
        origin=before.origin,
        run="",
        attempt=1,
        status=DeliveryStatus.RETRYING,
        at_ms=first.at_ms,
        duration_ms=first.duration_ms,
        response_code=500,
        error=first.error,
        response_body=first.response_body,
        next_attempt_at_ms=first.at_ms + 300,
    )
    await MongoDeliveryLog(shared.connection.deliveries).write([late])
    assert await shared.logged(wanted, webhook) == before


async def test_subscription_that_the_index_does_not_hold_is_looked_up(shared: Deployment, workspace: str) -> None:
    """A record of a subscription that only another worker knows yet is sent; one that nobody has is skipped."""
    webhook = await shared.webhook_known_to(shared.running, f"/{workspace}", workspace)
    shared.running.index.remove(webhook.subscription.id)
    shared.running.index._removed.clear()  # it isn't gone: this worker hasn't heard of it yet
    gone = await shared.webhook_known_to(shared.running, f"/{workspace}/gone", workspace)
    await shared.webhooks.delete(workspace, gone.subscription.id)
    wanted = {each.subscription.id: shared.delivery_id("evt_new", each) for each in (webhook, gone)}
    for subscription_id, delivery_id in wanted.items():
        origin = Origin(shared.source, 0, 0, 1_768_473_000_000)
        record = DeliveryRecord(delivery_id, subscription_id, workspace, 1, 0, 1_768_473_000_000, None, origin)
        await shared.put(shared.names.retry(shared.names.tiers[0]), record, event("new", workspace=workspace))
    await shared.until_logged(wanted[webhook.subscription.id], webhook, DeliveryStatus.DELIVERED)
    await shared.until_logged(wanted[gone.subscription.id], gone, DeliveryStatus.SKIPPED)
    assert [request.attempt for request in shared.receiver.at(f"/{workspace}")] == [2]
    assert shared.receiver.at(f"/{workspace}/gone") == []


async def test_replay_sends_what_was_delivered_once_more_and_only_once(shared: Deployment, workspace: str) -> None:
    """A replay's record goes out though the log says delivered; read a second time, it is closed."""
    path = f"/{workspace}"
    webhook = await shared.webhook_known_to(shared.running, path, workspace)
    ((partition, offset),) = await shared.publish(event("again", workspace=workspace))
    wanted = shared.delivery_id("evt_again", webhook)
    logged = await shared.until_logged(wanted, webhook, DeliveryStatus.DELIVERED)
    assert (logged.origin.partition, logged.origin.offset) == (partition, offset)
    replayed = DeliveryRecord(
        wanted, webhook.subscription.id, workspace, 0, 0, 0, None, logged.origin, replay_id="rp_0001"
    )
    for count in (2, 2):
        await shared.put(shared.names.replay, replayed, event("again", workspace=workspace))
        await until(lambda: len(shared.receiver.at(path)) >= count, "the replayed request")  # noqa: B023 - waited for
        await shared.until_done("replay")
    assert [request.attempt for request in shared.receiver.at(path)] == [1, 1]
    assert {request.delivery_id for request in shared.receiver.at(path)} == {wanted}
    after = await shared.until_logged(wanted, webhook, DeliveryStatus.DELIVERED)
    assert [step.run for step in after.attempts] == ["", "rp_0001"]
