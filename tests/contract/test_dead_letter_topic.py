"""Reading the dead-letter topic of a real broker, and marking what was dealt with in a real MongoDB."""

import asyncio
import time
from contextlib import aclosing

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from dispatcher.app.dead_letter_replays import LettersToReplay
from dispatcher.app.dead_letter_view import LetterView
from dispatcher.app.dead_letters import open_letters
from dispatcher.core.dead_letters import UNREADABLE, DeadLetterFilter
from dispatcher.core.delivery_log import DeliveryStatus
from dispatcher.core.errors import InvalidInputError, MisconfiguredError, NotFoundError
from dispatcher.core.handled_letters import marks_of
from dispatcher.core.letter_counts import CountedBy
from dispatcher.core.model import Origin
from dispatcher.core.records import DeliveryRecord, bad_record_headers, encode_headers
from dispatcher.core.reruns import SourceSpan, new_run_id
from dispatcher.kafka.dead_letters import LATE_MS, DeadLetterReader
from dispatcher.mongo.delivery_log import MongoDeliveryLog
from dispatcher.mongo.handled_letters import MongoHandledLetters
from tests.deployment import make_settings
from tests.kafka_support import admin_client, foreign_producer, make_topic
from tests.unit.mongo.samples import entry

HOUR_MS = 3_600_000
# Not long ago: the delivery log forgets what is older than its retention.
START_MS = int(time.time() * 1000) // HOUR_MS * HOUR_MS - 24 * HOUR_MS
EVERYTHING = DeadLetterFilter()
VALUE = b'{"type":"user.created","workspace_id":"acme","data":{"password":"hush","n":1}}'


def headers(delivery, reason="attempts_exhausted", status=503, subscription="wh_1", workspace="acme"):
    origin = Origin("nowhere", 0, 7, START_MS)
    record = DeliveryRecord(
        delivery,
        subscription,
        workspace,
        6,
        0,
        START_MS,
        None,
        origin,
        reason,
        status,
        f"the endpoint answered {status}",
    )
    return list(encode_headers(record, ()))


@pytest.fixture
async def topic(services, unique_name):
    """Give the settings of a dispatcher whose dead-letter topic has three partitions, and that topic's name."""
    name = unique_name("dead")
    settings = make_settings(services.kafka_bootstrap, services.mongo_uri, name)
    return settings, await make_topic(services.kafka_bootstrap, f"{name}.dead-letter", 3)


@pytest.fixture
async def reader(topic):
    settings, _ = topic
    reader = DeadLetterReader(settings.kafka, settings.topics, fetch_bytes=16 * 1024)
    yield reader
    await reader.stop()


@pytest.fixture
async def opened(topic):
    settings, _ = topic
    async with open_letters(settings) as (letters, connection):
        yield letters, connection
        await connection.client.drop_database(settings.mongo.database)


async def put(settings, topic, *letters, partition=0, **options):
    """Produce letters: (headers, timestamp) or (headers, timestamp, value)."""
    async with foreign_producer(settings.kafka.bootstrap_servers, **options) as producer:
        sends = [
            await producer.send(
                topic, rest[0] if rest else VALUE, b"k", partition=partition, headers=head, timestamp_ms=at_ms
            )
            for head, at_ms, *rest in letters
        ]
        return [sent.offset for sent in await asyncio.gather(*sends)]


async def read(reader, spans, **options):
    """Read spans to the end, in bounded time; gives the letters, and what was behind at last."""
    found, done = [], 0
    async with asyncio.timeout(60), aclosing(reader.read(spans, **options)) as batches:
        async for batch in batches:
            assert batch.done > done or not batch.letters
            done = batch.done
            found += batch.letters
    return found, done


