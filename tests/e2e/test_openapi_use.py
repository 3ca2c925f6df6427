"""The API from its document alone: a client that knows nothing else drives all of it."""

import contextlib
import uuid
from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp.test_utils import TestClient, TestServer

from dispatcher.app.api import build_api
from dispatcher.app.clock import SystemClock, draw
from dispatcher.mongo.api_keys import MongoApiKeys
from dispatcher.operations.api_keys import ApiKeys
from tests.deployment import Deployment, event, eventually, until
from tests.e2e.openapi_client import OpenApiClient
from tests.receiver import Answer

Open = Callable[..., contextlib.AbstractAsyncContextManager[OpenApiClient]]


@pytest.fixture
def open_client(shared: Deployment, workspace: str) -> Open:
    """Open a client of the API with a key of the test's workspace, or with another one."""

    @contextlib.asynccontextmanager
    async def open_it(key: str | None = None) -> AsyncIterator[OpenApiClient]:
        keys = ApiKeys(MongoApiKeys(shared.connection.api_keys), SystemClock(), draw)
        if key is None:
            key = (await keys.create(workspace, "first", ("read", "write", "admin"), None)).plaintext
        async with TestClient(TestServer(build_api(shared.settings, shared.connection))) as http:
            async with http.get("/v1/openapi.json") as response:
                document = await response.json()
            yield OpenApiClient(http, document, key)

    return open_it


async def test_a_client_of_the_document_can_do_everything(
    shared: Deployment, workspace: str, open_client: Open
) -> None:
    """Every operation is called by its name, and each request and answer is as the document has it."""
    async with open_client() as api:
        await webhooks(api, shared, workspace)
        await deliveries(api, shared, workspace)
        await catalogue(api)
        await administration(api)
        assert api.called == api.operations.keys()


async def webhooks(api: OpenApiClient, shared: Deployment, workspace: str) -> None:
    """Create, list, show, change, test, rotate and delete."""
    key = str(uuid.uuid4())
    wanted = {"url": shared.receiver.url(f"/{workspace}"), "events": ["user.created"], "name": "one"}
    created = await api.call("createWebhook", body=wanted, **{"Idempotency-Key": key})
    again = await api.call("createWebhook", body=wanted, **{"Idempotency-Key": key})
    assert again.body == created.body
    assert again.headers["Idempotency-Replayed"] == "true"
    for name in ("two", "three"):
        await api.call("createWebhook", body={**wanted, "name": name})
    page = await api.call("listWebhooks", limit=2)
    rest = await api.follow(page, "next", limit=2)
    assert [row["name"] for row in page.body["data"] + rest.body["data"]] == ["three", "two", "one"]
    assert rest.body["next_cursor"] is None

    shown = await api.follow(created, "get")
    changed = await api.follow(shown, "update", body={"max_attempts": 3})
    assert changed.body["max_attempts"] == 3
    stale = await api.follow(shown, "update", body={"max_attempts": 4})
    assert stale.status == 412
    wrong = await api.call("getWebhook", id="wh_nothing")
    assert wrong.status == 404

    tested = await api.follow(created, "test", body={"type": "user.created"})
    assert tested.body["status"] == "delivered"
    rotated = await api.follow(created, "rotateSecret", body={"overlap_seconds": 60})
    assert rotated.body["secret"] != created.body["secret"]

    first = await api.follow(page, "first")
    assert first.body["name"] == "three"
    assert (await api.follow(first, "delete")).status == 204
    assert (await api.call("getWebhook", id=first.body["id"])).status == 404


