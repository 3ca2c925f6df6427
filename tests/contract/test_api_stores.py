"""The API behaves the same over the stores in memory and over MongoDB."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from dispatcher.core.delivery_log import DeliveryStatus, LogEntry
from dispatcher.core.model import Origin
from dispatcher.mongo.api_keys import MongoApiKeys
from dispatcher.mongo.audit import MongoAudit
from dispatcher.mongo.delivery_log import MongoDeliveryLog
from dispatcher.mongo.delivery_pages import MongoDeliveryPages
from dispatcher.mongo.failed_deliveries import MongoFailedDeliveries
from dispatcher.mongo.idempotency import MongoIdempotency
from dispatcher.mongo.jobs import MongoReplays
from dispatcher.mongo.webhooks import MongoWebhooks
from tests.fakes.api_stack import START_MS, URL, ApiStack, api_stack, problems
from tests.fakes.stores import MemoryApiKeyStore, MemoryAuditStore, MemoryIdempotencyStore, MemoryWebhookStore
from tests.mongo_support import open_database


@pytest.fixture
async def connection(services, unique_name):
    async with open_database(services.mongo_uri, unique_name("api")) as connection:
        yield connection


def mongo_stores(connection):
    return {
        "webhook_store": MongoWebhooks(connection.webhooks),
        "api_key_store": MongoApiKeys(connection.api_keys),
        "log": MongoDeliveryPages(connection.deliveries),
        "failed": MongoFailedDeliveries(connection.deliveries),
        "replay_store": MongoReplays(connection.replays),
        "audit_store": MongoAudit(connection.audit),
        "idempotency_store": MongoIdempotency(connection.idempotency),
    }


def memory_stores():
    return {
        "webhook_store": MemoryWebhookStore(),
        "api_key_store": MemoryApiKeyStore(),
        "audit_store": MemoryAuditStore(),
        "idempotency_store": MemoryIdempotencyStore(),
    }


@pytest.fixture
async def over_mongo(connection) -> AsyncIterator[ApiStack]:
    async with api_stack(**mongo_stores(connection)) as stack:
        yield stack


@pytest.fixture(params=["memory", "mongo"])
def stores(request, connection):
    return memory_stores() if request.param == "memory" else mongo_stores(connection)


@pytest.fixture
async def api(stores) -> AsyncIterator[ApiStack]:
    async with api_stack(**stores) as stack:
        yield stack


@pytest.fixture
async def processes(stores) -> AsyncIterator[tuple[ApiStack, ApiStack]]:
    """Two APIs over the same stores."""
    async with api_stack(**stores) as first, api_stack(**stores, seed="second") as second:
        yield first, second


async def test_a_webhook_lives_through_the_api(api):
    """What is created is shown, changed, shown again, and deleted, every field as it was sent."""
    sent = {
        "name": "Grüße",
        "description": "two\nlines",
        "method": "PUT",
        "events": ["user.*", "*"],
        "api_key": "k",
        "api_key_header": "Authorization",
        "payload_format": "context",
        "max_attempts": 20,
        "headers": {"X-B": "2", "X-A.b$": ""},
        "timeout_seconds": 3,
        "rate_limit": 0.5,
    }
    created = await api.create(**sent)
    path = f"/webhooks/{created['id']}"
    shown = await (await api.call("GET", path)).json()
    del sent["api_key"]
    assert {name: shown[name] for name in sent} == sent
    assert shown["api_key_set"]
    assert shown == {name: value for name, value in created.items() if name not in ("secret", "warnings")}
    for number in range(3):
        changed = await (await api.call("PATCH", path, {"name": f"n{number}"})).json()
        assert changed["name"] == f"n{number}"
    del changed["warnings"], changed["backfill"]
    assert await (await api.call("GET", path)).json() == changed
    assert (await api.call("GET", path, key="other")).status == 404
    assert (await api.call("DELETE", path, key="other")).status == 404
    assert (await api.call("DELETE", path)).status == 204
    assert (await api.call("PATCH", path, {"name": "n"})).status == 404


async def test_pages_follow_each_other(api):
    """Webhooks made within one millisecond and over several are each listed once, newest first."""
    ids = []
    for number in range(5):
        api.clock.ms += 1000 * (number % 2)
        ids.append((await api.create())["id"])
    seen, cursor = [], ""
    while cursor is not None:
        page = await (await api.call("GET", f"/webhooks?limit=2{cursor and '&cursor=' + cursor}")).json()
        seen += page["data"]
        cursor = page["next_cursor"]
    assert sorted(row["id"] for row in seen) == sorted(ids)
    assert [row["created_at"] for row in seen] == sorted((row["created_at"] for row in seen), reverse=True)


@pytest.mark.parametrize("cursor", ["AAAA", "!!!", "%00", "a" * 513])
async def test_a_foreign_cursor_is_named(api, cursor):
    """A cursor that no page gave is a wrong field, never a fault."""
    response = await api.call("GET", f"/webhooks?cursor={cursor}")
    assert response.status == 422
    assert list(await problems(response)) == ["cursor"]


@pytest.mark.parametrize("cursor", ["a" * 512, "_" * 100, "AAAAAAAAAAAAAAAA"])
async def test_a_made_up_cursor_breaks_nothing(api, cursor):
    """A cursor that only looks like one is a wrong field or a place in the own listing, in every listing."""
    await api.create()
    for path in ("/webhooks", "/dead-letters", "/api-keys", "/audit-log"):
        response = await api.call("GET", f"{path}?cursor={cursor}", key="admin")
        assert response.status in (200, 422)
        assert response.status == 200 or list(await problems(response)) == ["cursor"]


@pytest.mark.parametrize("webhook_id", ["wh_nope", "$where", "a%00b", "%F0%9F%98%80", "x" * 2000, "{}"])
async def test_any_id_in_a_path_is_looked_up_safely(api, webhook_id):
    """Whatever stands where an id should be, nothing is found and nothing breaks."""
    for path in (f"/webhooks/{webhook_id}", f"/webhooks/{webhook_id}/deliveries/{webhook_id}"):
        assert (await api.call("GET", path)).status == 404


async def test_a_revoked_key_is_refused(api):
    """A key that was revoked gets 401."""
    assert (await api.call("GET", "/webhooks", key="read")).status == 200
    (key,) = [key for key in await api.api_keys.list("acme") if key.name == "read"]
    await api.api_keys.revoke("acme", key.id)
    assert (await api.call("GET", "/webhooks", key="read")).status == 401


async def test_use_of_a_key_is_written_down(api):
    """The last use of a key that was used is noted, and of no other."""
    await api.call("GET", "/webhooks", key="read")
    await api.api_keys.flush_last_used()
    used = {key.name: key.last_used_at_ms for key in await api.api_keys.list("acme") if key.last_used_at_ms}
    assert used == {"read": START_MS}


async def test_logged_deliveries_are_listed_and_shown(over_mongo, connection):
    """What the pipeline logs is what the API lists, filters and shows with its attempts."""
    created = await over_mongo.create()
    writer = MongoDeliveryLog(connection.deliveries)
    entries = [
        LogEntry(
            delivery_id="del_1",
            workspace_id="acme",
            subscription_id=created["id"],
            event_id="evt_1",
            event_type="user.created",
            source="",
            origin=Origin("events", 0, 1, START_MS),
            run="",
            attempt=attempt,
            status=status,
            at_ms=START_MS + attempt * 1000,
            duration_ms=7.0,
            response_code=code,
            error=error,
            response_body=body,
            next_attempt_at_ms=next_at_ms,
        )
        for attempt, status, code, error, body, next_at_ms in (
            (1, DeliveryStatus.RETRYING, 0, "connection refused", b"", START_MS + 60_000),
            (2, DeliveryStatus.DELIVERED, 200, "", b"OK \xff", None),
        )
    ]
    for entry in entries:
        assert await writer.write([entry]) == 0
    path = f"/webhooks/{created['id']}/deliveries"
    page = await (await over_mongo.call("GET", f"{path}?status=delivered&type=user.created")).json()
    (row,) = page["data"]
    assert (row["id"], row["status"], row["response_code"], row["attempts_made"]) == ("del_1", "delivered", 200, 2)
    assert (await (await over_mongo.call("GET", f"{path}?status=failed")).json())["data"] == []
    detail = await (await over_mongo.call("GET", f"{path}/del_1")).json()
    assert [made["error"] for made in detail["attempts"]] == ["connection refused", None]
    assert detail["attempts"][1]["response_body"] == "OK \ufffd"
    assert (await over_mongo.call("GET", f"{path}/del_1", key="other")).status == 404


async def follow(api, path, between, key="all"):
    """Read a listing to its end, two rows a page; gives the ids. `between` is called after each page with its rows."""
    seen, cursor = [], None
    mark = "&" if "?" in path else "?"
    while True:
        page = await (
            await api.call("GET", f"{path}{mark}limit=2{f'&cursor={cursor}' if cursor else ''}", key=key)
        ).json()
        seen += [row["id"] for row in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            return seen
        await between(page["data"])


async def test_pages_stay_right_while_webhooks_come_and_go(api):
    """Whoever pages while rows are added, and the rows of the page just read are deleted, meets each other row once."""
    ids = []
    for number in range(7):
        api.clock.ms += 1000 * (number % 2)
        ids.append((await api.create())["id"])

    async def between(rows):
        await api.create()
        api.clock.ms += 1000
        await api.create()
        for row in rows:
            assert (await api.call("DELETE", f"/webhooks/{row['id']}")).status == 204

    assert sorted(await follow(api, "/webhooks", between)) == sorted(ids)


async def test_pages_of_keys_and_changes_stay_right_while_rows_are_added(api):
    """New keys, and the changes that their making is, stand before what is being read and move nothing."""
    for _ in range(4):
        await api.call("POST", "/api-keys", {"scopes": ["read"]}, key="admin")
    keys = (await (await api.call("GET", "/api-keys?limit=200", key="admin")).json())["data"]
    changes = (await (await api.call("GET", "/audit-log?limit=200", key="admin")).json())["data"]

    async def between(_rows):
        api.clock.ms += 1
        assert (await api.call("POST", "/api-keys", {"scopes": ["read"]}, key="admin")).status == 201

    assert await follow(api, "/api-keys", between, "admin") == [key["id"] for key in keys]
    more = (await (await api.call("GET", "/audit-log?limit=200", key="admin")).json())["data"]
    assert more[-len(changes) :] == changes
    assert await follow(api, "/audit-log", between, "admin") == [change["id"] for change in more]


async def test_changes_are_kept_as_they_were(api):
    """What the audit log tells comes back as it was written, names of headers with dots and dollars among them."""
    created = await api.create(headers={"X-A.b$": "1", "X-C": "2"}, events=["user.*"])
    path = f"/webhooks/{created['id']}"
    await api.call("PATCH", path, {"headers": {"X-C": None}, "max_attempts": 3})
    response = await api.call("GET", f"/audit-log?target={created['id']}&action=webhook.update", key="admin")
    (entry,) = (await response.json())["data"]
    assert entry["at"] == "2026-01-15T10:30:00Z"
    assert entry["actor"]["name"] == "all"
    assert sorted(entry["changes"], key=lambda change: change["field"]) == [
        {"field": "headers", "before": {"X-A.b$": "1", "X-C": "2"}, "after": {"X-A.b$": "1"}},
        {"field": "max_attempts", "before": 6, "after": 3},
    ]
    other = await (await api.call("GET", f"/audit-log?target={created['id']}", key="other")).json()
    assert other["data"] == []


async def test_one_request_sent_to_two_processes_is_done_once(processes):
    """Of the same POST sent many times at once, one is done, and all get its answer, the secret in it."""
    sent = {"url": URL, "events": ["user.created"]}
    headers = {"Idempotency-Key": "same"}
    answers = await asyncio.gather(
        *(api.call("POST", "/webhooks", sent, headers=headers) for api in processes for _ in range(5))
    )
    assert {answer.status for answer in answers} == {201}
    assert len({await answer.read() for answer in answers}) == 1
    assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1
    for api in processes:
        assert len((await (await api.call("GET", "/webhooks")).json())["data"]) == 1
        response = await api.call("POST", "/webhooks", {**sent, "name": "n"}, headers=headers)
        assert response.status == 422
        assert set(await problems(response)) == {"Idempotency-Key"}


async def test_a_key_revoked_at_one_process_is_refused_by_the_other(processes):
    """What the other process remembers of a key lasts a second and not longer."""
    here, there = processes
    key = here.keys["read"]
    assert (await there.call("GET", "/webhooks", key=key)).status == 200
    own = (await here.api_keys.authenticate(key)).id
    assert (await here.call("DELETE", f"/api-keys/{own}", key="admin")).status == 204
    assert (await here.call("GET", "/webhooks", key=key)).status == 401
    there.clock.ms += 1000
    assert (await there.call("GET", "/webhooks", key=key)).status == 401


async def test_of_two_changes_of_one_version_one_stands(processes):
    """Two processes that get a change of the same version at the same time make one of them, and refuse the other."""
    path = f"/webhooks/{(await processes[0].create())['id']}"
    changes = [
        api.call("PATCH", path, {"name": f"n{number}"}, headers={"If-Match": '"1"'})
        for number, api in enumerate(processes)
    ]
    answers = await asyncio.gather(*changes)
    assert sorted(answer.status for answer in answers) == [200, 412]
    (made,) = [await answer.json() for answer in answers if answer.status == 200]
    assert (await (await processes[0].call("GET", path)).json())["name"] == made["name"]