@pytest.mark.parametrize("codec", [None, "gzip", "zstd"])
async def test_everything_that_is_there_is_read_once_and_reading_ends(topic, reader, codec):
    """Letters of all partitions, of every codec, come once and in order; what comes later is not waited for."""
    settings, name = topic
    for partition in range(3):
        letters = [(headers(f"del_{partition}_{n}"), START_MS + n) for n in range(300)]
        await put(settings, name, *letters, partition=partition, compression_type=codec)
    spans = await reader.snapshot()
    assert spans == tuple(SourceSpan(name, partition, 0, 300) for partition in range(3))
    await put(settings, name, (headers("del_late"), START_MS))
    found, done = await read(reader, spans)
    assert done == 900
    for partition in range(3):
        mine = [letter for letter in found if letter.partition == partition]
        assert [letter.offset for letter in mine] == list(range(300))
        assert [letter.delivery_id for letter in mine] == [f"del_{partition}_{n}" for n in range(300)]
    assert {letter.event_type for letter in found} == {"user.created"}
    one_by_one, _ = await read(reader, spans, at_once=1, with_types=False)
    assert [(each.partition, each.offset) for each in one_by_one] == [(p, n) for p in range(3) for n in range(300)]
    assert {letter.event_type for letter in one_by_one} == {None}


async def test_a_time_is_read_from_where_it_begins(topic, reader):
    """`since` skips what is older, without reading it; `until` ends soon after; a letter out of order is not lost."""
    settings, name = topic
    order = [*range(50), 20, *range(50, 100)]
    await put(settings, name, *((headers(f"del_{n}"), START_MS + minute * 60_000) for n, minute in enumerate(order)))
    since_ms, until_ms = START_MS + 30 * 60_000, START_MS + 60 * 60_000
    (span,) = await reader.snapshot(since_ms, until_ms)
    assert span.position == 30
    assert 61 < span.end <= 61 + LATE_MS // 60_000
    wanted = DeadLetterFilter(since_ms=since_ms, until_ms=until_ms)
    found, _ = await read(reader, [span])
    assert [order[each.offset] for each in found if wanted.wants(each)] == list(range(30, 60))
    assert await reader.snapshot(START_MS + 200 * 60_000) == ()
    assert await reader.snapshot(None, START_MS - HOUR_MS) == ()
    (span,) = await reader.snapshot(None, START_MS + 10 * 60_000)
    assert (span.position, span.end) == (0, 15)


async def test_gaps_and_what_expired_don_t_hold_reading_up(topic, reader):
    """Aborted letters and transaction markers are passed over, at the end too; an expired beginning likewise."""
    settings, name = topic
    await put(settings, name, *((headers(f"del_{n}"), START_MS) for n in range(5)))
    async with foreign_producer(settings.kafka.bootstrap_servers, transactional_id=name) as producer:
        async with producer.transaction():
            await producer.send_and_wait(name, VALUE, partition=0, headers=headers("del_5"), timestamp_ms=START_MS)
        await producer.begin_transaction()
        await producer.send_and_wait(name, VALUE, partition=0, headers=headers("del_aborted"), timestamp_ms=START_MS)
        await producer.abort_transaction()
        spans = await reader.snapshot()
        found, done = await read(reader, spans)
        assert [letter.delivery_id for letter in found] == [f"del_{n}" for n in range(6)]
        assert done == spans[0].end == 9
        async with admin_client(settings.kafka.bootstrap_servers) as admin:
            await admin.delete_records({TopicPartition(name, 0): RecordsToDelete(before_offset=3)})
        found, done = await read(reader, spans)
        assert [letter.delivery_id for letter in found] == ["del_3", "del_4", "del_5"]
        assert done == 9
        # An open transaction's letters are not there yet: it isn't waited for.
        await producer.begin_transaction()
        await producer.send_and_wait(name, VALUE, partition=0, headers=headers("del_open"), timestamp_ms=START_MS)
        assert (await reader.snapshot())[0].end == 9
        await producer.abort_transaction()


