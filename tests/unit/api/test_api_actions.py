"""The calls that act on a webhook, and those about replay jobs: shapes, statuses, scopes."""

import dataclasses
from collections.abc import AsyncIterator

import pytest

from dispatcher.core.delivery_log import merge, shown
from dispatcher.core.exchange import SendFailure
from dispatcher.core.model import Origin
from dispatcher.core.sealing import Keyring
from dispatcher.core.topics import TopicNames
from dispatcher.operations.catalogue import load_catalogue
from dispatcher.operations.redelivery import Redeliveries
from dispatcher.operations.replays import Replays
from dispatcher.operations.test_events import EventTests
from tests.fakes.api_stack import ApiStack, ManualClock, api_stack, draws, problems
from tests.fakes.event_records import ENVELOPE, raw
from tests.fakes.http import MemorySender, answer, failure
from tests.fakes.kafka import MemoryBroker
from tests.fakes.log import MemoryDeliveryLog
from tests.fakes.replays import MemoryRecords, MemoryReplays
from tests.fakes.stores import MemoryDeliveryLogReader, MemoryWebhookStore
from tests.unit.mongo.samples import entry

SPAN = {"since": "2026-01-14T00:00:00Z", "until": "2026-01-15T00:00:00.5Z"}


@dataclasses.dataclass
class Around:
    """The API and what stands around it."""

    api: ApiStack
    sender: MemorySender
    reader: MemoryDeliveryLogReader
    records: MemoryRecords


@pytest.fixture
async def around() -> AsyncIterator[Around]:
    store, reader, log, clock = MemoryWebhookStore(), MemoryDeliveryLogReader(), MemoryDeliveryLog(), ManualClock()
    sender, records, keyring = MemorySender(), MemoryRecords(MemoryBroker()), Keyring([b"k" * 32])
    names = TopicNames("webhooks", ())
    async with api_stack(
        webhook_store=store,
        log=reader,
        tests=EventTests(store, load_catalogue(None), sender, log, keyring, clock, draws(), "Test/1.0"),
        redeliveries=Redeliveries(store, reader, log, records, records, names, clock, draws()),
        replays=Replays(MemoryReplays(clock), store, clock, draws()),
    ) as api:
        yield Around(api, sender, reader, records)


async def test_test_event_answers_in_its_shape(around):
    """Delivered: exactly the four members; failed: error as well; the body may be left out."""
    path = f"/webhooks/{(await around.api.create())['id']}/test"
    response = await around.api.call("POST", path)
    body = await response.json()
    assert response.status == 200
    assert body == {"id": body["id"], "status": "delivered", "response_code": 200, "response_body": "OK"}
    around.sender.answers = lambda _: answer(503, body=b"\xff")
    body = await (await around.api.call("POST", path, {"type": "user.deleted"})).json()
    assert body == {
        "id": body["id"],
        "status": "failed",
        "response_code": 503,
        "response_body": "\ufffd",
        "error": "the endpoint answered 503",
    }
    around.sender.answers = lambda _: failure(SendFailure.DNS)
    body = await (await around.api.call("POST", path, {})).json()
    assert (body["response_code"], body["response_body"], body["error"]) == (None, "", "dns: nobody answered")


async def test_rotation_shows_the_secret_once_and_is_noted(around):
    """The answer has the new secret and when the old one ends; no later answer has it; the audit names the caller."""
    created = await around.api.create()
    path = f"/webhooks/{created['id']}"
    response = await around.api.call("POST", f"{path}/rotate-secret", {"overlap_seconds": 60})
    body = await response.json()
    assert (response.status, response.headers["Cache-Control"]) == (200, "no-store")
    assert body == {
        "id": created["id"],
        "secret": body["secret"],
        "overlap_ends_at": "2026-01-15T10:31:00Z",
        "warnings": [],
    }
    assert body["secret"] not in (created["secret"], None)
    assert body["secret"] not in await (await around.api.call("GET", path)).text()
    assert (await (await around.api.call("POST", f"{path}/rotate-secret")).json())["overlap_ends_at"] is None
    odd = await (await around.api.call("POST", f"{path}/rotate-secret", {"secret": "whsec_not-base-64!"})).json()
    assert [warning["field"] for warning in odd["warnings"]] == ["secret"]
    noted = await (await around.api.call("GET", "/audit-log", key="admin")).text()
    assert noted.count("webhook.rotate_secret") == 3
    assert body["secret"] not in noted


