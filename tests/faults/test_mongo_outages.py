"""MongoDB killed, frozen and short of history: nothing is lost, and everybody is told in time."""

import asyncio
import re
import time
from dataclasses import replace

import pytest
from aiohttp.test_utils import TestClient, TestServer

from dispatcher.app import api
from dispatcher.core.errors import UnavailableError
from dispatcher.core.matching import SubscriptionIndex
from dispatcher.mongo import (
    MongoApiKeys,
    MongoDeliveryLog,
    MongoDeliveryPages,
    MongoWebhooks,
    SubscriptionFeed,
    connect,
)
from dispatcher.mongo.client import ensure_indexes
from dispatcher.ports import DeliveryFilter
from dispatcher.settings import MongoSettings
from tests.mongo_support import SHORT_HISTORY, overwrite_history
from tests.unit.mongo.samples import WallClock, entry, until, webhook


@pytest.fixture(scope="module")
async def stack(tmp_path_factory):
    from dispatcher.local import start_local  # noqa: PLC0415 - a stack that these tests alone may break

    made = await start_local(tmp_path_factory.mktemp("outage"), kafka=False, mongo=True, mongo_args=SHORT_HISTORY)
    yield made
    await made.stop()


@pytest.fixture
async def mongod(stack):
    yield stack.mongo_process
    stack.mongo_process.resume()
    await stack.mongo_process.start()


@pytest.fixture
async def connection(stack, mongod, unique_name):
    # Short patience, so that a test of silence doesn't take a quarter of a minute.
    wanted = MongoSettings(stack.mongo_uri, unique_name("out"))
    connection = connect(wanted, silence_ms=1500)
    await ensure_indexes(connection, wanted)
    yield connection
    connection.close()


@pytest.fixture
def index():
    return SubscriptionIndex()


@pytest.fixture
async def feed(connection, index):
    feed = SubscriptionFeed(connection.webhooks, index, WallClock())
    task = asyncio.create_task(feed.run())
    async with asyncio.timeout(30):
        await feed.ready()
    yield feed
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def staleness(feed):
    return feed.staleness_seconds(time.monotonic())


