"""Webhooks that fail for too long, with a real worker, Kafka and MongoDB; a day is a second."""

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema_rs import Draft202012Validator

from dispatcher.app import worker as worker_module
from dispatcher.mongo.audit import MongoAudit
from dispatcher.pipeline import endpoint_health
from dispatcher.ports import AuditFilter
from tests.deployment import WORKSPACE, Deployment, deploy, event, eventually, make_settings
from tests.receiver import Answer
from tests.services import Services

RECORDS = Path(__file__).parents[2] / "schemas" / "records"
FINISHED = Draft202012Validator(json.loads((RECORDS / "outcome.json").read_text()))
OPERATIONAL = Draft202012Validator(json.loads((RECORDS / "operational-event.json").read_text()))


@pytest.fixture
async def deployment(
    services: Services, unique_name: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Deployment]:
    """A deployment of its own, that writes outcomes and looks often."""
    monkeypatch.setattr(worker_module, "DAY_MS", 1_000)
    monkeypatch.setattr(endpoint_health, "FLUSH_SECONDS", 0.1)
    monkeypatch.setattr(endpoint_health, "LOOK_SECONDS", 0.1)
    name = unique_name("ends")
    settings = make_settings(services.kafka_bootstrap, services.mongo_uri, name, outcomes=True)
    async with deploy(replace(settings, auto_disable_days=5)) as deployment:
        yield deployment


async def outcomes(deployment: Deployment, webhook_id: str) -> list[dict[str, Any]]:
    """Read what the outcomes topic has of a webhook, every record checked against its schema."""
    found = []
    for record in await deployment.records(deployment.names.outcomes):
        value = json.loads(record.value)
        schema = FINISHED if value["type"] == "delivery.finished" else OPERATIONAL
        schema.validate(value)
        assert record.key.decode() == value["webhook_id"]
        if value["webhook_id"] == webhook_id:
            found.append(value)
    return found


async def test_a_webhook_that_only_fails_is_told_of_and_disabled(deployment: Deployment) -> None:
    """At half of the time and at its end an event is produced, once; re-enabled, it begins with a clean slate."""
    deployment.receiver.answer("/broken", Answer(500))
    async with deployment.worker() as worker, deployment.api() as call:
        webhook = await deployment.webhook_known_to(worker, "/broken", max_attempts=20)
        healthy = await deployment.webhook_known_to(worker, "/healthy")
        own = webhook.subscription.id
        await deployment.publish(event("failing"))
        await eventually(
            lambda: call("GET", f"/webhooks/{own}"), lambda found: found["status"] == "disabled", "it is disabled"
        )
        assert (await call("GET", f"/webhooks/{own}"))["disabled_reason"] == "failing"
        told = await eventually(
            lambda: outcomes(deployment, own),
            lambda found: any(each["type"] == "delivery.finished" for each in found),
            "its delivery is skipped",
        )
        skipped = next(each for each in told if each["type"] == "delivery.finished")
        assert (skipped["status"], skipped["reason"]) == ("skipped", "disabled")
        assert skipped["attempts"] == len(deployment.receiver.at("/broken"))
        failing, disabled = [each for each in told if each["type"] != "delivery.finished"]
        assert (failing["type"], disabled["type"]) == ("webhook.failing", "webhook.disabled")
        assert (disabled["reason"], disabled["failing_since"]) == ("failing", failing["failing_since"])
        assert failing["at"] < disabled["at"]
        assert disabled["at"] >= failing["disabled_from"]

        changes = await MongoAudit(deployment.connection.audit).page(
            WORKSPACE, AuditFilter(action="webhook.disable", target_id=own), None, 10
        )
        assert [entry.changes["disabled_reason"] for entry in changes.rows] == [(None, "failing")]

        deployment.receiver.answer("/broken", Answer(200))
        await call("PATCH", f"/webhooks/{own}", json={"status": "active"})
        await eventually(
            lambda: call("GET", f"/webhooks/{own}"), lambda found: found["status"] == "active", "it is active"
        )
        await deployment.publish(event("again", workspace=WORKSPACE))
        for each in (webhook, healthy):
            await deployment.until_logged(deployment.delivery_id("evt_again", each), each, "delivered")
        assert worker.metrics.webhooks_disabled.counts == {"failing": 1, "gone": 0}
    finished = [each for each in await outcomes(deployment, own) if each["type"] == "delivery.finished"]
    assert [each["event_id"] for each in finished if each["status"] == "delivered"] == ["evt_again"]
    finished = await outcomes(deployment, healthy.subscription.id)
    assert [(each["event_id"], each["status"]) for each in finished] == [
        ("evt_failing", "delivered"),
        ("evt_again", "delivered"),
    ]
    assert await deployment.connection.endpoint_health.count_documents({}) == 0


async def test_a_webhook_whose_endpoint_is_gone_is_told_of(deployment: Deployment) -> None:
    """A 410 brings one event for the webhook, and the outcome of its delivery."""
    deployment.receiver.answer("/gone", Answer(410))
    async with deployment.worker() as worker:
        webhook = await deployment.webhook_known_to(worker, "/gone")
        own = webhook.subscription.id
        await deployment.publish(event("last"))
        told = await eventually(lambda: outcomes(deployment, own), lambda found: len(found) == 2, "both are told")
    by_type = {each["type"]: each for each in told}
    assert by_type["webhook.disabled"]["reason"] == "gone"
    assert (by_type["delivery.finished"]["status"], by_type["delivery.finished"]["reason"]) == ("failed", "gone")
    assert by_type["delivery.finished"]["response_code"] == 410
    assert await deployment.connection.endpoint_health.count_documents({"trouble": "gone"}) == 0
