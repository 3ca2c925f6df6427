"""Which subscriptions an event reaches, and what one that fails costs the others."""

from dispatcher.core.delivery_log import DeliveryStatus
from dispatcher.core.model import Origin
from dispatcher.core.records import DeliveryRecord
from tests.deployment import Deployment, event, event_ids, until


async def test_only_the_failing_one_of_three_is_retried(shared: Deployment, workspace: str) -> None:
    """Of three matching webhooks one fails: exactly one retry record, and the other two get nothing twice."""
    good = [f"/{workspace}/a", f"/{workspace}/b"]
    failing = f"/{workspace}/failing"
    shared.receiver.answer(failing, lambda request: 500 if request.attempt == 1 else 204)
    for path, events in zip(good, (["user.created"], ["user.*"]), strict=True):
        await shared.webhook_known_to(shared.running, path, workspace, events=events)
    webhook = await shared.webhook_known_to(shared.running, failing, workspace)
    other = await shared.webhook_known_to(shared.running, f"/{workspace}/other", workspace, events=["user.deleted"])

    await shared.publish(event("fan", workspace=workspace))

    await shared.until_logged(shared.delivery_id("evt_fan", webhook), webhook, DeliveryStatus.DELIVERED)
    assert [request.attempt for request in shared.receiver.at(failing)] == [1, 2]
    assert [len(shared.receiver.at(path)) for path in good] == [1, 1]
    assert shared.receiver.at(f"/{workspace}/other") == []
    assert await shared.logged(shared.delivery_id("evt_fan", other), other) is None
    retries = [
        record
        for tier in shared.names.tiers
        for record in await shared.carried(shared.names.retry(tier))
        if record.workspace_id == workspace
    ]
    assert [record.subscription_id for record in retries] == [webhook.subscription.id]
    await shared.until_done()


async def test_nothing_crosses_workspaces(shared: Deployment, workspace: str) -> None:
    """Each of three workspaces gets its own events, of the same types and ids, and no other's."""
    workspaces = [f"{workspace}-{letter}" for letter in "abc"]
    for name in workspaces:
        await shared.webhook_known_to(shared.running, f"/{name}", name)
    ids = [f"{number}-{name}" for number in range(20) for name in workspaces]
    events = [event(each, workspace=each.partition("-")[2]) for each in ids]
    await shared.publish(*events, *(event("same", workspace=name) for name in workspaces))
    await until(lambda: all(len(shared.receiver.at(f"/{name}")) >= 21 for name in workspaces), "all arrived")
    await shared.until_done("source")
    for name in workspaces:
        expected = {f"evt_{each}" for each in ids if each.endswith(name)} | {"evt_same"}
        assert set(event_ids(shared.receiver.at(f"/{name}"))) == expected
    same = [request.delivery_id for name in workspaces for request in shared.receiver.at(f"/{name}")]
    assert len(set(same)) == 63


async def test_record_that_names_anothers_subscription_is_not_sent(shared: Deployment, workspace: str) -> None:
    """An own record whose event is of another workspace than its subscription ends as workspace_mismatch, unsent."""
    webhook = await shared.webhook_known_to(shared.running, f"/{workspace}", workspace)
    alien = DeliveryRecord(
        f"del_{workspace}", webhook.subscription.id, "elsewhere", 1, 0, 0, None, Origin(shared.source, 0, 0, 1)
    )
    await shared.put(shared.names.overflow, alien, event("alien", workspace="elsewhere"))

    letter = await shared.until_dead_letter(alien.delivery_id)
    assert letter.reason == "workspace_mismatch"
    assert shared.receiver.at(f"/{workspace}") == []
    await shared.until_done("overflow")
