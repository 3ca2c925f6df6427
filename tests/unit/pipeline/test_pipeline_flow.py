"""What becomes of deliveries, one kind after the other."""

import asyncio
import base64
import json
from collections import Counter

import pytest
from structlog.testing import capture_logs

from dispatcher.core.delivery_log import shown
from dispatcher.core.errors import MisconfiguredError
from dispatcher.core.exchange import SendFailure
from dispatcher.core.model import SealedSecret
from dispatcher.core.sealing import SealPurpose, binding
from dispatcher.pipeline import log_check
from dispatcher.ports import RejectedRecordError
from tests.fakes.http import answer, failure
from tests.unit.pipeline.world import KEYRING, WORKSPACE, delivery_id, event_bytes, eventually, subscription, turns


def own_record(world, topic):
    records = world.broker.on_topic(topic)
    return [(record.header("delivery-id"), record.header("attempt"), record.header("reason")) for record in records]


async def test_one_of_three_fails(worlds):
    """Of three deliveries the failing one alone goes to the retry topic; the others are not sent again."""
    world = worlds("50ms", "1h")
    for name in ("wh_a", "wh_b", "wh_c"):
        world.index.put(subscription(name))
    world.sender.answers = lambda sent: answer(500 if sent.subscription_id == "wh_b" and sent.attempt == 1 else 200)
    world.add_source()
    world.add_own("retry.50ms")
    await world.start()
    record = world.publish(1)
    await eventually(
        lambda: (
            len(world.log.documents) == 3
            and all(world.log.state(delivery_id(1, name)).status == "delivered" for name in ("wh_a", "wh_b", "wh_c"))
        )
    )
    await eventually(world.caught_up)
    assert sorted((sent.subscription_id, sent.attempt) for sent in world.sender.sent) == [
        ("wh_a", 1),
        ("wh_b", 1),
        ("wh_b", 2),
        ("wh_c", 1),
    ]
    (retry,) = world.broker.on_topic("webhooks.retry.50ms")
    assert retry.value == record.value
    assert retry.key == b"wh_b"
    assert (retry.header("attempt"), retry.header("origin-offset")) == ("1", "0")


async def test_failed_attempts_are_counted_by_cause(worlds):
    """Each failed attempt counts once under what came instead of a 2xx; one that succeeds counts under nothing."""
    world = worlds("1h")
    answers = {
        "wh_a": answer(),
        "wh_b": answer(503),
        "wh_c": answer(429),
        "wh_d": answer(404),
        "wh_e": failure(SendFailure.DNS),
    }
    for name in answers:
        world.index.put(subscription(name))
    world.sender.answers = lambda sent: answers[sent.subscription_id]
    world.add_source()
    await world.start()
    world.publish(1)
    await eventually(lambda: len(world.log.documents) == len(answers))
    counted = {cause: count for cause, count in world.metrics.attempts_failed.counts.items() if count}
    assert counted == {"5xx": 1, "429": 1, "4xx": 1, "dns": 1}


@pytest.mark.parametrize("status", [200, 500, 410])
async def test_an_endpoint_that_echoes_the_request(worlds, status):
    """An answer that shows what was sent is logged without the webhook's key and secret, whatever became of it."""
    world = worlds("1h")
    aad = binding(WORKSPACE, "wh_a", SealPurpose.API_KEY)
    api_key = KEYRING.seal(b"the key of wh_a", nonce=b"n" * 12, aad=aad)
    world.index.put(subscription("wh_a", api_key=api_key, secret=b"whsec_the-signing-secret"))

    def echo(sent):
        return answer(status, body=sent.request.head + b"the-signing-secret")

    world.sender.answers = echo
    world.add_source()
    await world.start()
    world.publish(1)
    await eventually(world.caught_up)
    (attempt,) = shown(world.log.documents[delivery_id(1, "wh_a")]).attempts
    assert b"X-API-Key: ***\r\n" in attempt.response_body
    assert attempt.response_body.endswith(b"\r\n\r\n***")
    everything = repr([(record.value, record.headers) for topic in ("retry.1h", "dead-letter")
                       for record in world.broker.on_topic(f"webhooks.{topic}")])  # fmt: skip
    assert "the key of wh_a" not in everything


