"""Webhooks and API keys on a real MongoDB."""

from dataclasses import replace

import pytest

from dispatcher.core.errors import ConflictError, InvalidInputError, SealError
from dispatcher.core.model import SealedSecret, Status
from dispatcher.core.sealing import Keyring, SealPurpose, binding
from dispatcher.mongo import MongoApiKeys, MongoWebhooks
from dispatcher.ports import ApiKey
from tests.mongo_support import open_database
from tests.unit.mongo.samples import START_MS, webhook


@pytest.fixture
async def connection(services, unique_name):
    async with open_database(services.mongo_uri, unique_name("wh")) as connection:
        yield connection


@pytest.fixture
def store(connection):
    return MongoWebhooks(connection.webhooks)


@pytest.fixture
def keys(connection):
    return MongoApiKeys(connection.api_keys)


def revised(old, revision, **changes):
    return replace(old, subscription=replace(old.subscription, revision=revision, **changes))


async def test_a_webhook_is_kept_and_deleted(store):
    """A stored webhook is found by its owner and by id, and is gone after its deletion."""
    await store.insert(webhook())
    found = await store.get("ws_1", "wh_0001")
    assert (found.url, found.name, found.created_at_ms) == (webhook().url, "Name", START_MS + 1)
    assert (await store.find("wh_0001")).secrets == webhook().subscription.secrets
    assert await store.delete("ws_1", "wh_0001")
    assert not await store.delete("ws_1", "wh_0001")
    assert await store.get("ws_1", "wh_0001") is None
    assert await store.find("wh_0001") is None


async def test_an_id_is_given_once(store):
    """A second webhook with the same id is a conflict, and the first stays."""
    await store.insert(webhook())
    with pytest.raises(ConflictError):
        await store.insert(webhook(url="https://other.example.com/"))
    assert (await store.find("wh_0001")).url == webhook().subscription.url


async def test_workspaces_never_mix(store):
    """Another workspace can neither see, list, replace nor delete a webhook."""
    await store.insert(webhook())
    assert await store.get("ws_2", "wh_0001") is None
    assert (await store.page("ws_2", None, 10)).rows == []
    assert not await store.replace(revised(webhook(), 2, workspace_id="ws_2"), expected_revision=1)
    assert not await store.delete("ws_2", "wh_0001")
    assert (await store.get("ws_1", "wh_0001")).subscription.revision == 1


async def test_of_two_replacements_one_wins(store):
    """The second of two changes made from the same revision is told so, and nothing of it is stored."""
    await store.insert(webhook())
    assert await store.replace(revised(webhook(), 2, method="PUT"), expected_revision=1)
    assert not await store.replace(revised(webhook(), 2, method="PATCH"), expected_revision=1)
    assert (await store.find("wh_0001")).method == "PUT"
    await store.delete("ws_1", "wh_0001")
    assert not await store.replace(revised(webhook(), 3), expected_revision=2)
    assert await store.find("wh_0001") is None


async def test_unknown_fields_outlive_a_replacement(store, connection):
    """A field that a later version stored is still there after this version changed the webhook."""
    await store.insert(webhook())
    await connection.webhooks.update_one({}, {"$set": {"colour": "red"}})
    assert await store.replace(revised(webhook(), 2), expected_revision=1)
    assert (await connection.webhooks.find_one())["colour"] == "red"