async def test_letters_that_cannot_be_read_are_shown_and_end_nothing(topic, reader):
    """Letters without headers, and with broken ones, are told of with their problem; their neighbours are read."""
    settings, name = topic
    broken = headers("del_broken")
    broken[3] = ("dispatcher-attempt", b"-1")
    await put(
        settings,
        name,
        (headers("del_0"), START_MS),
        ([], START_MS),
        (broken, START_MS),
        (headers("del_1"), START_MS, None),
        (list(bad_record_headers(Origin("events", 0, 1, START_MS), "undecodable", "x")), START_MS, b"\xff"),
        linger_ms=200,
    )
    found, _ = await read(reader, await reader.snapshot())
    assert [letter.reason for letter in found] == [
        "attempts_exhausted",
        UNREADABLE,
        UNREADABLE,
        "attempts_exhausted",
        "undecodable",
    ]
    assert "dispatcher-attempt" in found[2].problem
    letter = await reader.read_at(0, 3)
    assert letter is not None
    assert (letter.delivery_id, letter.value) == ("del_1", None)
    assert await reader.read_at(0, 17) is None
    assert await reader.read_at(9, 0) is None


async def test_without_the_topic_it_is_said_what_makes_it(services, unique_name):
    """A dispatcher whose topics were never made is told the command."""
    settings = make_settings(services.kafka_bootstrap, services.mongo_uri, unique_name("none"))
    reader = DeadLetterReader(settings.kafka, settings.topics)
    with pytest.raises(MisconfiguredError, match="dispatcher topics ensure"):
        await reader.snapshot()
    await reader.stop()


async def test_what_was_purged_leaves_the_lists_with_its_older_letters(topic, opened):
    """Chosen letters are marked, in MongoDB and in the delivery log; others stay, and a new failure is listed again."""
    settings, name = topic
    letters, connection = opened
    await put(
        settings,
        name,
        *((headers(f"del_{n:026}", subscription="wh_1"), START_MS + n) for n in range(10)),
        (headers(f"del_{3:026}", reason="gone", status=410), START_MS + 50),
    )
    await put(
        settings, name, *((headers(f"del_x{n}", subscription="wh_2"), START_MS + n) for n in range(5)), partition=1
    )
    log = MongoDeliveryLog(connection.deliveries)
    failed = {
        "workspace_id": "acme",
        "at_ms": START_MS,
        "status": DeliveryStatus.FAILED,
        "attempt": 6,
        "reason": "attempts_exhausted",
    }
    await log.write([entry(n, **failed) for n in range(10)])
    # Of this one a later run failed as well: that has a letter of its own, which is not among the chosen.
    await log.write([entry(7, run="rpl_1", **failed)])
    spans = await letters.snapshot(EVERYTHING)
    survey = await letters.survey(spans, EVERYTHING, lambda _: None, examples=3)
    assert (survey.choice.counts.total, survey.choice.superseded, survey.choice.read) == (15, 1, 16)
    assert [each.delivery_id for each in survey.examples] == [f"del_{3:026}", f"del_{9:026}", f"del_{8:026}"]
    of_webhook = DeadLetterFilter(subscription_id="wh_1")
    chosen = await letters.survey(spans, of_webhook, lambda _: None)
    told = []
    purged = await letters.purge(spans, chosen.choice, told.append)
    assert (purged.deliveries, purged.letters, told[-1]) == (10, 11, 16)
    (noted,) = [each async for each in connection.audit.find({"action": "dead_letters.purge"})]
    assert (noted["workspace_id"], noted["target_id"]) == ("acme", "wh_1")
    survey = await letters.survey(spans, EVERYTHING, lambda _: None)
    assert [(row.value, row.count) for row in survey.choice.counts.by(CountedBy.SUBSCRIPTION)] == [("wh_2", 5)]
    assert survey.choice.handled == 11
    everything = await letters.survey(spans, EVERYTHING, lambda _: None, handled_too=True)
    assert everything.choice.counts.total == 15
    assert await connection.deliveries.count_documents({"h.r": ""}) == 9
    assert await connection.deliveries.count_documents({"h": None}) == 1
    await put(settings, name, (headers(f"del_{5:026}"), START_MS + 90))
    spans = await letters.snapshot(EVERYTHING)
    assert (await letters.survey(spans, of_webhook, lambda _: None)).choice.counts.total == 1