async def test_a_late_echo_is_masked_too(worlds):
    """A success that comes after its delivery was handed over is logged without what it shows of the webhook's key."""
    world = worlds("1h")
    aad = binding(WORKSPACE, "wh_a", SealPurpose.API_KEY)
    world.index.put(subscription("wh_a", api_key=KEYRING.seal(b"the key of wh_a", nonce=b"n" * 12, aad=aad)))
    world.sender.answers = lambda _sent: None
    world.add_source()
    await world.start()
    world.publish(1)
    await eventually(lambda: world.sender.waiting)
    (sent,) = world.sender.waiting
    (delivery,) = world.role("source").active
    delivery.given_away = True
    sent.answer(answer(200, body=sent.request.head))
    ((entry, _),) = world.pipeline.buffer._entries
    assert b"X-API-Key: ***\r\n" in entry.response_body


async def test_order_of_durable_places(worlds):
    """The retry record is acknowledged before its log entry is written, and that before the offset is committed."""
    world = worlds()
    world.index.put(subscription("wh_a"))
    world.sender.answers = lambda _sent: answer(503)
    world.producer.holding = True
    world.add_source()
    await world.start()
    world.publish(1)
    await eventually(lambda: world.producer.held)
    await turns()
    assert not world.log.entries
    world.log.down = True
    world.producer.release()
    await eventually(lambda: len(world.pipeline.buffer) == 1)
    await asyncio.sleep(0.06)  # three times as long as between two commits
    assert world.broker.committed("source", "events").offset == 0
    world.log.down = False
    await eventually(world.caught_up)
    kinds = [step[0] for step in world.history if step[0] != "committed" or step[-1] > 0]
    assert kinds == ["sent", "acknowledged", "logged", "committed"]


async def test_gone_disables_first(worlds):
    """A 410 disables the subscription, waits for MongoDB to take that, and only then is a dead letter."""
    world = worlds()
    world.index.put(subscription("wh_a"))
    world.sender.answers = lambda _sent: answer(410)
    world.subscriptions.down = True
    world.add_source()
    await world.start()
    for number in range(3):
        world.publish(number)
    await eventually(lambda: world.pipeline.settlement.producing == 3)
    assert not world.broker.on_topic("webhooks.dead-letter")
    world.subscriptions.down = False
    await eventually(world.caught_up)
    assert world.subscriptions.disabled == [("wh_a", "gone")]
    assert [reason for _, _, reason in own_record(world, "webhooks.dead-letter")] == ["gone"] * 3
    assert world.log.state(delivery_id(0, "wh_a")).status == "failed"
    assert world.pipeline.settlement.producing == 0


async def test_attempts_used_up(worlds):
    """After the last attempt a delivery is failed, a dead letter, and its record is done."""
    world = worlds("20ms")
    world.index.put(subscription("wh_a", max_attempts=3))
    world.sender.answers = lambda _sent: answer(500)
    world.add_source()
    world.add_own("retry.20ms")
    await world.start()
    world.publish(1)
    await eventually(lambda: world.broker.on_topic("webhooks.dead-letter"))
    await eventually(world.caught_up)
    assert [sent.attempt for sent in world.sender.sent] == [1, 2, 3]
    assert own_record(world, "webhooks.dead-letter") == [(delivery_id(1, "wh_a"), "3", "attempts_exhausted")]
    assert world.log.state(delivery_id(1, "wh_a")).status == "failed"
    assert world.metrics.dead_letters.counts["attempts_exhausted"] == 1


async def test_rejected_retry_becomes_pointer(worlds):
    """A retry record that Kafka refuses is a dead letter without bytes and key, however large the origin's key is."""
    world = worlds()
    world.index.put(subscription("wh_a"))
    world.sender.answers = lambda _sent: answer(500)

    def refuses(record):
        size = len(record.value or b"") + sum(len(value) for _, value in record.headers)
        return RejectedRecordError("too large") if size > 1000 else None

    world.producer.refuses = refuses
    world.add_source()
    await world.start()
    world.broker.append("events", event_bytes(1), key=b"k" * 2000)
    await eventually(world.caught_up)
    (letter,) = world.broker.on_topic("webhooks.dead-letter")
    assert (letter.value, letter.header("reason"), letter.header("origin-key")) == (None, "too_large", None)
    assert (letter.header("origin-topic"), letter.header("origin-offset")) == ("events", "0")
    entry = world.log.entries[0]
    assert (entry.status, entry.reason, entry.attempt, entry.next_attempt_at_ms) == ("failed", "too_large", 1, None)
    assert not world.faults


async def test_rejected_spill_is_logged_with_its_time(worlds, monkeypatch):
    """A spill that Kafka refuses is a dead letter whose log entry has a real time, so that it isn't expired at once."""
    world = worlds()
    world.index.put(subscription("wh_a"))
    world.sender.answers = lambda _sent: None
    world.producer.refuses = lambda record: RejectedRecordError("no") if record.value else None
    consumer = world.add_source()
    await world.start()
    world.publish(1)
    await eventually(lambda: world.sender.sent)
    await consumer.revoke()
    await eventually(lambda: world.log.entries)
    assert world.log.entries[0].at_ms > 1_700_000_000_000


