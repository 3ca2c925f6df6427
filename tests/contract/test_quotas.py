"""However many are stored at once, a workspace never has more than it may: in memory, and on a real MongoDB."""

import asyncio
import base64
import hashlib

import pytest

from dispatcher.core.errors import ConflictError
from dispatcher.mongo.api_keys import MongoApiKeys
from dispatcher.mongo.webhooks import MongoWebhooks
from dispatcher.ports import ApiKey
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
