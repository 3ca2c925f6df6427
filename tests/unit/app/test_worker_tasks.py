"""A worker whose background tasks fail: it ends, so that another takes its place."""

import asyncio

import pytest

from dispatcher.app.connections import producer_of
from dispatcher.app.worker import Worker
from dispatcher.core.catalogue import Catalogue
from dispatcher.core.errors import MisconfiguredError
from dispatcher.kafka.consumer import KafkaConsumer
from dispatcher.mongo.client import connect
from dispatcher.pipeline.role import Role
from dispatcher.settings import KafkaSettings, MongoSettings, Settings


@pytest.fixture
async def worker(monkeypatch):
    """A worker that loads its subscriptions from nowhere and joins no group."""
    nowhere = "127.0.0.1:1"
    settings = Settings(KafkaSettings(nowhere), MongoSettings(f"mongodb://{nowhere}"), (b"k" * 32,))
    connection = connect(settings.mongo)

    async def loaded():
        return None

    async def forever(*_):
        await asyncio.Event().wait()

    worker = Worker(settings, connection, producer_of(settings), Catalogue())
    # Of this worker alone: those of other folders' tests may still run in this process.
    monkeypatch.setattr(worker._feed, "ready", loaded)
    monkeypatch.setattr(worker._feed, "run", forever)
    monkeypatch.setattr(worker._kafka_watch._reader, "lag", forever)
    monkeypatch.setattr(worker._kafka_watch._reader, "members", forever)
    monkeypatch.setattr(worker, "_run_pipeline", forever)
    monkeypatch.setattr(worker._replays, "run", forever)
    loop = asyncio.get_running_loop()
    handler = loop.get_exception_handler()
    yield worker
    loop.set_exception_handler(handler)
    connection.close()


@pytest.mark.parametrize("at", ["while it loads", "later"])
async def test_a_dead_subscription_feed_ends_the_worker(worker, monkeypatch, at):
    """Without the feed the index would grow stale unnoticed: its fault is the worker's, whenever it comes."""

    async def die():
        if at == "later":
            await asyncio.sleep(0.05)
        raise ValueError("this document is no BSON")

    async def never():
        await asyncio.Event().wait()

    monkeypatch.setattr(worker._feed, "run", die)
    if at == "while it loads":
        monkeypatch.setattr(worker._feed, "ready", never)
    with pytest.raises(ValueError, match="no BSON"):
        await asyncio.wait_for(worker.run(), 20)


async def test_a_lag_that_kafka_refuses_to_tell_is_no_silence(worker, monkeypatch):
    """Rights that are refused where the lag is read end no delivery: the worker isn't ready, and asks again."""
    monkeypatch.setattr("dispatcher.app.kafka_watch.LOOK_SECONDS", 0.01)
    asked = []

    async def refuse(*_):
        asked.append(len(asked))
        raise MisconfiguredError("Kafka doesn't let this user read the group's offsets")

    monkeypatch.setattr(worker._kafka_watch._reader, "lag", refuse)
    monkeypatch.setattr(worker._kafka_watch._reader, "members", refuse)
    running = asyncio.create_task(worker.run())
    async with asyncio.timeout(20):
        while len(asked) < 6:
            await asyncio.sleep(0.01)
    assert "doesn't let" in (await worker.readiness())["kafka"]
    assert not running.done()
    worker.stop()
    await asyncio.wait_for(running, 20)


async def test_a_worker_whose_heartbeats_are_not_answered_is_not_ready(worker, monkeypatch):
    """Readiness names the roles that may have lost their partitions, once all have joined."""
    members = {"source": False, "retry.1m": False}

    def is_member(consumer):
        return members.get(
            consumer._group.removeprefix("webhook-dispatcher.").replace("webhook-dispatcher", "source"), True
        )

    assert "not joined yet: source" in (await worker.readiness())["groups"]
    monkeypatch.setattr(Role, "joined", True)
    monkeypatch.setattr(KafkaConsumer, "is_member", property(is_member))
    assert (await worker.readiness())["groups"] == "heartbeats are not answered: source, retry.1m"
    members.clear()
    assert (await worker.readiness())["groups"] is None


async def test_a_worker_that_is_told_to_end_does(worker):
    """Without a fault, `stop` ends the run in order, and the tasks that end with it are no fault."""
    running = asyncio.create_task(worker.run())
    await asyncio.sleep(0.05)
    worker.stop()
    await asyncio.wait_for(running, 20)