async def test_misconfiguration_is_fatal(worlds):
    """A produce that Kafka refuses for good ends the process, and the offset stays."""
    world = worlds()
    world.index.put(subscription("wh_a"))
    world.sender.answers = lambda _sent: answer(500)
    world.producer.refuses = lambda _record: MisconfiguredError("no such topic")
    world.add_source()
    await world.start()
    world.publish(1)
    await eventually(lambda: world.faults)
    assert isinstance(world.faults[0], MisconfiguredError)
    assert world.broker.committed("source", "events").offset == 0


async def test_subscription_gone_from_the_index_while_queued(worlds):
    """A delivery that waits in its lane when its subscription is deleted is skipped, not sent with the old secret."""
    world = worlds()
    world.index.put(subscription("wh_a"))
    world.sender.answers = lambda _sent: None
    world.add_source()
    await world.start()
    for number in range(200):
        world.publish(number)
    await eventually(lambda: world.pipeline.lanes.queued == 72)
    world.index.remove("wh_a")
    world.sender.release()
    await eventually(world.caught_up)
    assert len(world.sender.sent) == 128
    assert [entry.status for entry in world.log.entries].count("skipped") == 72
    assert world.pipeline.lanes.in_flight == world.pipeline.lanes.queued == 0
    assert not world.role("source").active


@pytest.mark.parametrize(
    ("change", "status", "reason"),
    [
        ({"status": "inactive"}, "skipped", "inactive"),
        ({"status": "disabled"}, "skipped", "disabled"),
        ({"max_attempts": 1}, "failed", "attempts_exhausted"),
        ({"workspace_id": "other"}, "failed", "workspace_mismatch"),
    ],
)
async def test_what_a_due_delivery_meets(worlds, change, status, reason):
    """A due delivery is closed, unsent, where its subscription no longer allows it."""
    world = worlds()
    world.index.put(subscription("wh_a", **change))
    world.add_own("retry.1m")
    await world.start()
    world.put_own("retry.1m", 1, "wh_a")
    await eventually(world.caught_up)
    (entry,) = world.log.entries
    assert (entry.status, entry.reason, entry.attempt) == (status, reason, 0)
    assert not world.sender.sent
    letters = own_record(world, "webhooks.dead-letter")
    assert letters == ([(delivery_id(1, "wh_a"), "1", reason)] if status == "failed" else [])


async def test_todays_values_are_used(worlds):
    """A due delivery goes out with today's URL and secret."""
    world = worlds()
    world.index.put(subscription("wh_a"))
    world.add_own("retry.1m")
    await world.start()
    world.put_own("retry.1m", 1, "wh_a")
    await eventually(world.caught_up)
    world.index.put(subscription("wh_a", url="https://new.example.com/x", secret=b"new", revision=2))
    world.put_own("retry.1m", 1, "wh_a", attempt=2)
    world.log.documents.clear()
    await eventually(lambda: len(world.sender.sent) == 2)
    first, second = world.sender.sent
    assert (second.request.url.host, second.attempt) == ("new.example.com", 3)
    assert first.request.body == second.request.body
    assert first.headers["x-signature"] != second.headers["x-signature"]


@pytest.mark.parametrize(
    "broken",
    [
        {"secrets": (SealedSecret(b"\x01garbage" * 8),)},
        {"headers": (("X-Name", "\u4e2d"),)},
        {"url": None},
    ],
)
async def test_one_broken_webhook(worlds, broken):
    """A webhook that can't be rendered fails its own attempts; slots and the others' deliveries are not concerned."""
    world = worlds()
    world.index.put(subscription("wh_ok"))
    bad = subscription("wh_bad", **({} if "url" in broken else broken))
    if "url" in broken:
        object.__setattr__(bad, "url", None)
    world.index.put(bad)
    world.add_source()
    await world.start()
    for number in range(10):
        world.publish(number)
    await eventually(world.caught_up)
    assert len(world.sender.sent) == 10
    assert len(world.broker.on_topic("webhooks.retry.1m")) == 10
    assert world.pipeline.lanes.in_flight == 0
    assert "4e2d" not in repr(world.log.entries)


