"""One of each stored thing, written by today's code: records of the own topics, notes beside commits, documents.

Everything in it is fixed (ids, times, chance), so that two runs write the same bytes.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from dispatcher.core.decoding import decode
from dispatcher.core.delivery_id import DeliveryIds
from dispatcher.core.delivery_log import DeliveryStatus, FailedFilter, LogEntry
from dispatcher.core.endpoint_health import FailingEndpoint, HealthNote
from dispatcher.core.errors import UndecodableError
from dispatcher.core.exchange import Response, SendFailure
from dispatcher.core.model import DeadLetterReason, Event, Origin, RecordHeaders, SealedSecret, Subscription, Webhook
from dispatcher.core.outcome import DELIVERED, DeadLetter, classify
from dispatcher.core.outcome_records import webhook_disabled, webhook_failing
from dispatcher.core.records import BadRecord, decode_dead_letter, decode_headers, kept_headers
from dispatcher.core.reruns import ReplayCounts, ReplayJob, ReplaySource, ReplayStatus, SourceSpan, new_run_record
from dispatcher.core.retry import parse_tier
from dispatcher.core.topics import TopicNames
from dispatcher.core.urls import parse_endpoint_url
from dispatcher.metrics import Metrics
from dispatcher.mongo import MongoDeliveryLog
from dispatcher.mongo.client import Connection
from dispatcher.mongo.endpoint_health import MongoEndpointHealth
from dispatcher.mongo.failed_deliveries import MongoFailedDeliveries
from dispatcher.mongo.jobs import MongoReplays
from dispatcher.mongo.webhooks import MongoWebhooks
from dispatcher.pipeline.log_buffer import LogBuffer
from dispatcher.pipeline.settlement import Settlement
from dispatcher.pipeline.work import Delivery, PartitionState, RecordWork, Window
from dispatcher.ports import CommitPoint
from tests.fakes.kafka import MemoryBroker, MemoryProducer

START_MS = 1_768_473_000_000
WORKSPACE = "acme"
WEBHOOK = "wh_qpmrz2h677ow5hq3mqt4kuwzya"
RUN = "rpl_01k7vk652euiilsrcuf6ts65p0"
NAMES = TopicNames("webhooks", tuple(parse_tier(tier) for tier in ("5s", "1m", "1h")))
PLAIN = b'{"id":"evt_1","type":"user.created","created_at":"2026-01-15T10:30:00Z","workspace_id":"acme","data":{"n":1}}'
BINARY: RecordHeaders = (
    ("ce_specversion", b"1.0"),
    ("ce_id", b"evt_2"),
    ("ce_source", b"/accounts"),
    ("ce_type", b"account.added"),
    ("ce_workspaceid", b"acme"),
    ("content-type", b"application/json"),
    ("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ("publishers-own", b"is not carried on"),
)


class _Owner:
    def __init__(self) -> None:
        self.active: set[Delivery] = set()


class _Entries(LogBuffer):
    """Keeps what is to be logged."""

    def __init__(self) -> None:
        self.entries: list[LogEntry] = []

    def append(self, entry: LogEntry, work: RecordWork | None) -> None:
        self.entries.append(entry)
        if work is not None:
            work.done()


class Desk:
    """A `Settlement` that writes to topics in memory, and what it is asked to settle.

    Attributes:
        broker: The topics.
        entries: What the delivery log gets.
    """

    def __init__(self) -> None:
        self.broker = MemoryBroker()
        self._faults: list[BaseException] = []
        self._buffer = _Entries()
        self.entries = self._buffer.entries
        metrics = Metrics(tier.name for tier in NAMES.tiers)
        self.settlement = Settlement(
            NAMES, MemoryProducer(self.broker), self._buffer, metrics, self._faults.append, outcomes=True
        )
        self._window = Window()
        self._state = PartitionState("events", 3, CommitPoint(41), 0)

    def delivery(self, *, attempt: int = 1, run: str = "", number: int = 1) -> Delivery:
        """Make a delivery of the plain event (1) or of the CloudEvent (2) before its `attempt`-th attempt."""
        event = plain_event() if number == 1 else binary_event()
        id_ = DeliveryIds(event.workspace_id, event.source, event.id).of(WEBHOOK)
        delivery = Delivery(event, WEBHOOK, None, id_, self.work(), _Owner())
        delivery.attempt, delivery.run = attempt, run
        delivery.first_attempt_ms = START_MS + 10 if attempt > 1 else 0
        return delivery

    def work(self) -> RecordWork:
        """Take up one more record."""
        return RecordWork(self._state, self._state.tracker.position, 0, self._window)

    def failed(self, status: int, *, at_ms: int = 500, **delivery: Any) -> None:
        """Settle an attempt that was answered so; 0: that timed out."""
        kind = None if status else SendFailure.TIMEOUT
        response = Response(status, kind, "" if status else "no answer within 10 s", None, b"not now", 12.5)
        made = self.delivery(**delivery)
        outcome = classify(response, made.attempt, 3, NAMES.tiers, START_MS + at_ms)
        self.settlement.attempted(made, response, outcome, START_MS + at_ms)

    async def settled(self) -> None:
        """Wait until all of it is on its topic."""
        while self.settlement.producing:
            await asyncio.sleep(0)
        assert not self._faults, self._faults


def plain_event() -> Event:
    """Decode the plain event, as if read with a key that is no text."""
    return decode(PLAIN, (), Origin("events", 3, 41, START_MS, b"\xff\x00key"), None)


def binary_event() -> Event:
    """Decode the CloudEvent."""
    return decode(b'{"n":2}', BINARY, Origin("events.more", 0, 7, START_MS + 1), None)


async def written_records() -> list[dict[str, Any]]:
    """Write every kind of record that an own topic can hold.

    Returns:
        Each with `kind`, `topic`, `key`, `value`, `headers` (bytes as text, what isn't UTF-8 escaped) and `reads`, what
        the codec of today reads of it.
    """
    desk = Desk()
    settle = desk.settlement
    kinds: list[str] = []
    at: dict[str, int] = {}

    async def placed(kind: str, *topics: str) -> None:
        await desk.settled()
        kinds.extend([kind] * len(topics))
        written.extend(_shown(kind, desk.broker, topic, at) for topic in topics)

    written: list[dict[str, Any]] = []
    retry, letters, outcomes = NAMES.retry(NAMES.tiers[0]), NAMES.dead_letter, NAMES.outcomes
    desk.failed(503)
    await placed("retry: answered", retry)
    desk.failed(0, attempt=2, number=2)
    await placed("retry: no answer, a CloudEvent's headers", NAMES.retry(NAMES.tiers[1]))
    desk.failed(500, attempt=2, run=RUN)
    await placed("retry: of a replay", NAMES.retry(NAMES.tiers[1]))
    settle.spill(desk.delivery(), "no_room", START_MS + 20)
    await placed("overflow", NAMES.overflow)
    settle.park(desk.delivery(attempt=2), START_MS + 30)
    await placed("retry: parked", retry)
    settle.wait_for_circuit(desk.delivery(attempt=3), START_MS + 40)
    await placed("retry: waits for its circuit", retry)
    event = binary_event()
    key, headers = new_run_record(event, desk.delivery(number=2).id, WEBHOOK, RUN, BINARY)
    desk.broker.append(NAMES.replay, event.value, key=key, headers=headers)
    await placed("replay", NAMES.replay)
    desk.failed(500, attempt=3)
    await placed("dead letter: attempts exhausted", letters, outcomes)
    desk.failed(410, number=2)
    await placed("dead letter: gone", letters, outcomes)
    settle.failed_unsent(desk.delivery(attempt=2), DeadLetterReason.EXPIRED, "no room in its lane for 3 days", START_MS)
    await placed("dead letter: unsent", letters, outcomes)
    for kind, letter in _bad_records().items():
        settle.bad_record(desk.work(), *letter)
        await placed(kind, letters)
    settle.attempted(desk.delivery(), Response(204, None, "", None, b"", 8.0), DELIVERED, START_MS + 50)
    await placed("outcome: delivered", outcomes)
    settle.skipped(desk.delivery(run=RUN), "inactive", START_MS + 60)
    await placed("outcome: skipped", outcomes)
    failing = FailingEndpoint(WEBHOOK, WORKSPACE, 2, START_MS, START_MS + 9_000, key=WEBHOOK)
    for kind, value in {
        "operational event: failing": webhook_failing(failing, START_MS + 10_000, 432_000_000),
        "operational event: disabled": webhook_disabled(failing, "failing", START_MS + 20_000),
    }.items():
        desk.broker.append(outcomes, value, key=WEBHOOK.encode())
        await placed(kind, outcomes)
    return written


def _bad_records() -> dict[str, tuple[BadRecord, bytes | None, RecordHeaders]]:
    origin = Origin("events", 1, 99, START_MS, b"k")
    try:
        decode(b"{", (), origin, None)
    except UndecodableError as error:
        no_event = BadRecord(origin, error.reason, str(error))
    pointer = BadRecord(replace(origin, key=None), DeadLetterReason.TOO_LARGE, "the record has 2000000 bytes, too many")
    return {
        "dead letter: no event": (no_event, b"{\xff", kept_headers(BINARY)),
        "dead letter: a pointer to what is too large": (pointer, None, ()),
    }


def _shown(kind: str, broker: MemoryBroker, topic: str, at: dict[str, int]) -> dict[str, Any]:
    record = broker.on_topic(topic)[at.get(topic, 0)]
    at[topic] = at.get(topic, 0) + 1
    return {
        "kind": kind,
        "topic": topic,
        "key": text_of(record.key),
        "value": text_of(record.value),
        "headers": [[name, text_of(value)] for name, value in record.headers],
        "reads": read_record(topic, record.headers),
    }


def text_of(raw: bytes | None) -> str | None:
    """Write bytes so that a JSON string holds them, and `bytes_of` gives them back."""
    return None if raw is None else raw.decode("utf-8", "surrogateescape")


def bytes_of(text: str | None) -> bytes | None:
    """Give the bytes back that `text_of` wrote."""
    return None if text is None else text.encode("utf-8", "surrogateescape")


def read_record(topic: str, headers: RecordHeaders) -> dict[str, Any] | None:
    """Read a record's headers as today's code does; None where its topic's records have none."""
    if topic == NAMES.outcomes:
        return None
    found = asdict((decode_dead_letter if topic == NAMES.dead_letter else decode_headers)(headers))
    found["origin"]["key"] = text_of(found["origin"]["key"])
    return found


def written_notes() -> dict[str, str]:
    """Write each note that can stand beside a commit, by what it says."""
    window = Window()

    def state(start: CommitPoint) -> PartitionState:
        return PartitionState("events", 0, start, 100)

    busy = state(CommitPoint(10))
    for offset in range(10, 15):
        RecordWork(busy, offset, 0, window)
    return {
        "taken over": state(CommitPoint(10)).open_note,
        "worked on up to 15": busy.open_note,
        "left clean": state(CommitPoint(10)).note,
    }


async def written_documents(connection: Connection) -> dict[str, list[dict[str, Any]]]:
    """Write documents of every kind that outlives a worker into a fresh database.

    Returns:
        They as they are stored, by collection.
    """
    webhooks = MongoWebhooks(connection.webhooks)
    for webhook in _webhooks():
        assert await webhooks.insert(webhook)
    desk = Desk()
    _go_through(desk)
    await desk.settled()
    await MongoDeliveryLog(connection.deliveries).write(desk.entries)
    await MongoFailedDeliveries(connection.deliveries).handle(
        WORKSPACE, FailedFilter(reason="attempts_exhausted"), START_MS + 90_000
    )
    for job in _jobs():
        await MongoReplays(connection.replays).insert(job)
    health = MongoEndpointHealth(connection.endpoint_health, connection.deliveries)
    await health.note([HealthNote(WEBHOOK, WORKSPACE, 2, None, START_MS, START_MS + 9_000)])
    names = ("webhooks", "deliveries", "replays", "endpoint_health")
    return {name: await getattr(connection, name).find().sort("_id", 1).to_list(length=None) for name in names}


def _go_through(desk: Desk) -> None:
    """Settle steps whose deliveries end in different ways."""
    settle = desk.settlement
    for attempt in (1, 2, 3):
        desk.failed(500, attempt=attempt, at_ms=500 * attempt)
    desk.failed(503, number=2)
    third = desk.delivery(run=RUN)
    third.id = "del_third"
    settle.attempted(third, Response(200, None, "", None, b"OK", 8.25), DELIVERED, START_MS + 70)
    fourth = desk.delivery()
    fourth.id = "del_fourth"
    settle.skipped(fourth, "deleted", START_MS + 80)
    fifth = desk.delivery()
    fifth.id = "del_fifth"
    gone = Response(410, None, "", None, b"\xff\x00", 3.0)
    settle.attempted(fifth, gone, DeadLetter(DeadLetterReason.GONE), START_MS + 90)


def _webhooks() -> Sequence[Webhook]:
    url = "https://hooks.example.com/in?x=1"
    full = Subscription(
        WEBHOOK, WORKSPACE, parse_endpoint_url(url), ("user.created", "team.*"),
        (SealedSecret(b"v1 sealed"), SealedSecret(b"older", START_MS + 86_400_000)),
        method="PUT", content_type="application/json; charset=utf-8", payload_format="cloudevents", max_attempts=3,
        headers=(("X-Team", "red"),), api_key=b"sealed key", api_key_header="Authorization",
        client_certificate="-----BEGIN CERTIFICATE-----\n", client_key=b"sealed client key", timeout_seconds=7,
        rate_limit=12.5, revision=4, endpoint_revision=2,
    )  # fmt: skip
    bare = Subscription("wh_bare", WORKSPACE, parse_endpoint_url(url), ("*",), (SealedSecret(b"s"),), status="disabled")
    return [
        Webhook(full, url, "Accounts", "what it is for", START_MS, START_MS + 5_000),
        Webhook(bare, url, None, None, START_MS, START_MS, "gone", START_MS + 4_000),
    ]


def _jobs() -> Sequence[ReplayJob]:
    done = ReplayJob(
        RUN, WORKSPACE, WEBHOOK, START_MS, START_MS + 60_000, DeliveryStatus.FAILED, START_MS, START_MS + 2_000,
        ReplayStatus.RUNNING, selected=20, counts=ReplayCounts(10, 1, 2), cursor=(START_MS + 7, "del_7"),
        in_hand=("del_8", "del_9"), rate=25.0,
    )  # fmt: skip
    backfill = replace(
        done, id="rpl_02", wanted=None, source=ReplaySource.EVENTS, cursor=None, in_hand=(), rate=None,
        spans=(SourceSpan("events", 0, 17, 90),),
    )  # fmt: skip
    letters = replace(
        done, id="rpl_03", subscription_id="", wanted=None, source=ReplaySource.DEAD_LETTERS,
        failed=FailedFilter(event_type="user.created", response_code="5xx", delivery_ids=("del_1",)),
    )  # fmt: skip
    return [done, backfill, letters]