async def test_marks_expire_after_their_letters(topic, opened):
    """A mark goes by itself, later than the topic can keep what it is about."""
    settings, _ = topic
    letters, connection = opened
    (index,) = [each async for each in connection.handled_letters.list_indexes() if each["name"] == "expire"]
    assert index["expireAfterSeconds"] == 0
    spans = await letters.snapshot(EVERYTHING)
    assert spans == ()
    await put(settings, f"{settings.topics.prefix}.dead-letter", (headers("del_1"), START_MS))
    (letter,), _ = await read(letters.reader, await letters.snapshot(EVERYTHING))
    await letters.handle([letter], "rpl_1")
    stored = await connection.handled_letters.find_one({})
    days = (int(stored["expires_at"]) - int(stored["at"])) / 86_400_000
    assert (stored["by"], days) == ("rpl_1", settings.topics.dead_letter_retention_days + 30)


async def test_a_letter_is_found_by_its_delivery_or_its_place(topic, opened):
    """The newest letter of a delivery, with its attempts; a place is read exactly; what is nowhere is said so."""
    settings, name = topic
    letters, connection = opened
    view = LetterView(letters, connection, settings)
    delivery = f"del_{1:026}"
    await put(
        settings,
        name,
        (headers(delivery), START_MS),
        (headers("del_other"), START_MS + 1),
        (headers(delivery, "gone", 410), START_MS + LATE_MS * 3),
        (headers("del_last"), START_MS + LATE_MS * 10),
    )
    log = MongoDeliveryLog(connection.deliveries)
    ended = {"status": DeliveryStatus.FAILED, "workspace_id": "acme", "reason": "gone", "response_body": b"no more"}
    await log.write([entry(1, attempt=6, at_ms=START_MS + LATE_MS * 3 - 2_000, response_code=410, **ended)])
    letter = await view.find(delivery, lambda _: None)
    assert (letter.partition, letter.offset, letter.value) == (0, 2, VALUE)
    shown = await view.show(letter)
    assert shown.delivery is not None
    assert [(each.attempt, each.response_body) for each in shown.delivery.attempts] == [(6, b"no more")]
    assert not shown.handled
    percents = []
    assert (await view.find("del_other", percents.append)).offset == 1
    assert percents[-1] == 100
    for where in (f"{name}-0-1", "0-1"):
        assert (await view.find(where, lambda _: None)).delivery_id == "del_other"
    await letters.handle([letter], "rpl_1")
    assert (await view.show(letter)).handled
    for where in ("del_none", f"{name}-0-17", f"{name}-7-1"):
        with pytest.raises(NotFoundError):
            await view.find(where, lambda _: None)
    for where in ("rubbish", "evt_1", "events-0-1", f"{name}-0-x", "1", "-1-2", "0-" + "9" * 40, ""):
        with pytest.raises(InvalidInputError):
            await view.find(where, lambda _: None)


async def test_a_source_record_is_read_again_to_say_what_is_wrong(topic, opened):
    """At which byte, by today's settings; whether it would be an event now; how much too large; or that it is gone."""
    settings, name = topic
    letters, connection = opened
    source = await make_topic(settings.kafka.bootstrap_servers, f"{name}-source", 1, max_message_bytes="3000000")
    values = [b'{"type":"user.created",,"data":{}}', VALUE, b'{"x":"' + b"x" * 2_000_000 + b'"}']
    async with foreign_producer(settings.kafka.bootstrap_servers, max_request_size=3_000_000) as producer:
        for value in values:
            await producer.send_and_wait(source, value, partition=0, timestamp_ms=START_MS)
    bad = [
        (list(bad_record_headers(Origin(source, 0, offset, at_ms), reason, "x")), START_MS, value)
        for offset, at_ms, reason, value in (
            (0, START_MS, "undecodable", values[0]),
            (1, START_MS, "no_workspace", values[1]),
            (2, -1, "too_large", None),
            (3, START_MS, "undecodable", b"{"),
            (4, START_MS, "too_large", None),
            (1, START_MS + 1, "undecodable", b"["),
        )
    ]
    await put(settings, name, *bad)
    view = LetterView(letters, connection, settings)
    found = [await view.find(f"0-{offset}", lambda _: None) for offset in range(len(bad))]
    records = [(await view.show(letter)).record for letter in found]
    assert (records[0].fault.byte, records[0].kept) == (23, True)
    assert (records[1].fault, records[1].value) == (None, VALUE)
    assert "951" in records[2].fault.message
    assert records[2].size_bytes == 2_000_008
    assert (records[3].kept, records[3].fault.byte) == (False, 1)
    assert (records[4].kept, records[4].fault, records[4].value) == (False, None, None)
    assert (records[5].kept, records[5].fault.byte) == (False, 1)


