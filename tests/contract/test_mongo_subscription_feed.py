"""The subscription feed on a real MongoDB: the index is what is stored, moments after it was stored."""

import asyncio
import contextlib
import math
import time
from dataclasses import replace

import pytest
from bson.objectid import ObjectId

from dispatcher.core.matching import SubscriptionIndex
from dispatcher.mongo import MongoWebhooks, SubscriptionFeed, connect
from dispatcher.settings import MongoSettings
from tests.unit.mongo.samples import WallClock, until, webhook


@pytest.fixture
async def connection(services, unique_name):
    wanted = MongoSettings(services.mongo_uri, unique_name("feed"))
    connection = connect(wanted)
    yield connection
    await connection.client.drop_database(wanted.database)
    connection.close()


@pytest.fixture
def store(connection):
    return MongoWebhooks(connection.webhooks)


@pytest.fixture
def index():
    return SubscriptionIndex()


@pytest.fixture
def told():
    return []


@pytest.fixture
def feed(connection, index, told):
    return SubscriptionFeed(connection.webhooks, index, WallClock(), told.append)


@contextlib.asynccontextmanager
async def running(feed):
    task = asyncio.create_task(feed.run())
    try:
        async with asyncio.timeout(30):
            await feed.ready()
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def revised(old, revision, **changes):
    return replace(old, subscription=replace(old.subscription, revision=revision, **changes))


def matched(index, event_type="user.created", workspace="ws_1"):
    return sorted(found.id for found in index.match(workspace, event_type))


async def test_it_is_ready_when_everything_is_loaded(connection, feed, index, store, told):
    """All stored webhooks are in the index when `ready` returns, and nobody is told of each."""
    documents = [{"_id": f"wh_{number}", **_plain(number)} for number in range(2500)]
    await connection.webhooks.insert_many(documents)
    assert feed.staleness_seconds(time.monotonic()) == math.inf
    async with running(feed):
        assert feed.size == 2500
        assert len(matched(index)) == 2500
        assert feed.staleness_seconds(time.monotonic()) < 30
        assert told == []


def _plain(number):
    return {
        "workspace_id": "ws_1",
        "url": f"https://h{number}.example.com/",
        "events": ["user.created"],
        "secrets": [],
        "status": "active",
        "revision": 1,
    }


async def test_changes_reach_the_index(feed, index, store, told, capsys):
    """A webhook that is created, changed, switched off and deleted is so in the index; the delay is printed."""
    async with running(feed):
        delays = []

        async def seen(condition, what):
            began = time.perf_counter()
            await until(condition, what)
            delays.append((time.perf_counter() - began) * 1000)

        for number in range(10):
            await store.insert(webhook(number))
            wh = f"wh_{number:04}"
            await seen(lambda wh=wh: wh in matched(index), "it is matched")
            await store.replace(revised(webhook(number), 2, events=("post.*",)), expected_revision=1)
            await seen(lambda wh=wh: wh in matched(index, "post.deleted"), "its new events are matched")
            assert wh not in matched(index)
            await store.disable(index.get(wh), "gone", 5)
            await seen(lambda wh=wh: index.get(wh).status == "disabled", "it is disabled")
            assert matched(index, "post.deleted") == []
            await store.delete("ws_1", wh)
            await seen(lambda wh=wh: index.get(wh) is None, "it is gone")
        assert told == [f"wh_{number:04}" for number in range(10) for _ in range(4)]
    delays.sort()
    with capsys.disabled():
        print(f"\nchange stream delay ms: median {delays[len(delays) // 2]:.1f}, max {delays[-1]:.1f}")  # noqa: T201 - a measurement, not asserted


async def test_changes_during_the_load_are_not_lost(feed, index, store):
    """Webhooks created, changed and deleted while the load runs end in the index as they are stored."""
    for number in range(50):
        await store.insert(webhook(number))
    writers = asyncio.gather(
        *(store.insert(webhook(number)) for number in range(50, 150)),
        *(store.delete("ws_1", f"wh_{number:04}") for number in range(25)),
        *(store.replace(revised(webhook(n), 2, method="PUT"), expected_revision=1) for n in range(25, 50)),
    )
    async with running(feed):
        await writers
        wanted = {f"wh_{number:04}" for number in range(25, 150)}
        await until(lambda: {found.id for found in index} == wanted, "the index is what is stored")
        await until(lambda: all(index.get(f"wh_{n:04}").method == "PUT" for n in range(25, 50)), "changes came")


async def test_changes_between_load_and_stream_are_not_lost(feed, index, store):
    """What changes after the load and before the stream is open is in the index all the same."""
    for number in (1, 2):
        await store.insert(webhook(number))
    load = feed._load

    async def load_and_change():
        await load()
        await store.insert(webhook(3))
        await store.delete("ws_1", "wh_0001")
        await store.replace(revised(webhook(2), 2, method="PUT"), expected_revision=1)

    feed._load = load_and_change
    async with running(feed):
        await until(lambda: matched(index) == ["wh_0002", "wh_0003"], "what came and went is seen")
        await until(lambda: index.get("wh_0002").method == "PUT", "what changed is seen")


