"""However many are stored at once, a workspace never has more than it may: in memory, and on a real MongoDB."""

import asyncio
import base64
import hashlib
from ipaddress import ip_network

import pytest
from aiohttp.test_utils import TestClient, TestServer

from dispatcher.app.api import build_api
from dispatcher.app.clock import SystemClock, draw
from dispatcher.core.errors import ConflictError
from dispatcher.mongo.api_keys import MongoApiKeys
from dispatcher.mongo.webhooks import MongoWebhooks
from dispatcher.operations.api_keys import ApiKeys
from dispatcher.ports import ApiKey
from dispatcher.settings import KafkaSettings, MongoSettings, QuotaSettings, ServerSettings, Settings
from tests.fakes.stores import MemoryApiKeyStore, MemoryWebhookStore
from tests.mongo_support import open_database
from tests.unit.mongo.samples import START_MS, webhook

MOST = 5


@pytest.fixture
async def connection(services, unique_name):
    async with open_database(services.mongo_uri, unique_name("quota")) as connection:
        yield connection


@pytest.fixture(params=["memory", "mongo"])
def of_webhooks(request, connection):
    """Two stores that share what they hold, as two processes do."""
    if request.param == "memory":
        return (MemoryWebhookStore(),) * 2
    return MongoWebhooks(connection.webhooks), MongoWebhooks(connection.webhooks)


@pytest.fixture(params=["memory", "mongo"])
def of_keys(request, connection):
    if request.param == "memory":
        return (MemoryApiKeyStore(),) * 2
    return MongoApiKeys(connection.api_keys), MongoApiKeys(connection.api_keys)


def key(number: int, workspace: str = "ws_1") -> tuple[ApiKey, bytes]:
    made = ApiKey(f"key_{workspace}_{number}", workspace, None, frozenset({"read"}), START_MS + number)
    return made, hashlib.sha256(made.id.encode()).digest()


async def test_fifty_at_once_leave_as_many_webhooks_as_may_be(of_webhooks):
    """At one below the bound exactly one of fifty is stored; each is told whether it was."""
    for number in range(MOST - 1):
        assert await of_webhooks[0].insert(webhook(number), at_most=MOST)
    stored = await asyncio.gather(
        *(of_webhooks[number % 2].insert(webhook(100 + number), at_most=MOST) for number in range(50))
    )
    assert stored.count(True) == 1
    rows = (await of_webhooks[0].page("ws_1", None, 100)).rows
    assert len(rows) == MOST
    assert {row.subscription.id for row in rows} >= {
        f"wh_{100 + number:04}" for number, was_stored in enumerate(stored) if was_stored
    }


async def test_fifty_at_once_in_an_empty_workspace(of_webhooks):
    """The first ones of a workspace, which nothing was counted for yet, are bounded as well."""
    stored = await asyncio.gather(*(of_webhooks[n % 2].insert(webhook(n), at_most=MOST) for n in range(50)))
    assert stored.count(True) == MOST


async def test_a_deleted_one_gives_its_place_back(of_webhooks):
    """Nothing is counted along: what was deleted, by whatever way, leaves room."""
    for number in range(MOST):
        assert await of_webhooks[0].insert(webhook(number), at_most=MOST)
    assert not await of_webhooks[1].insert(webhook(7), at_most=MOST)
    assert await of_webhooks[1].delete("ws_1", "wh_0000")
    assert await of_webhooks[0].insert(webhook(7), at_most=MOST)


async def test_workspaces_are_counted_one_by_one(of_keys):
    """Another workspace's keys take no room, and neither do bounds that are raised."""
    for number in range(MOST):
        assert await of_keys[0].insert(*key(number), at_most=MOST)
    assert not await of_keys[1].insert(*key(7), at_most=MOST)
    assert await of_keys[1].insert(*key(7, "ws_2"), at_most=MOST)
    assert await of_keys[1].insert(*key(7), at_most=MOST + 1)
    assert await of_keys[1].insert(*key(8), at_most=None)


async def test_fifty_at_once_leave_as_many_keys_as_may_be(of_keys):
    """Keys are bounded as webhooks are."""
    stored = await asyncio.gather(*(of_keys[n % 2].insert(*key(n), at_most=MOST) for n in range(50)))
    assert stored.count(True) == MOST
    assert len(await of_keys[0].list("ws_1")) == MOST