async def test_marks_of_a_topic_made_anew_win_over_older_ones(opened, unique_name):
    """Of two marks of one place the later one counts, in whatever order they were stored."""
    _, connection = opened
    name = unique_name("anew")
    spans = [SourceSpan(name, 0, 0, 10)]
    handled = MongoHandledLetters(connection.handled_letters, 30)
    await handled.mark(marks_of(name, [(0, 5, START_MS)]), "purge", START_MS + HOUR_MS)
    await handled.mark(marks_of(name, [(0, 5, START_MS - HOUR_MS)]), "purge", START_MS)
    found = await handled.load(spans)
    assert found.has(0, 5, START_MS)


async def test_what_was_sent_again_is_past_by_its_run_and_by_no_clock(topic, opened):
    """The letter of a delivery's latest run is listed though its stamp is older than the run; earlier runs' are not."""
    settings, name = topic
    letters, connection = opened
    run = new_run_id(START_MS + 60_000, bytes(10))
    again = [*headers(f"del_{1:026}"), ("dispatcher-replay-id", run.encode())]
    await put(
        settings, name, (headers(f"del_{1:026}"), START_MS), (again, START_MS + 1), (headers(f"del_{2:026}"), START_MS)
    )
    failed = {
        "workspace_id": "acme",
        "at_ms": START_MS,
        "status": DeliveryStatus.FAILED,
        "attempt": 6,
        "reason": "gone",
    }
    log = MongoDeliveryLog(connection.deliveries)
    await log.write([entry(1, run=run, **failed), entry(2, run=run, **failed)])
    for wanted in (EVERYTHING, DeadLetterFilter(since_ms=START_MS)):
        spans = await letters.snapshot(wanted)
        survey = await letters.survey(spans, wanted, lambda _: None, examples=3)
        assert [each.offset for each in survey.examples] == [1]


async def test_what_went_to_another_webhook_leaves_the_delivery_log_s_list(topic, opened):
    """A replay to another webhook marks the failures that its letters are of; a later run's failure stays."""
    settings, name = topic
    letters, connection = opened
    await put(settings, name, *((headers(f"del_{n:026}"), START_MS) for n in range(2)))
    failed = {
        "workspace_id": "acme",
        "at_ms": START_MS,
        "status": DeliveryStatus.FAILED,
        "attempt": 6,
        "reason": "gone",
    }
    await MongoDeliveryLog(connection.deliveries).write([entry(0, **failed), entry(1, run="rpl_1", **failed)])
    found, _ = await read(letters.reader, await letters.snapshot(EVERYTHING))
    chooser = LettersToReplay(letters)
    await chooser.handle(found, "rpl_2")
    assert await connection.deliveries.count_documents({"h": None}) == 2
    await chooser.handle(found, "rpl_2", moved=True)
    assert [row["_id"] async for row in connection.deliveries.find({"h.r": ""})] == [f"del_{0:026}"]
    spans = await letters.snapshot(EVERYTHING)
    chosen = await chooser.choose(spans, EVERYTHING, lambda _: None)
    await connection.handled_letters.delete_many({})
    assert chosen.is_handled(found[0])
    await chosen.look_again()
    assert not chosen.is_handled(found[0])