async def test_forked_retry_chain(worlds):
    """A retry record whose attempt the log knows already is closed without being sent."""
    world = worlds()
    world.index.put(subscription("wh_a"))
    world.add_own("retry.1m")
    await world.start()
    world.put_own("retry.1m", 1, "wh_a")
    await eventually(world.caught_up)
    world.put_own("retry.1m", 1, "wh_a")
    world.put_own("retry.1m", 2, "wh_a")
    await eventually(world.caught_up)
    assert [sent.delivery_id for sent in world.sender.sent] == [delivery_id(1, "wh_a"), delivery_id(2, "wh_a")]


async def test_unknown_subscription(worlds):
    """A subscription that the index doesn't hold is looked up; MongoDB's absence is waited out by it alone."""
    world = worlds()
    world.index.put(subscription("wh_known"))
    world.subscriptions.stored["wh_new"] = subscription("wh_new")
    world.subscriptions.down = True
    world.add_own("overflow")
    await world.start()
    for number in range(5):
        world.put_own("overflow", number, "wh_new")
        world.put_own("overflow", number, "wh_none")
        world.put_own("overflow", number, "wh_known")
    await eventually(lambda: len(world.log.entries) == 5)
    assert {sent.subscription_id for sent in world.sender.sent} == {"wh_known"}
    assert sorted(world.subscriptions.found) == ["wh_new", "wh_none"]
    world.subscriptions.down = False
    await eventually(world.caught_up)
    assert [sent.subscription_id for sent in world.sender.sent].count("wh_new") == 5
    assert [entry.reason for entry in world.log.entries if entry.subscription_id == "wh_none"] == ["deleted"] * 5


async def test_a_webhook_that_was_looked_up_and_then_deleted_gets_nothing(worlds):
    """What was looked up for a delivery counts no more once the index has known the webhook, and that it is gone."""
    world = worlds()
    limited = subscription("wh_new", rate_limit=1)
    world.subscriptions.stored["wh_new"] = limited
    world.add_own("overflow")
    await world.start()
    for number in range(5):
        world.put_own("overflow", number, "wh_new")
    await eventually(lambda: world.pipeline.lanes.held >= 3)
    world.index.put(limited)
    world.index.remove("wh_new")
    sent = len(world.sender.sent)
    await eventually(world.caught_up)
    assert len(world.sender.sent) == sent
    assert Counter(entry.status for entry in world.log.entries)["skipped"] == 5 - sent


async def test_log_that_does_not_answer(worlds, monkeypatch):
    """Where the log doesn't answer in time, an own record is sent all the same, and the process log says so."""
    monkeypatch.setattr(log_check, "ANSWER_WITHIN_SECONDS", 0.05)
    world = worlds()
    world.index.put(subscription("wh_a"))
    world.log.hangs = True
    world.add_own("overflow")
    await world.start()
    with capture_logs() as said:
        world.put_own("overflow", 1, "wh_a", attempt=0)
        await eventually(lambda: world.sender.sent)
    assert world.sender.sent[0].attempt == 1
    (line,) = [each for each in said if "doesn't say what was sent before" in each["event"]]
    assert line["deliveries"] == 1


BAD_VALUES = [
    (b"", "undecodable"),
    (None, "undecodable"),
    (b"\xff", "undecodable"),
    (b"[1]", "undecodable"),
    (b'{"type":"a b"}', "undecodable"),
    (b'{"type":"a","id":7,"workspace_id":"w"}', "undecodable"),
    (b'{"type":"a"}', "no_workspace"),
    (b'{"type":"a","workspace_id":"w","data":1e999}', "undecodable"),
    (b"[" * 100_000, "undecodable"),
    (b'{"specversion":"1.0","id":"a","source":"s","type":"t","workspaceid":"w","traceparent":"\\ud800"}', None),
]


@pytest.mark.parametrize(("value", "reason"), BAD_VALUES)
async def test_bad_source_records(worlds, value, reason):
    """A record that is no event is a dead letter with its bytes and headers, and its partition moves on."""
    world = worlds()
    world.index.put(subscription("wh_a"))
    world.add_source()
    await world.start()
    headers = (("ce_x", b"1"), ("dispatcher-attempt", b"9"), ("x-own", b"2"))
    world.broker.append("events", value, key=b"k\xff", headers=headers)
    world.publish(1)
    await eventually(world.caught_up)
    letters = world.broker.on_topic("webhooks.dead-letter")
    if reason is None:
        assert not letters
        return
    (letter,) = letters
    assert (letter.value, letter.key, letter.header("reason")) == (value, b"k\xff", reason)
    assert (letter.header("origin-offset"), letter.header("attempt")) == ("0", None)
    names = [name for name, _ in letter.headers]
    assert ("ce_x" in names, "x-own" in names) == (True, False)
    assert [sent.delivery_id for sent in world.sender.sent] == [delivery_id(1, "wh_a")]
    assert world.window.held_bytes == 0