async def test_an_id_is_given_once_within_a_bound_too(connection):
    """A second webhook of the same id is a conflict, whatever the bound."""
    store = MongoWebhooks(connection.webhooks)
    await store.insert(webhook(), at_most=MOST)
    with pytest.raises(ConflictError):
        await store.insert(webhook(), at_most=MOST)


async def test_what_is_stored_within_a_bound_is_seen_by_who_follows(connection):
    """A webhook that a transaction stores reaches the change stream as any other does."""
    store = MongoWebhooks(connection.webhooks)
    async with connection.webhooks.watch() as stream, asyncio.timeout(30):
        await store.insert(webhook(), at_most=MOST)
        change = await anext(stream)
    assert (change["operationType"], change["documentKey"]["_id"]) == ("insert", "wh_0001")


async def test_a_revoked_key_is_told_of(of_keys):
    """Who revokes a key learns what it was, once, and only in its workspace."""
    made, digest = key(1)
    await of_keys[0].insert(made, digest)
    assert await of_keys[0].delete("ws_2", made.id) is None
    assert (await of_keys[0].delete("ws_1", made.id)).id == made.id
    assert await of_keys[0].delete(None, made.id) is None
    assert await of_keys[0].by_hash(digest) is None


async def test_a_hash_that_only_looks_like_one_finds_nothing(of_keys):
    """Of a hash every byte counts."""
    made, digest = key(1)
    await of_keys[0].insert(made, digest)
    assert await of_keys[0].by_hash(digest[:-1] + bytes([digest[-1] ^ 1])) is None
    assert await of_keys[0].by_hash(base64.b64encode(digest)) is None


@pytest.fixture
async def api(services, unique_name):
    """The whole API with low quotas; gives its client, and an API key of the workspace acme."""
    name = unique_name("quota")
    settings = Settings(
        KafkaSettings(""),
        MongoSettings(services.mongo_uri, name),
        encryption_keys=(b"k" * 32,),
        server=ServerSettings(trusted_proxies=(ip_network("127.0.0.0/8"),)),
        quotas=QuotaSettings(webhooks=1, api_keys=2, requests_per_second=10, test_events_per_minute=1),
    )
    async with open_database(services.mongo_uri, name) as connection:
        keys = ApiKeys(MongoApiKeys(connection.api_keys), SystemClock(), draw)
        key = (await keys.create("acme", None, ["admin"])).plaintext
        async with TestClient(TestServer(build_api(settings, connection))) as client:
            client.session.headers["Authorization"] = f"Bearer {key}"
            yield client


async def test_webhooks_keys_and_test_events_are_bounded_as_the_settings_say(api):
    """The API that is served has the operator's quotas: one webhook, two keys, one test event a minute."""
    new = {"url": "https://127.0.0.1.example.invalid/", "events": []}
    created = await api.post("/v1/webhooks", json=new)
    assert (created.status, (await api.post("/v1/webhooks", json=new)).status) == (201, 409)
    assert [(await api.post("/v1/api-keys", json={"scopes": ["read"]})).status for _ in range(2)] == [201, 409]
    tested = f"/v1/webhooks/{(await created.json())['id']}/test"
    assert [(await api.post(tested)).status for _ in range(2)] == [200, 429]
    entries = (await (await api.get("/v1/audit-log?action=webhook.test")).json())["data"]
    assert len(entries) == 1


async def test_requests_of_a_workspace_are_bounded_as_the_settings_say(api):
    """Of two hundred at once some are refused for the workspace's sake, though one key alone may send as many."""
    answers = await asyncio.gather(*(api.get("/v1/event-types") for _ in range(200)))
    assert {answer.status for answer in answers} == {200, 429}
    refused = next(answer for answer in answers if answer.status == 429)
    assert "of this workspace" in (await refused.json())["detail"]


async def test_guesses_are_counted_by_the_client_that_a_trusted_proxy_names(api):
    """Behind the operator's proxy one client's guesses are its own."""
    wrong = {"Authorization": "Bearer whk_wrong"}
    guess = {**wrong, "X-Forwarded-For": "203.0.113.7"}
    answers = await asyncio.gather(*(api.get("/v1/webhooks", headers=guess) for _ in range(200)))
    assert {answer.status for answer in answers} == {401, 429}
    answer = await api.get("/v1/webhooks", headers={**wrong, "X-Forwarded-For": "203.0.113.8"})
    assert answer.status == 401