async def test_an_idle_stream_counts_as_fresh(feed, store):
    """With no change at all, the staleness keeps falling back towards zero."""
    async with running(feed):
        for _ in range(2):
            since = time.monotonic()
            await until(lambda since=since: feed._proven_at > since, "an empty answer proves the stream current")
            assert feed.staleness_seconds(feed._proven_at + 3) == 3


async def test_broken_documents_are_skipped_and_counted(connection, feed, index, store):
    """Documents that can't be read stop neither load nor stream; they receive nothing until they are mended."""
    await connection.webhooks.insert_many([{"_id": ObjectId(), "x": 1}, {"_id": {"a": 1}}, {"_id": "wh_x"}])
    await store.insert(webhook(1))
    await store.insert(webhook(2))
    async with running(feed):
        assert (feed.size, feed.broken) == (2, 3)
        await connection.webhooks.update_one({"_id": "wh_0001"}, {"$set": {"secrets": "no"}})
        await until(lambda: feed.broken == 4, "the broken change is counted")
        assert matched(index) == ["wh_0002"]
        await connection.webhooks.update_one({"_id": "wh_0001"}, {"$set": {"secrets": []}})
        await until(lambda: feed.broken == 3, "the mended one is no longer counted")
        assert matched(index) == ["wh_0001", "wh_0002"]
        await connection.webhooks.delete_one({"_id": "wh_x"})
        await until(lambda: feed.broken == 2, "the deleted one is no longer counted")


async def test_text_that_is_not_utf8_breaks_its_own_document_only(connection, feed, index, store):
    """A document with bytes that are no UTF-8, beside others in one batch, doesn't stop the load."""
    poison = b"\x02_id\x00\x05\x00\x00\x00wh_x\x00\x02url\x00\x02\x00\x00\x00\xff\x00"
    raw = (len(poison) + 5).to_bytes(4, "little") + poison + b"\x00"
    from bson.raw_bson import RawBSONDocument  # noqa: PLC0415 - for this test alone

    await connection.webhooks.insert_one(RawBSONDocument(raw))
    await store.insert(webhook(1))
    async with running(feed):
        assert (feed.size, feed.broken) == (1, 1)


@pytest.mark.parametrize("token", [{"_data": "nonsense"}, {}])
async def test_a_token_without_history_loads_again(connection, feed, index, store, told, token):
    """Where the server can't resume at the token, all is loaded anew, what is gone goes, and the feed goes on."""
    for number in (1, 2, 3):
        await store.insert(webhook(number))
    async with running(feed):
        assert feed.loads == 1
    await store.delete("ws_1", "wh_0001")
    await store.replace(revised(webhook(2), 2, method="PUT"), expected_revision=1)
    feed._token = token
    async with running(feed):
        await until(lambda: feed.loads == 2 and index.get("wh_0001") is None, "everything was loaded again")
        assert index.get("wh_0002").method == "PUT"
        # The stream begins with the last change before the load: it may come, and be told, a second time.
        assert set(told) == {"wh_0001", "wh_0002"}
        await store.insert(webhook(4))
        await until(lambda: "wh_0004" in matched(index), "the stream goes on")


async def test_a_stopped_feed_resumes_without_loading(feed, index, store):
    """What changed while the feed stood still comes by its token, with no second load."""
    await store.insert(webhook(1))
    async with running(feed):
        await until(lambda: feed._token is not None, "there is a token")
    await store.insert(webhook(2))
    await store.delete("ws_1", "wh_0001")
    async with running(feed):
        await until(lambda: matched(index) == ["wh_0002"], "the changes came")
    assert feed.loads == 1


async def test_a_dropped_collection_empties_the_index(connection, feed, index, store):
    """A collection that is dropped and made anew is loaded anew."""
    await store.insert(webhook(1))
    async with running(feed):
        await connection.webhooks.drop()
        await until(lambda: feed.size == 0, "the index is empty")
        await store.insert(webhook(2))
        await until(lambda: matched(index) == ["wh_0002"], "the new collection is followed")
        assert feed.loads >= 2


async def test_a_restored_older_revision_is_taken_by_a_load(connection, feed, index, store):
    """After the database was restored from a backup, a load takes the older revisions as they are."""
    await store.insert(webhook(1, revision=5, method="PUT"))
    async with running(feed):
        pass
    await connection.webhooks.update_one({}, {"$set": {"revision": 3, "method": "POST"}})
    feed._token = {"_data": "nonsense"}
    async with running(feed):
        await until(lambda: index.get("wh_0001").revision == 3, "the stored revision is taken")
        assert index.get("wh_0001").method == "POST"
