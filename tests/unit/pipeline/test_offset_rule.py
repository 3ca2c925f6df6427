"""The one rule: an offset completes only when all that its record stands for is in a durable place and logged."""

import asyncio
import json
import random

import pytest

from dispatcher.core import breaker
from dispatcher.core.delivery_log import TERMINAL
from dispatcher.pipeline import log_buffer, log_check, role
from dispatcher.pipeline import pipeline as pipeline_module
from dispatcher.ports import RejectedRecordError
from tests.fakes.http import answer, failure
from tests.fakes.kafka import MemoryBroker
from tests.unit.pipeline.world import World, delivery_id, eventually, subscription

SUBSCRIPTIONS = {
    "wh_all": ("*",),
    "wh_a": ("a.*",),
    "wh_ab": ("a.b",),
    "wh_b": ("b.b",),
    "wh_flaky": ("a.*", "b.*"),
    "wh_gone": ("b.b",),
}
OWN_ROLES = ("retry.20ms", "retry.60ms", "overflow")
PARTITIONS = 2


class Story:
    """Two workers on one broker, chance, and a check at each commit.

    Args:
        seed: What chance begins with.
        crashes: True where workers may be killed.
        outcomes: True where finished deliveries are written to the outcomes topic.
    """

    def __init__(self, seed, *, crashes, outcomes):
        self.draw = random.Random(seed)
        self.crashes = crashes
        self.outcomes = outcomes
        self.broker = MemoryBroker([])
        self.broker.on_commit = self.check
        self.documents = {}
        self.wanted = {}
        self.bad = set()
        self.checked = {}
        self.violations = []
        self.numbers = iter(range(10**6))
        self.worlds = []
        self.ended = []

    def make_world(self):
        """Make one more worker; all share broker and delivery log."""
        in_flight = self.draw.choice((3, 20, 4096))
        world = World("20ms", "60ms", broker=self.broker, max_in_flight=in_flight, outcomes=self.outcomes)
        world.log.documents = self.documents
        for name, events in SUBSCRIPTIONS.items():
            world.index.put(subscription(name, events=events, max_attempts=4))
        world.sender.answers = self.answer
        world.add_source()
        for name in OWN_ROLES:
            world.add_own(name)
        return world

    def answer(self, sent):
        """Let chance answer a request; None: later."""
        if sent.subscription_id == "wh_gone":
            return answer(410)
        if sent.subscription_id == "wh_flaky":
            return self.draw.choice((None, answer(500), failure(), answer(200), answer(200, duration_ms=3000)))
        return self.draw.choice((answer(200), answer(200), answer(204), None, answer(503)))

    def publish(self):
        """Publish an event, or what is none, and note which deliveries it must bring."""
        number, kind = next(self.numbers), self.draw.choice(("a.b", "a.c", "b.b", "c"))
        partition = self.draw.randrange(PARTITIONS)
        if self.draw.random() < 0.05:
            record = self.broker.append("events", b"no event", partition=partition)
            self.bad.add((partition, record.offset))
            return
        record = self.worlds[0].publish(number, type=kind, partition=partition)
        matches = self.worlds[0].index.match("ws", kind)
        self.wanted[partition, record.offset] = [delivery_id(number, each.id) for each in matches]

    def letters(self, topic):
        """Return the records of an own topic."""
        return self.broker.on_topic(f"webhooks.{topic}")

    def is_done(self, topic, partition, offset):
        """Say whether all that a record stands for is in a durable place."""
        if topic == "events":
            if (partition, offset) in self.bad:
                at = (str(partition), str(offset))
                letters = self.letters("dead-letter")
                return any((each.header("origin-partition"), each.header("origin-offset")) == at for each in letters)
            spilled = {each.header("delivery-id") for each in self.letters("overflow")}
            return all(each in self.documents or each in spilled for each in self.wanted[partition, offset])
        record = self.broker.partitions[topic, partition][offset]
        wanted, made = record.header("delivery-id"), int(record.header("attempt"))
        document = self.documents.get(wanted)
        if document is not None and (document.state.status in TERMINAL or document.state.attempt > made):
            return True
        moved = [each for name in OWN_ROLES for each in self.letters(name) if each.header("delivery-id") == wanted]
        return any(each is not record and each.timestamp >= record.timestamp for each in moved)

    def told(self):
        """Return the deliveries that have an outcome."""
        return {json.loads(record.value)["delivery_id"] for record in self.letters("outcomes")}

    def check(self, group, points):
        """Note each record that a commit passed before it was done."""
        for (topic, partition), point in points.items():
            key = (group, topic, partition)
            for offset in range(self.checked.get(key, 0), point.offset):
                if not self.is_done(topic, partition, offset):
                    self.violations.append((group, topic, partition, offset))
            self.checked[key] = max(point.offset, self.checked.get(key, 0))
        if self.outcomes:
            ended = {each for each, document in self.documents.items() if document.state.status in TERMINAL}
            self.violations += [("no outcome", each) for each in ended - self.told()]

    async def rebalance(self):
        """Take every partition away, and share them out anew."""
        await asyncio.gather(*(each.revoke() for world in self.worlds for each in world.consumers.values()))
        for name in ("source", *OWN_ROLES):
            shares = [[] for _ in self.worlds]
            for number in range(PARTITIONS):
                self.draw.choice(shares).append((self.worlds[0].topic_of(name), number))
            for world, share in zip(self.worlds, shares, strict=True):
                await world.consumers[name].assign(*share)

    async def add_world(self):
        """Start one more worker, without partitions."""
        world = self.make_world()
        self.worlds.append(world)
        world.running = asyncio.create_task(world.pipeline.run())

    async def one_fault(self):
        """Let something fail, or come back."""
        world = self.draw.choice(self.worlds)
        match self.draw.randrange(9):
            case 0:
                world.producer.holding = True
            case 1:
                world.producer.release(self.draw.choice((None, 1)))
            case 2 | 3:
                world.log.down = not world.log.down
            case 4:
                consumer = self.draw.choice(list(world.consumers.values()))
                consumer.commits_fail = not consumer.commits_fail
            case 5:
                world.subscriptions.down = not world.subscriptions.down
            case 6:
                await self.rebalance()
            case 7:
                refusing = self.draw.random() < 0.5
                world.producer.refuses = lambda record: (
                    RejectedRecordError("no") if refusing and record.value and "retry" in record.topic else None
                )
            case 8 if self.crashes:
                self.worlds.remove(world)
                self.ended.append(world)
                await world.crash()
                await self.add_world()
                await self.rebalance()
            case _:
                for sent in world.sender.waiting:
                    sent.answer(self.draw.choice((answer(200), answer(500))))

    async def mend(self):
        """Let everything work again."""
        for world in self.worlds:
            world.log.down = world.subscriptions.down = False
            world.producer.refuses = lambda _record: None
            world.producer.release()
            for consumer in world.consumers.values():
                consumer.commits_fail = False
            world.sender.release()

    def at_rest(self):
        """Say whether nothing is left to commit."""
        topics = [self.worlds[0].topic_of(name) for name in ("source", *OWN_ROLES)]
        return all(
            self.broker.lag(name, topic) == 0 for name, topic in zip(("source", *OWN_ROLES), topics, strict=True)
        )