async def deliveries(api: OpenApiClient, shared: Deployment, workspace: str) -> None:
    """List, show, send again; a failed one is a dead letter; a replay is made, shown and cancelled."""
    path = f"/{workspace}-deliveries"
    shared.receiver.answer(path, Answer(500))
    webhook = await api.call(
        "createWebhook", body={"url": shared.receiver.url(path), "events": ["user.deleted"], "max_attempts": 1}
    )
    webhook_id = webhook.body["id"]
    await until(lambda: shared.running.index.get(webhook_id), "the worker knows the webhook")
    await shared.publish(event(f"{workspace}-gone", "user.deleted", workspace))

    async def listed() -> list[str]:
        page = await api.follow(webhook, "deliveries", type="user.deleted")
        return [row["status"] for row in page.body["data"]]

    await eventually(listed, lambda found: found == ["failed"], "the delivery has failed")
    page = await api.follow(webhook, "deliveries", status="failed", limit=1)
    shown = await api.follow(page, "first")
    assert [attempt["response_code"] for attempt in shown.body["attempts"]] == [500]
    letters = await api.call("listDeadLetters", subscription=webhook_id)
    letter = await api.follow(letters, "first")
    assert letter.body == {**shown.body, "webhook_id": webhook_id, "handled_at": None}
    assert (await api.follow(letter, "delivery")).body == shown.body
    counted = await api.call("countDeadLetters", subscription=webhook_id, response_code="5xx")
    assert (counted.body["total"], counted.body["by_reason"]) == (1, [{"value": "attempts_exhausted", "count": 1}])
    replayed = await api.call("replayDeadLetters", body={"subscription": webhook_id, "reason": "gone", "rate": 5})
    assert (await api.follow(replayed, "get")).body["dead_letters"]["reason"] == "gone"
    purged = await api.call("purgeDeadLetters", body={"subscription": webhook_id, "response_code": "none"})
    assert purged.body == {"handled": 0, "more": False}

    shared.receiver.answer(path, Answer(200))
    again = await api.follow(page, "redeliverFirst")
    assert again.status == 202
    await eventually(listed, lambda found: found == ["delivered"], "the delivery was sent again")
    assert (await api.follow(again, "delivery")).body["replay_id"] == again.body["replay_id"]

    now = {"since": "2026-01-01T00:00:00Z", "until": "2999-01-01T00:00:00Z"}
    replay = await api.follow(webhook, "replay", body=now)
    assert replay.status == 202
    assert (await api.follow(replay, "get")).body["id"] == replay.body["id"]
    assert (await api.follow(replay, "cancel")).status in {200, 409}
    replays = await api.call("listReplays", limit=1)
    assert (await api.follow(replays, "first")).body["id"] == replay.body["id"]


async def catalogue(api: OpenApiClient) -> None:
    """List the event types, page by page, and show one."""
    page = await api.call("listEventTypes", limit=3)
    names = [row["type"] for row in page.body["data"]]
    while page.body["next_cursor"] is not None:
        page = await api.follow(page, "next", limit=3)
        names += [row["type"] for row in page.body["data"]]
    assert names == sorted(set(names))
    shown = await api.call("getEventType", type=names[0])
    assert shown.body["type"] == names[0]


async def administration(api: OpenApiClient) -> None:
    """Make, list and revoke API keys; the audit log tells of all that was changed."""
    created = await api.call("createApiKey", body={"name": "ci", "scopes": ["read"]})
    keys = await api.call("listApiKeys", limit=1)
    assert keys.body["data"][0]["id"] == created.body["id"]
    assert (await api.follow(created, "revoke")).status == 204
    assert (await api.follow(created, "revoke")).status == 404
    log = await api.call("listAuditLog", target=created.body["id"])
    assert [row["action"] for row in log.body["data"]] == ["api_key.revoke", "api_key.create"]


async def test_refusals_are_as_the_document_has_them(open_client: Open) -> None:
    """A key that is unknown gets a 401 of the declared shape, whatever it calls."""
    async with open_client("whk_unknown") as api:
        refused = await api.call("listWebhooks")
        assert refused.status == 401
        assert refused.headers["WWW-Authenticate"].startswith("Bearer")
        refused = await api.call("createApiKey", body={"name": "ci", "scopes": ["read"]})
        assert refused.status == 401
