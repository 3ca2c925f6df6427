# ruff: noqa: D102 - the world's methods say what they do by their names
"""Redelivering one logged delivery."""

import dataclasses
import json

import pytest

from dispatcher.core.delivery_log import DeliveryStatus, merge, shown
from dispatcher.core.errors import ConflictError, GoneError, NotFoundError, UnavailableError
from dispatcher.core.model import Origin
from dispatcher.core.records import decode_headers
from dispatcher.core.reruns import new_run_id
from dispatcher.core.topics import TopicNames
from dispatcher.operations.audit import Audit
from dispatcher.operations.redelivery import Redeliveries
from dispatcher.ports import Actor
from tests.fakes.api_stack import START_MS, ManualClock, draws
from tests.fakes.event_records import ENVELOPE, raw
from tests.fakes.kafka import MemoryBroker
from tests.fakes.log import MemoryDeliveryLog
from tests.fakes.replays import MemoryRecords
from tests.fakes.stores import MemoryAuditStore, MemoryDeliveryLogReader, MemoryWebhookStore
from tests.unit.mongo.samples import entry, webhook

DELIVERY = "del_" + "0" * 25 + "1"


class World:
    """One webhook with one delivery, whose event is on its topic."""

    def __init__(self):
        self.broker, self.log, self.reader = MemoryBroker(), MemoryDeliveryLog(), MemoryDeliveryLogReader()
        self.records, self.store = MemoryRecords(self.broker), MemoryWebhookStore()
        made = webhook()
        subscription = dataclasses.replace(made.subscription, id="wh_1", workspace_id="acme", status="active")
        self.store.webhooks["wh_1"] = dataclasses.replace(made, subscription=subscription)
        self.broker.append("events", b"another")
        self.record = self.broker.append("events", raw(ENVELOPE), key=b"k", headers=(("traceparent", b"t"),))
        self.log_delivery()
        self.noted = MemoryAuditStore()
        self.redeliveries = Redeliveries(
            self.store,
            self.reader,
            self.log,
            self.records,
            self.records,
            TopicNames("webhooks", ()),
            ManualClock(),
            draws(),
            audit=Audit(self.noted, ManualClock(), draws()),
        )

    def log_delivery(self, **changes):
        origin = Origin("events", 0, self.record.offset, self.record.timestamp)
        known = {"workspace_id": "acme", "event_id": "evt_1", "origin": origin, "at_ms": START_MS - 1000, **changes}
        self.reader.deliveries = [shown(merge(None, entry(1, **known)))]

    def status(self, status):
        made = self.store.webhooks["wh_1"]
        self.store.webhooks["wh_1"] = dataclasses.replace(
            made, subscription=dataclasses.replace(made.subscription, status=status)
        )

    async def redeliver(self, workspace="acme", webhook_id="wh_1", delivery_id=DELIVERY):
        return await self.redeliveries.redeliver(workspace, webhook_id, delivery_id)

    @property
    def produced(self):
        return self.broker.on_topic("webhooks.replay")


@pytest.fixture
def world():
    return World()


async def test_delivery_starts_anew_on_the_replay_topic(world):
    """The origin's bytes go out as attempt 0 of a new run of the same delivery, and the log shows it as pending."""
    started = await world.redeliver()
    (record,) = world.produced
    carried = decode_headers(record.headers)
    assert (record.value, record.key) == (world.record.value, b"wh_1")
    assert (carried.delivery_id, carried.replay_id, carried.attempt) == (DELIVERY, started.replay_id, 0)
    assert carried.origin == Origin("events", 0, 1, world.record.timestamp, b"k")
    assert ("traceparent", b"t") in record.headers
    assert started.replay_id.startswith("rpl_")
    logged = shown(world.log.documents[DELIVERY])
    assert (logged.status, logged.run) == (DeliveryStatus.PENDING, started.replay_id)
    assert json.loads(record.value)["id"] == "evt_1"


async def test_redelivery_is_later_than_a_run_from_a_clock_ahead(world):
    """A run that the log has from a clock that goes ahead doesn't close the new one."""
    ahead = new_run_id(START_MS + 3_600_000, bytes(10))
    world.log_delivery(run=ahead)
    assert (await world.redeliver()).replay_id > ahead


async def test_expired_record_is_gone(world):
    """Where the topic has dropped the record, that is said, and nothing is produced or logged."""
    world.records.drop("events", 1)
    with pytest.raises(GoneError, match="topic events has dropped partition 0, offset 1"):
        await world.redeliver()
    assert (world.produced, world.log.documents) == ([], {})


@pytest.mark.parametrize("changes", [{"event_id": "evt_2"}, {"source": "/users"}])
async def test_record_of_another_event_is_gone(world, changes):
    """A topic that was made anew has another record there: it is not sent."""
    world.log_delivery(**changes)
    with pytest.raises(GoneError, match="holds another"):
        await world.redeliver()
    assert world.produced == []


@pytest.mark.parametrize("status", ["inactive", "disabled"])
async def test_webhook_that_is_not_active_conflicts(world, status):
    """What would only be skipped is refused at once, with what to do."""
    world.status(status)
    with pytest.raises(ConflictError, match=f"is {status}.*set its status to active"):
        await world.redeliver()


async def test_test_event_is_not_redelivered(world):
    """A test's event is on no topic; another test can be sent."""
    world.log_delivery(test=True, origin=Origin("", -1, -1, START_MS))
    with pytest.raises(ConflictError, match=r"POST /v1/webhooks/\{id\}/test"):
        await world.redeliver()


@pytest.mark.parametrize(
    "asked", [{"workspace": "globex"}, {"webhook_id": "wh_2"}, {"delivery_id": "del_2"}], ids=["workspace", "wh", "del"]
)
async def test_what_is_not_in_the_workspace_is_not_there(world, asked):
    """Another workspace, an unknown webhook and an unknown delivery are not found."""
    with pytest.raises(NotFoundError):
        await world.redeliver(**asked)
    assert world.produced == []


async def test_without_kafka_nothing_is_logged(world):
    """Kafka out of reach is said, and the delivery stays as it was."""
    world.records.down = True
    with pytest.raises(UnavailableError):
        await world.redeliver()
    assert world.log.documents == {}


async def test_who_asked_for_it_is_written_down(world):
    """The audit log names the delivery, its webhook and its new run; what was refused isn't there."""
    somebody = Actor("api_key", "key_1", "ci")
    started = await world.redeliveries.redeliver("acme", "wh_1", DELIVERY, by=somebody)
    world.status("inactive")
    with pytest.raises(ConflictError):
        await world.redeliveries.redeliver("acme", "wh_1", DELIVERY, by=somebody)
    (entry,) = world.noted.entries
    assert (entry.action, entry.target_id, entry.actor) == ("delivery.redeliver", DELIVERY, somebody)
    assert entry.changes == {"webhook_id": (None, "wh_1"), "replay_id": (None, started.replay_id)}
