"""An endpoint that fails: every rung of the ladder, then the dead letter."""

from dispatcher.core.delivery_log import DeliveryStatus
from tests.deployment import Deployment, event


async def test_failing_endpoint_is_tried_six_times_and_then_dead_lettered(shared: Deployment, workspace: str) -> None:
    """Attempts 1 to 6 have one id, none comes before it is due; then one dead letter, and log and API say failed."""
    path = f"/{workspace}"
    shared.receiver.answer(path, 500)
    webhook = await shared.webhook_known_to(shared.running, path, workspace)
    wanted = shared.delivery_id("evt_ladder", webhook)
    ((partition, offset),) = await shared.publish(event("ladder", workspace=workspace), key=b"k")

    logged = await shared.until_logged(wanted, webhook, DeliveryStatus.FAILED)

    received = shared.receiver.at(path)
    assert [request.attempt for request in received] == [1, 2, 3, 4, 5, 6]
    assert {request.delivery_id for request in received} == {wanted}
    assert len({request.body for request in received}) == 1
    for tier, before, after in zip(shared.names.tiers, received, received[1:], strict=False):
        assert before.answered is not None
        # The worker's clock reads whole milliseconds.
        assert after.at - before.answered[1] >= tier.delay_ms / 1000 - 0.002

    letter = await shared.until_dead_letter(wanted)
    assert (letter.reason, letter.attempt, letter.http_status) == ("attempts_exhausted", 6, 500)
    origin = letter.origin
    assert (origin.topic, origin.partition, origin.offset, origin.key) == (shared.source, partition, offset, b"k")
    assert letter.first_attempt_ms <= received[1].at * 1000
    for tier in shared.names.tiers:
        rung = [each for each in await shared.carried(shared.names.retry(tier)) if each.delivery_id == wanted]
        assert len(rung) == 1

    assert (logged.reason, logged.attempts_made, logged.response_code) == ("attempts_exhausted", 6, 500)
    assert [step.status for step in logged.attempts] == [DeliveryStatus.RETRYING] * 5 + [DeliveryStatus.FAILED]
    async with shared.api(workspace) as call:
        (row,) = (await call("GET", f"/webhooks/{webhook.subscription.id}/deliveries"))["data"]
        assert (row["id"], row["event_id"], row["status"]) == (wanted, "evt_ladder", "failed")
        shown = await call("GET", f"/webhooks/{webhook.subscription.id}/deliveries/{wanted}")
        assert [attempt["response_code"] for attempt in shown["attempts"]] == [500] * 6
    await shared.until_done()