async def written(log, entries, seconds=60):
    """Write until it succeeds, as the pipeline does."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return await log.write(entries)
        except UnavailableError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("is_frozen", [True, False])
async def test_an_api_process_says_that_mongodb_is_gone(connection, mongod, monkeypatch, is_frozen):
    """Its readiness and its metrics page say so, soon, whether MongoDB is silent or ended, and when it is back."""
    monkeypatch.setattr(api, "PING_SECONDS", 2.0)
    async with TestClient(TestServer(api.make_api_operations(connection))) as client:

        async def told():
            async with asyncio.timeout(20), client.get("/readyz") as ready, client.get("/metrics") as page:
                shown = re.search(r'^dispatcher_ready\{check="mongo"\} (.*)$', await page.text(), re.MULTILINE)
                return ready.status, shown[1]

        assert await told() == (200, "1.0")
        if is_frozen:
            mongod.pause()
        else:
            await mongod.stop()
        assert await told() == (503, "0.0")
        mongod.resume()
        await mongod.start()
        async with asyncio.timeout(60):
            while await told() != (200, "1.0"):
                await asyncio.sleep(0.1)


async def test_everything_says_unavailable_and_works_again(connection, mongod):
    """With mongod dead every call raises UnavailableError; the same calls succeed once it is back."""
    log, pages = MongoDeliveryLog(connection.deliveries), MongoDeliveryPages(connection.deliveries)
    webhooks, keys = MongoWebhooks(connection.webhooks), MongoApiKeys(connection.api_keys)
    calls = {
        "ping": connection.ping,
        "write": lambda: log.write([entry(), entry(2, attempt=2)]),
        "states": lambda: log.states(["del_1"]),
        "page": lambda: pages.page("ws_1", "wh_1", DeliveryFilter(), None, 5),
        "delivery": lambda: pages.get("ws_1", "wh_1", "del_1"),
        "find": lambda: webhooks.find("wh_0001"),
        "list": lambda: webhooks.page("ws_1", None, 5),
        "replace": lambda: webhooks.replace(webhook(), expected_revision=1),
        "disable": lambda: webhooks.disable(webhook().subscription, "gone", 1),
        "key": lambda: keys.by_hash(b"h"),
        "touch": lambda: keys.touch(["key_1"], 1),
    }
    await mongod.kill()
    results = await asyncio.gather(*(call() for call in calls.values()), return_exceptions=True)
    assert {name: type(result) for name, result in zip(calls, results, strict=True)} == dict.fromkeys(
        calls, UnavailableError
    )
    await mongod.start()
    await written(log, [entry()])
    for call in calls.values():
        await call()


async def test_a_write_survives_a_quick_restart(connection, mongod):
    """Connections that died with the old mongod cost the next write nothing."""
    log = MongoDeliveryLog(connection.deliveries)
    await asyncio.gather(*(log.write([entry(number)]) for number in range(8)))
    await mongod.stop()
    await mongod.start()
    assert await log.write([entry(100)]) == 0
    assert await log.states([entry(100).delivery_id])


async def test_a_frozen_mongod_is_noticed(connection, mongod):
    """A mongod that holds connections and answers nothing ends in UnavailableError, and the repeat is no double."""
    log = MongoDeliveryLog(connection.deliveries)
    await log.write([entry(1)])
    mongod.pause()
    with pytest.raises(UnavailableError):
        await log.write([entry(2), entry(2, attempt=2)])
    mongod.resume()
    assert await written(log, [entry(2), entry(2, attempt=2)]) == 0
    assert await connection.deliveries.count_documents({}) == 2


async def test_acknowledged_writes_outlive_a_kill(connection, mongod):
    """What `write` returned for is there after mongod was killed in the midst of writing."""
    log = MongoDeliveryLog(connection.deliveries)
    acknowledged = []

    async def keep_writing(start):
        number = start
        while True:
            batch = [entry(number + offset) for offset in range(50)]
            try:
                await log.write(batch)
            except UnavailableError:
                return
            acknowledged.extend(wanted.delivery_id for wanted in batch)
            number += 50

    writers = [asyncio.create_task(keep_writing(start)) for start in (0, 1_000_000)]
    await until(lambda: len(acknowledged) > 500, "something was written")
    await mongod.kill()
    await asyncio.gather(*writers)
    await mongod.start()
    await written(log, [entry(9_999_999)])
    assert set(acknowledged) <= set(await log.states(acknowledged))


async def test_the_feed_resumes_after_a_restart(connection, mongod, feed, index):
    """The stream goes on by its token after mongod was killed: changes come, and nothing is loaded again."""
    store = MongoWebhooks(connection.webhooks)
    await store.insert(webhook(1))
    await until(lambda: index.get("wh_0001") is not None, "the first change came")
    await mongod.kill()
    await mongod.start()
    await store.insert(webhook(2))
    await store.delete("ws_1", "wh_0001")
    await until(lambda: index.get("wh_0002") is not None and index.get("wh_0001") is None, "later changes came")
    assert feed.loads == 1


async def test_staleness_grows_while_mongod_is_frozen(connection, mongod, feed, index):
    """With mongod frozen the staleness grows with the time; once it goes on, it falls and changes come."""
    mongod.pause()
    frozen_at = time.monotonic()
    await until(lambda: staleness(feed) > 4, "the index is known to be stale")
    assert feed._proven_at <= frozen_at + 1
    mongod.resume()
    await until(lambda: staleness(feed) < 2, "the index is fresh again")
    store = MongoWebhooks(connection.webhooks)
    await store.insert(webhook(3))
    await until(lambda: index.get("wh_0003") is not None, "changes come again")
    assert feed.loads == 1


async def test_a_feed_started_without_mongod_waits(connection, mongod):
    """A feed that starts while mongod is dead isn't ready, and becomes so when mongod comes."""
    await MongoWebhooks(connection.webhooks).insert(webhook(1))
    await mongod.kill()
    index = SubscriptionIndex()
    feed = SubscriptionFeed(connection.webhooks, index, WallClock())
    task = asyncio.create_task(feed.run())
    ready = asyncio.create_task(feed.ready())
    await asyncio.wait({ready}, timeout=1)
    assert not ready.done()
    await mongod.start()
    async with asyncio.timeout(30):
        await ready
    assert feed.size == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_history_that_was_overwritten_is_loaded_again(connection, mongod, index):
    """A feed whose token fell out of the oplog loads everything again and drops what is gone."""
    store = MongoWebhooks(connection.webhooks)
    await store.insert(webhook(1))
    await store.insert(webhook(2))
    feed = SubscriptionFeed(connection.webhooks, index, WallClock())
    task = asyncio.create_task(feed.run())
    await until(lambda: feed.size == 2 and feed._token is not None, "all is loaded")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    token = feed._token
    await store.delete("ws_1", "wh_0001")
    changed = webhook(2)
    await store.replace(replace(changed, subscription=replace(changed.subscription, revision=2)), expected_revision=1)
    await overwrite_history(connection, token)
    task = asyncio.create_task(feed.run())
    await until(lambda: feed.loads == 2 and staleness(feed) < 2, "all was loaded again")
    assert (index.get("wh_0001"), index.get("wh_0002").revision) == (None, 2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