@pytest.fixture
def _short(monkeypatch):
    monkeypatch.setattr(role, "DRAIN_SECONDS", 0.02)
    monkeypatch.setattr(role, "HAND_OVER_SECONDS", 0.05)
    monkeypatch.setattr(log_check, "ANSWER_WITHIN_SECONDS", 0.05)
    monkeypatch.setattr(log_check, "_BACK_OFF_SECONDS", 0.02)
    monkeypatch.setattr(pipeline_module, "_BACK_OFF_SECONDS", 0.02)
    monkeypatch.setattr(log_buffer, "_BACK_OFF_SECONDS", (0.01, 0.05))
    monkeypatch.setattr(log_buffer, "MAX_UNLOGGED", 200)
    monkeypatch.setattr(breaker, "FIRST_PROBE_SECONDS", 0.05)
    monkeypatch.setattr(breaker, "MAX_PROBE_SECONDS", 0.1)


@pytest.mark.usefixtures("_short")
@pytest.mark.parametrize("crashes", [False, True])
@pytest.mark.parametrize("seed", range(4))
async def test_offset_rule(seed, crashes):
    """Whatever fails, no commit passes an unfinished record; once all is mended, every delivery comes to its end.

    With the outcomes topic on, whatever the log says is finished has its outcome.
    """
    story = Story(seed, crashes=crashes, outcomes=bool(seed % 2))
    loop = asyncio.get_running_loop()
    handler, unhandled = loop.get_exception_handler(), []
    loop.set_exception_handler(lambda _loop, context: unhandled.append(context))
    await story.add_world()
    await story.add_world()
    await story.rebalance()
    for _ in range(60):
        for _ in range(story.draw.randrange(8)):
            story.publish()
        if story.draw.random() < 0.5:
            await story.one_fault()
        await asyncio.sleep(story.draw.random() * 0.01)
    await story.mend()
    try:
        await eventually(story.at_rest, "everything is committed", within_seconds=15)
        assert not story.violations
        for ids in story.wanted.values():
            for each in ids:
                assert story.documents[each].state.status in TERMINAL
        failed = {each for each, document in story.documents.items() if document.state.status == "failed"}
        letters = {each.header("delivery-id") for each in story.letters("dead-letter")}
        assert failed <= letters
        check_order(story.broker.history)
        for world in story.worlds:
            roles = world.pipeline.roles
            await eventually(lambda roles=roles: not any(each.active or each.incomplete for each in roles))
            await eventually(lambda world=world: world.window.held_bytes == 0)
            await eventually(lambda world=world: world.pipeline.settlement.producing == 0)
            await eventually(lambda world=world: not world.pipeline.lanes.in_flight + world.pipeline.lanes.queued)
            assert not world.faults
    finally:
        for world in (*story.worlds, *story.ended):
            await world.stop()
        loop.set_exception_handler(handler)
    assert not unhandled


def check_order(history):
    """Check that each logged retry had its record acknowledged first, and each logged failure its dead letter."""
    retried, lettered = set(), set()
    for step in history:
        match step:
            case ("acknowledged", topic, delivery, attempt) if ".retry." in topic:
                retried.add((delivery, attempt))
            case ("acknowledged", "webhooks.dead-letter", delivery, _):
                lettered.add(delivery)
            case ("logged", delivery, attempt, "retrying"):
                assert (delivery, str(attempt)) in retried
            case ("logged", delivery, _, "failed"):
                assert delivery in lettered