async def test_redelivery_answers_202_410_and_503(around):
    """Started, with the place to look; gone, with the reason; Kafka out of reach, with when to come again."""
    webhook_id = (await around.api.create())["id"]
    record = around.records.broker.append("events", raw(ENVELOPE))
    origin = Origin("events", 0, record.offset, record.timestamp)
    logged = entry(1, workspace_id="acme", subscription_id=webhook_id, event_id="evt_1", origin=origin)
    around.reader.deliveries = [shown(merge(None, logged))]
    place = f"/webhooks/{webhook_id}/deliveries/{logged.delivery_id}"
    response = await around.api.call("POST", f"{place}/redeliver")
    body = await response.json()
    assert (response.status, response.headers["Location"]) == (202, f"/v1{place}")
    assert body == {"id": logged.delivery_id, "status": "pending", "replay_id": body["replay_id"]}
    around.records.drop("events", 0)
    response = await around.api.call("POST", f"{place}/redeliver")
    assert (response.status, response.content_type) == (410, "application/problem+json")
    assert "topic events has dropped partition 0, offset 0" in (await response.json())["detail"]
    around.records.down = True
    response = await around.api.call("POST", f"{place}/redeliver")
    assert (response.status, response.headers["Retry-After"]) == (503, "5")


async def test_replay_job_is_made_shown_listed_and_cancelled(around):
    """202 with the job's place, the same job there and in the list, and a second cancel conflicts."""
    webhook_id = (await around.api.create())["id"]
    response = await around.api.call("POST", f"/webhooks/{webhook_id}/replay", {**SPAN, "status": "failed"})
    job = await response.json()
    assert (response.status, response.headers["Location"]) == (202, f"/v1/replays/{job['id']}")
    assert job == {
        "id": job["id"],
        "webhook_id": webhook_id,
        "status": "pending",
        "source": "deliveries",
        "since": "2026-01-14T00:00:00Z",
        "until": "2026-01-15T00:00:00.500Z",
        "delivery_status": "failed",
        "dead_letters": None,
        "rate": None,
        "counts": {"selected": None, "produced": 0, "gone": 0, "skipped": 0},
        "created_at": "2026-01-15T10:30:00Z",
        "updated_at": "2026-01-15T10:30:00Z",
        "finished_at": None,
        "error": None,
    }
    assert await (await around.api.call("GET", f"/replays/{job['id']}")).json() == job
    assert await (await around.api.call("GET", "/replays")).json() == {"data": [job], "next_cursor": None}
    cancelled = await (await around.api.call("POST", f"/replays/{job['id']}/cancel")).json()
    assert (cancelled["status"], cancelled["finished_at"]) == ("cancelled", "2026-01-15T10:30:00Z")
    assert (await around.api.call("POST", f"/replays/{job['id']}/cancel")).status == 409
    wrong = await around.api.call("POST", f"/webhooks/{webhook_id}/replay", {"since": 1, "source": "topics"})
    assert set(await problems(wrong)) == {"since", "until", "source"}


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("POST", "/webhooks/{id}/test", "write"),
        ("POST", "/webhooks/{id}/rotate-secret", "write"),
        ("POST", "/webhooks/{id}/deliveries/del_1/redeliver", "write"),
        ("POST", "/webhooks/{id}/replay", "write"),
        ("POST", "/replays/rpl_1/cancel", "write"),
        ("GET", "/replays", "read"),
        ("GET", "/replays/rpl_1", "read"),
    ],
)
async def test_scopes_hold(around, method, path, scope):
    """A key without the scope is refused before anything is looked up."""
    wrong = "read" if scope == "write" else "write"
    path = path.replace("{id}", (await around.api.create())["id"])
    assert (await around.api.call(method, path, key=wrong)).status == 403
    assert around.sender.sent == []
