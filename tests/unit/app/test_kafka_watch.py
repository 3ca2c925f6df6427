"""What a worker asks Kafka beside its work, with a reader that answers as the test says."""

import asyncio
from types import SimpleNamespace

import pytest

from dispatcher.app import kafka_watch
from dispatcher.app.kafka_watch import KafkaWatch
from dispatcher.core.errors import MisconfiguredError, UnavailableError
from dispatcher.settings import KafkaSettings, MongoSettings, Settings

SETTINGS = Settings(KafkaSettings("127.0.0.1:1"), MongoSettings("mongodb://127.0.0.1:1"), (b"k" * 32,))


class Told:
    """What Kafka tells, and what became of it; stands for reader, lanes and metrics."""

    def __init__(self):
        self.lag_read = 0
        self.members_of = 2
        self.fault = None
        self.shares = []
        self.lag = None

    async def read_lag(self, group, topics):
        """Tell a lag of 7 of each partition of a topic, or fail."""
        self.lag_read += 1
        if self.fault:
            raise self.fault
        assert group == "webhook-dispatcher"
        return {(topic, number): 7 for topic in topics for number in range(3)}

    async def count_members(self, _group):
        """Tell how many there are, or fail."""
        if self.fault:
            raise self.fault
        return self.members_of


@pytest.fixture
def told(monkeypatch):
    made = Told()
    monkeypatch.setattr(kafka_watch, "LOOK_SECONDS", 0.001)
    return made


@pytest.fixture
async def watch(told, monkeypatch):
    role = SimpleNamespace(name="source", assigned_to=[("events", 0), ("events", 2)])
    pipeline = SimpleNamespace(roles=[role], lanes=SimpleNamespace(share_rates=told.shares.append))
    made = KafkaWatch(SETTINGS, pipeline, SimpleNamespace(set_lag=lambda lag: setattr(told, "lag", lag)))
    # Of this one alone: a worker of other tests may run in this process.
    monkeypatch.setattr(made._reader, "lag", told.read_lag, raising=False)
    monkeypatch.setattr(made._reader, "members", told.count_members, raising=False)
    running = asyncio.create_task(made.run())
    yield made
    running.cancel()


async def until(condition):
    """Wait until something is so."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


async def test_it_tells_the_lag_of_its_own_partitions_and_shares_the_rates(told, watch):
    """Partitions of others are not in the gauge; a member that joins halves the share at the next look."""
    await until(lambda: told.lag and told.shares)
    assert told.lag == {("events", 0): 7, ("events", 2): 7}
    assert told.shares[0] == 1 / 2
    told.members_of = 4
    await until(lambda: told.shares[-1] == 1 / 4)
    told.members_of = 0  # a group that is being rebalanced may have none
    count = len(told.shares)
    await asyncio.sleep(0.01)
    assert told.shares[count + 1 :] == []
    assert watch.trouble is None


@pytest.mark.parametrize("fault", [UnavailableError("Kafka is out of reach"), MisconfiguredError("not allowed")])
async def test_trouble_is_told_at_the_next_look_and_over_at_the_first_answer(told, watch, monkeypatch, fault):
    """Kafka's silence is seen long before the lag is due again, and empties the gauge; so is its return."""
    monkeypatch.setattr(kafka_watch, "LAG_SECONDS", 3600)
    await until(lambda: told.lag_read == 1)
    for _ in range(2):
        told.fault = fault
        await until(lambda: watch.trouble == str(fault))
        assert told.lag == {}  # others may read those partitions by now
        told.fault = None
        await until(lambda: watch.trouble is None)


async def test_the_lag_is_read_less_often_than_it_looks(told, watch, monkeypatch):
    """While all is well, a look asks for the members only."""
    monkeypatch.setattr(kafka_watch, "LAG_SECONDS", 3600)
    await until(lambda: len(told.shares) > 20)
    assert told.lag_read <= 2
    assert watch.trouble is None
