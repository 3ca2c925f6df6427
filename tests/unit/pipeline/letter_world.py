# ruff: noqa: D102 - the methods say what they do by their names
"""The surroundings of a replay of dead letters, in memory."""

import asyncio
import dataclasses
from collections import Counter

from dispatcher.core.dead_letter_replays import ReplayChoice
from dispatcher.core.dead_letters import DeadLetterFilter
from dispatcher.core.delivery_id import DeliveryIds
from dispatcher.core.delivery_log import DeliveryStatus, merge
from dispatcher.core.model import Origin, Status
from dispatcher.core.records import DeliveryRecord, bad_record_headers, decode_headers, encode_headers
from dispatcher.core.topics import TopicNames
from dispatcher.pipeline.backfill import Acceptance
from dispatcher.pipeline.dead_letter_deliveries import LetterDeliveries
from dispatcher.pipeline.dead_letter_events import LetterEvents
from dispatcher.pipeline.dead_letter_replay import DeadLetterReplays, LetterOutside
from tests.fakes.dead_letters import DEAD_LETTERS, MemoryDeadLetterReplays, MemoryLetters, MemoryReplayTopic
from tests.fakes.event_records import ENVELOPE, raw
from tests.fakes.kafka import MemoryBroker, MemoryProducer
from tests.fakes.log import MemoryDeliveryLog
from tests.fakes.replays import MemoryRecords, MemorySubscriptions
from tests.fakes.stores import MemoryWebhookStore
from tests.unit.mongo.samples import START_MS, entry, webhook

NOW_MS = START_MS + 3_600_000
FAST = 1e9


class World:
    """Kafka, log and stores in memory, with two active webhooks of one workspace and one of another."""

    def __init__(self):
        self.ms = NOW_MS
        self.broker, self.log, self.store = MemoryBroker(), MemoryDeliveryLog(), MemoryDeadLetterReplays()
        self.producer, self.letters = MemoryProducer(self.broker), MemoryLetters(self.broker)
        self.records, self.subscriptions, self.webhooks = (
            MemoryRecords(self.broker),
            MemorySubscriptions(),
            MemoryWebhookStore(),
        )
        self.stop = asyncio.Event()
        self.told = []
        self.began = []
        for name, workspace in (("wh_1", "acme"), ("wh_2", "acme"), ("wh_3", "other")):
            self.set(name, workspace_id=workspace, status=Status.ACTIVE, events=("user.*",), max_attempts=6)

    def set(self, name, **changes):
        known = self.subscriptions.known.get(name) or dataclasses.replace(webhook().subscription, id=name)
        self.subscriptions.known[name] = dataclasses.replace(known, **changes)
        self.webhooks.webhooks[name] = dataclasses.replace(webhook(), subscription=self.subscriptions.known[name])

    def now_ms(self):
        return self.ms

    def monotonic(self):
        return self.ms / 1000

    def letter(self, number, name="wh_1", *, at_ms=START_MS, workspace="acme", value=..., partition=0, **fields):
        """Put a failed delivery on the dead-letter topic, and into the log."""
        delivery_id = DeliveryIds(workspace, "", f"evt_{number}").of(name)
        origin = Origin("events", 0, fields.pop("offset", 0), at_ms)
        run = fields.get("replay_id", "")
        record = DeliveryRecord(
            delivery_id, name, workspace, fields.pop("attempt", 6), 0, 7, None, origin,
            **{"reason": "attempts_exhausted", **fields},
        )  # fmt: skip
        value = event(number, workspace) if value is ... else value
        headers = encode_headers(record, (("traceparent", b"00-1"),))
        self.broker.append(
            DEAD_LETTERS, value, key=name.encode(), headers=headers, timestamp=at_ms, partition=partition
        )
        self.logged(delivery_id, DeliveryStatus.FAILED, run)
        return delivery_id

    def logged(self, delivery_id, status, run=""):
        known = entry(delivery_id=delivery_id, status=status, run=run, attempt=6)
        self.log.documents[delivery_id] = merge(self.log.documents.get(delivery_id), known)

    def bad(self, value, reason="undecodable", *, at_ms=START_MS, topic="events", on_topic=..., timestamp_ms=None):
        """Put a source record that was no event where it was read, and its letter on the dead-letter topic."""
        record = self.broker.append(topic, value if on_topic is ... else on_topic, timestamp=at_ms)
        origin = Origin(topic, 0, record.offset, at_ms if timestamp_ms is None else timestamp_ms)
        headers = bad_record_headers(origin, reason, "it is no event")
        self.broker.append(DEAD_LETTERS, value, headers=headers, timestamp=at_ms, partition=1)
        return origin

    def replays(self, owner="a", catalogue=None, default_workspace=None, max_event_bytes=10_000):
        names = TopicNames("webhooks", ())
        outside = LetterOutside(
            self.letters,
            MemoryReplayTopic(self.broker),
            self.store,
            self.subscriptions,
            self.log,
            self.producer,
            self,
            self._began,
        )
        accepts = Acceptance(default_workspace, max_event_bytes, catalogue)
        return DeadLetterReplays(
            outside,
            LetterDeliveries(self.subscriptions, self.log, self.records, self, names.replay),
            LetterEvents(self.webhooks, self.subscriptions, self.log, self.records, self, names, accepts),
            owner,
            bytes,
        )

    async def _began(self, replay, counts):
        self.began.append((replay.id, dict(counts)))

    async def plan(self, wanted=None, *, replays=None, **choice):
        wanted = wanted or DeadLetterFilter()
        return await (replays or self.replays()).plan(
            ReplayChoice(wanted, **{"rate": FAST, **choice}), lambda *_how_far: None
        )

    async def replay(self, wanted=None, *, replays=None, **choice):
        replays = replays or self.replays()
        plan = await self.plan(wanted, replays=replays, **choice)
        begun = await replays.begin(plan)
        return await replays.run(begun, plan.letters, self.told.append, self.stop)

    async def resume(self, replay_id, owner="b"):
        replays = self.replays(owner)
        begun = await replays.take_over(replay_id)
        return await replays.resume(begun, lambda *_how_far: None, self.told.append, self.stop)

    @property
    def sent(self):
        return [decode_headers(record.headers) for record in self.broker.on_topic("webhooks.replay")]

    @property
    def sent_ids(self):
        return [each.delivery_id for each in self.sent]


def event(number, workspace="acme", **fields):
    """Make the bytes of an event."""
    return raw(ENVELOPE, **{"id": f"evt_{number}", "type": "user.created", "workspace_id": workspace, **fields})


def fates(plan):
    """Count a plan's letters by fate."""
    found = Counter()
    for (_, _, fate), count in plan.counts.items():
        found[fate] += count
    return dict(found)
