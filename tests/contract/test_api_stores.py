"""The API behaves the same over the stores in memory and over MongoDB."""

from collections.abc import AsyncIterator

import pytest

from dispatcher.core.delivery_log import DeliveryStatus, LogEntry
from dispatcher.core.model import Origin
from dispatcher.mongo.api_keys import MongoApiKeys
from dispatcher.mongo.client import connect, ensure_indexes
from dispatcher.mongo.delivery_log import MongoDeliveryLog
from dispatcher.mongo.delivery_pages import MongoDeliveryPages
from dispatcher.mongo.webhooks import MongoWebhooks
from dispatcher.settings import MongoSettings
from tests.fakes.api_stack import START_MS, ApiStack, api_stack, problems


@pytest.fixture
async def connection(services, unique_name):
    settings = MongoSettings(uri=services.mongo_uri, database=unique_name("api"))
    connection = connect(settings)
    try:
        await ensure_indexes(connection, settings)
        yield connection
        await connection.client.drop_database(settings.database)
    finally:
        connection.close()


@pytest.fixture
async def over_mongo(connection) -> AsyncIterator[ApiStack]:
    async with api_stack(
        webhook_store=MongoWebhooks(connection.webhooks),
        api_key_store=MongoApiKeys(connection.api_keys),
        log=MongoDeliveryPages(connection.deliveries),
    ) as stack:
        yield stack


@pytest.fixture
async def over_memory() -> AsyncIterator[ApiStack]:
    async with api_stack() as stack:
        yield stack


@pytest.fixture(params=["memory", "mongo"])
def api(request, over_memory, over_mongo) -> ApiStack:
    return over_memory if request.param == "memory" else over_mongo


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
    changed.pop("warnings")
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


@pytest.mark.parametrize("cursor", ["AAAA", "!!!", "%00", "a" * 512, "_" * 100])
async def test_a_foreign_cursor_is_named(api, cursor):
    """A cursor that no page gave is a wrong field, never a fault."""
    response = await api.call("GET", f"/webhooks?cursor={cursor}")
    assert response.status == 422
    assert list(await problems(response)) == ["cursor"]


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