async def test_pages_stay_right_while_webhooks_are_added(store):
    """Walking through pages meets each webhook of the start once, newest first, those of one time included."""
    for number in range(12):
        await store.insert(webhook(number, created_at_ms=START_MS + number // 3))
    seen, cursor, more = [], None, 100
    while True:
        page = await store.page("ws_1", cursor, 5)
        seen += [int(row.subscription.id[3:]) for row in page.rows]
        await store.insert(webhook(more, created_at_ms=START_MS + 50))
        more, cursor = more + 1, page.next_cursor
        if cursor is None:
            break
    assert seen == list(range(11, -1, -1))
    with pytest.raises(InvalidInputError, match="cursor"):
        await store.page("ws_1", "garbage", 5)


async def test_a_broken_document_hides_only_itself(store, connection):
    """A webhook that can't be read is left out of pages; a look-up says that it is there, without a URL to send to."""
    for number in range(4):
        await store.insert(webhook(number))
    await connection.webhooks.update_one({"_id": "wh_0002"}, {"$set": {"secrets": 5}})
    first = await store.page("ws_1", None, 2)
    second = await store.page("ws_1", first.next_cursor, 2)
    assert [row.subscription.id for row in (*first.rows, *second.rows)] == ["wh_0003", "wh_0001", "wh_0000"]
    found = await store.find("wh_0002")
    assert (found.workspace_id, found.url, found.status) == ("ws_1", None, "active")
    assert not await store.disable(webhook(2).subscription, "gone", START_MS)


async def test_disabling_says_why_and_counts_as_a_change(store):
    """Disabling sets status, reason and times, and a new revision, so that older copies lose."""
    await store.insert(webhook())
    assert await store.disable(webhook().subscription, "gone", START_MS + 77)
    found = await store.get("ws_1", "wh_0001")
    assert found.subscription.status == Status.DISABLED
    assert (found.disabled_reason, found.disabled_at_ms, found.updated_at_ms) == ("gone", START_MS + 77, START_MS + 77)
    assert found.subscription.revision == 2
    assert not await store.disable(found.subscription, "again", START_MS + 78)
    assert not await store.replace(revised(webhook(), 2), expected_revision=1)


@pytest.mark.parametrize("change", [{"url": "https://new.example.com/"}, {"status": "inactive"}])
async def test_a_changed_webhook_is_not_disabled(store, change):
    """An endpoint that said 410 doesn't disable a webhook whose URL or status was changed since."""
    await store.insert(webhook(**change))
    assert not await store.disable(webhook().subscription, "gone", START_MS)
    assert (await store.get("ws_1", "wh_0001")).disabled_reason is None


async def test_a_webhook_that_was_changed_to_and_fro_is_not_disabled(store):
    """One that its owner deactivated and activated since begins anew, though URL and status are what they were."""
    await store.insert(webhook(revision=3, endpoint_revision=3))
    assert not await store.disable(webhook(revision=1).subscription, "failing", START_MS)
    assert await store.disable(webhook(revision=4, endpoint_revision=3).subscription, "failing", START_MS)


async def test_a_webhook_that_an_earlier_version_stored_is_disabled(store, connection):
    """A document without the newer field is served and disabled like any other."""
    await store.insert(webhook())
    await connection.webhooks.update_one({"_id": "wh_0001"}, {"$unset": {"endpoint_revision": 1}})
    found = await store.find("wh_0001")
    assert found.endpoint_revision == 1
    assert await store.disable(found, "gone", START_MS)


async def test_a_deleted_webhook_is_not_disabled(store):
    """Disabling what is gone brings nothing back."""
    assert not await store.disable(webhook().subscription, "gone", START_MS)
    assert await store.find("wh_0001") is None


async def test_a_copied_or_changed_secret_does_not_open(store, connection):
    """A sealed secret that was copied to another webhook, or changed, in MongoDB is refused when it is opened."""
    keyring = Keyring([b"k" * 32])
    here, there = (binding("ws_1", f"wh_000{number}", SealPurpose.SIGNING_SECRET) for number in (1, 2))
    sealed = keyring.seal(b"whsec_x", nonce=b"n" * 12, aad=here)
    await store.insert(webhook(1, secrets=(SealedSecret(sealed),)))
    await store.insert(webhook(2))
    taken = await connection.webhooks.find_one({"_id": "wh_0001"})
    await connection.webhooks.update_one({"_id": "wh_0002"}, {"$set": {"secrets": taken["secrets"]}})
    assert keyring.open((await store.find("wh_0001")).secrets[0].sealed, aad=here) == b"whsec_x"
    with pytest.raises(SealError):
        keyring.open((await store.find("wh_0002")).secrets[0].sealed, aad=there)
    tampered = sealed[:-1] + bytes([sealed[-1] ^ 1])
    await connection.webhooks.update_one({"_id": "wh_0001"}, {"$set": {"secrets.0.sealed": tampered}})
    with pytest.raises(SealError):
        keyring.open((await store.find("wh_0001")).secrets[0].sealed, aad=here)


def key(number, **changes):
    plain = ApiKey(f"key_{number}", "ws_1", "CI", frozenset({"read", "write"}), START_MS + number)
    return replace(plain, **changes)


async def test_keys_are_found_by_hash(keys):
    """A key is found by the hash of its secret, every field as it was stored, and by no other hash."""
    stored = key(1, expires_at_ms=START_MS + 9, last_used_at_ms=START_MS + 3)
    await keys.insert(stored, b"h" * 32)
    assert await keys.by_hash(b"h" * 32) == stored
    assert await keys.by_hash(b"x" * 32) is None


@pytest.mark.parametrize("second", [(key(1), b"x" * 32), (key(2), b"h" * 32)])
async def test_neither_id_nor_hash_is_given_twice(keys, second):
    """A second key with the id or the hash of another is a conflict."""
    await keys.insert(key(1), b"h" * 32)
    with pytest.raises(ConflictError):
        await keys.insert(*second)


async def test_keys_are_listed_and_revoked_by_workspace(keys):
    """A workspace sees and revokes its own keys only, newest first; the operator all of them."""
    for number, workspace in ((1, "ws_1"), (2, "ws_2"), (3, "ws_1")):
        await keys.insert(key(number, workspace_id=workspace), bytes([number]) * 32)
    assert [found.id for found in await keys.list("ws_1")] == ["key_3", "key_1"]
    assert [found.id for found in await keys.list(None)] == ["key_3", "key_2", "key_1"]
    assert not await keys.delete("ws_1", "key_2")
    assert await keys.delete("ws_2", "key_2")
    assert await keys.delete(None, "key_1")
    assert await keys.by_hash(b"\x01" * 32) is None


async def test_use_is_noted_and_never_goes_back(keys):
    """The last use of many keys is noted in one write, and an older time that comes late changes nothing."""
    await keys.insert(key(1), b"1" * 32)
    await keys.insert(key(2), b"2" * 32)
    await keys.touch({"key_1", "key_2", "key_gone"}, START_MS + 50)
    await keys.touch(["key_1"], START_MS + 40)
    await keys.touch([], START_MS + 60)
    assert [found.last_used_at_ms for found in await keys.list(None)] == [START_MS + 50] * 2