async def test_unreadable_and_too_large_records(worlds):
    """What Kafka can't hand out, and what is above the limit, is a pointer without bytes; partitions move on."""
    world = worlds(max_event_bytes=500)
    world.index.put(subscription("wh_a"))
    world.add_source()
    await world.start()
    world.broker.append_unreadable("events", "the batch is corrupt")
    world.broker.append_unreadable("events", "too large to fetch", too_large=True)
    world.broker.append("events", event_bytes(1, data="x" * 500), key=b"key")
    world.publish(2)
    await eventually(world.caught_up)
    letters = world.broker.on_topic("webhooks.dead-letter")
    assert [
        (letter.value, letter.key, letter.header("reason"), letter.header("origin-offset")) for letter in letters
    ] == [
        (None, None, "undecodable", "0"),
        (None, None, "too_large", "1"),
        (None, None, "too_large", "2"),
    ]
    assert len(world.sender.sent) == 1
    assert world.window.held_bytes == 0


async def test_rejected_bad_record_becomes_pointer(worlds):
    """A bad record whose bytes or headers Kafka refuses is a pointer, and counted once."""
    world = worlds()
    world.producer.refuses = lambda record: (
        RejectedRecordError("no") if record.value or record.key or "ce_x" in dict(record.headers) else None
    )
    world.add_source()
    await world.start()
    world.broker.append("events", b"?", key=b"k")
    world.broker.append("events", None, headers=(("ce_x", b"1"),))
    await eventually(world.caught_up)
    assert [letter.value for letter in world.broker.on_topic("webhooks.dead-letter")] == [None, None]
    assert world.metrics.dead_letters.counts["undecodable"] == 2
    assert not world.faults


@pytest.mark.parametrize(
    "header",
    [
        ("dispatcher-attempt", b"x"),
        ("dispatcher-delivery-id", b"del_%0d%0aX: y"),
        ("dispatcher-subscription-id", b"%ed%a0%80"),
        ("dispatcher-workspace-id", b"other"),
    ],
)
async def test_undecodable_own_records(worlds, header):
    """An own record that can't be read is a dead letter that names where it stood, and the rest goes on."""
    world = worlds()
    world.index.put(subscription("wh_a"))
    world.add_own("overflow")
    await world.start()
    good = world.put_own("overflow", 1, "wh_a")
    headers = tuple(header if name == header[0] else (name, value) for name, value in good.headers)
    world.broker.append("webhooks.overflow", event_bytes(2), headers=headers)
    world.put_own("overflow", 3, "wh_a")
    await eventually(world.caught_up)
    (letter,) = world.broker.on_topic("webhooks.dead-letter")
    expected = "workspace_mismatch" if header[1] == b"other" else "undecodable"
    assert (letter.header("reason"), letter.header("origin-topic"), letter.header("origin-offset")) == (
        expected,
        "webhooks.overflow",
        "1",
    )
    assert letter.value == event_bytes(2)
    assert len(world.sender.sent) == 2


async def test_replayed_delivery_keeps_its_run(worlds):
    """A replayed delivery is sent although an earlier run ended, and its retry record carries the replay's id on."""
    world = worlds()
    world.index.put(subscription("wh_a"))
    world.add_own("replay")
    await world.start()
    world.put_own("replay", 1, "wh_a", attempt=0)
    await eventually(world.caught_up)
    world.sender.answers = lambda _sent: answer(500)
    world.put_own("replay", 1, "wh_a", attempt=0, replay_id="rpl_1")
    await eventually(world.caught_up)
    (retry,) = world.broker.on_topic("webhooks.retry.1m")
    assert (retry.header("replay-id"), retry.header("attempt")) == ("rpl_1", "1")
    assert world.log.state(delivery_id(1, "wh_a")).run == "rpl_1"


async def test_origin_key_is_carried_on(worlds):
    """The origin's key and coordinates come back unchanged in the retry record."""
    world = worlds()
    world.index.put(subscription("wh_a"))
    world.sender.answers = lambda _sent: answer(500)
    world.add_source()
    await world.start()
    world.broker.append("events", json.dumps({"type": "a", "workspace_id": "ws"}).encode(), key=b"\x00k", timestamp=5)
    await eventually(world.caught_up)
    (retry,) = world.broker.on_topic("webhooks.retry.1m")
    assert base64.b64decode(retry.header("origin-key")) == b"\x00k"
    assert retry.header("origin-timestamp-ms") == "5"
