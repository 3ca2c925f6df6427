"""The consumer on a real broker."""

import asyncio
import datetime as dt
import time

import pytest
from aiokafka.admin import NewPartitions, RecordsToDelete
from aiokafka.structs import TopicPartition

from dispatcher.core.errors import MisconfiguredError
from dispatcher.kafka.consumer import KafkaConsumer
from dispatcher.ports import CommitPoint, UnreadableRecord
from tests.kafka_support import (
    Listener,
    admin_client,
    committed,
    foreign_producer,
    make_topic,
    member,
    publish,
    quick,
    until,
)

VALUES = [b"%d" % number for number in range(20)]


@pytest.fixture
def bootstrap(services):
    return services.kafka_bootstrap


@pytest.fixture
def settings(bootstrap):
    return quick(bootstrap)


@pytest.fixture
async def topic(bootstrap, unique_name):
    return await make_topic(bootstrap, unique_name("events"))


async def test_reads_what_was_published_and_resumes_where_it_committed(bootstrap, settings, topic, unique_name):
    """Records come in order with their parts, and a later member goes on after what was committed."""
    group = unique_name("g")
    async with foreign_producer(bootstrap) as producer:
        await producer.send_and_wait(topic, b"v", key=b"k", headers=[("ce_id", b"1")], timestamp_ms=1234)
    async with member(settings, group, topic) as first:
        await first.read_until(lambda: first.received, "the record")
        (record,) = first.received
        assert (record.topic, record.partition, record.offset, record.timestamp) == (topic, 0, 0, 1234)
        assert (record.key, record.value, record.headers) == (b"k", b"v", (("ce_id", b"1"),))
    await publish(bootstrap, topic, VALUES)
    async with member(settings, group, topic) as second:
        await second.read_until(lambda: len(second.received) == len(VALUES), "the rest")
        assert [record.value for record in second.received] == VALUES
        assert second.assignments == [{(topic, 0): CommitPoint(1)}]


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_every_codec_is_read(bootstrap, settings, topic, unique_name, codec):
    """Records of every compression are read."""
    await publish(bootstrap, topic, [value * 100 for value in VALUES], compression_type=codec)
    async with member(settings, unique_name("g"), topic) as listener:
        await listener.read_until(lambda: len(listener.received) == len(VALUES), "all")
        assert [record.value for record in listener.received] == [value * 100 for value in VALUES]


async def test_metadata_survives_commit_and_assignment(bootstrap, settings, topic, unique_name):
    """What is noted beside a commit is there at the next assignment."""
    group = unique_name("g")
    await publish(bootstrap, topic, VALUES)
    async with member(settings, group, topic, listener=Listener(commit=False)) as first:
        await until(lambda: first.partitions, "the assignment")
        assert await first.consumer.commit(1, {(topic, 0): CommitPoint(7, "9-12,15")})
    async with member(settings, group, topic) as second:
        await until(lambda: second.partitions, "the assignment")
        assert second.assignments == [{(topic, 0): CommitPoint(7, "9-12,15")}]


async def test_a_note_too_large_for_the_broker_does_not_stop_a_commit(bootstrap, settings, topic, unique_name):
    """A commit whose note the broker refuses stands without it."""
    group = unique_name("g")
    await publish(bootstrap, topic, VALUES)
    async with member(settings, group, topic, listener=Listener(commit=False)) as listener:
        await until(lambda: listener.partitions, "the assignment")
        assert await listener.consumer.commit(1, {(topic, 0): CommitPoint(7, "x" * 5000)})
    assert await committed(bootstrap, group) == {(topic, 0): (7, "")}


async def test_a_commit_for_an_ended_assignment_changes_nothing(bootstrap, settings, unique_name):
    """After the revocation, a commit under the old epoch is refused and the committed offset stays."""
    group = unique_name("g")
    topic = await make_topic(bootstrap, unique_name("events"), 2)
    await publish(bootstrap, topic, VALUES, 0)
    await publish(bootstrap, topic, VALUES, 1)
    async with member(settings, group, topic, listener=Listener(commit=False)) as first:
        await first.read_until(lambda: len(first.received) == 2 * len(VALUES), "all")
        assert await first.consumer.commit(1, {(topic, 0): CommitPoint(3), (topic, 1): CommitPoint(3)})
        async with member(settings, group, topic) as second:
            await first.read_until(lambda: len(first.epochs) == 2, "the second assignment")
            await until(lambda: second.partitions, "the other's assignment")
            assert not await first.consumer.commit(1, {(topic, 0): CommitPoint(9), (topic, 1): CommitPoint(9)})
            offsets = await committed(bootstrap, group)
            assert {offset for offset, _ in offsets.values()} == {3}
            with pytest.raises(ValueError, match="not assigned"):
                await first.consumer.commit(2, {next(iter(second.partitions)): CommitPoint(9)})


async def test_the_revocations_commit_is_effective_when_the_listener_returns(bootstrap, settings, unique_name):
    """What is committed while being revoked is what the next owner starts from; nothing is lost or read twice."""
    group = unique_name("g")
    topic = await make_topic(bootstrap, unique_name("events"), 4)
    for partition in range(4):
        await publish(bootstrap, topic, VALUES, partition)
    seen_at_return = []
    first = Listener()

    async def slow(epoch):
        await asyncio.sleep(0.5)  # a drain

    first.on_revoked = slow
    async with member(settings, group, topic, listener=first):
        await first.read_until(lambda: len(first.received) >= 30, "some")
        second = Listener()
        reading = asyncio.create_task(first.read_until(lambda: len(first.epochs) == 2, "the second assignment"))
        async with member(settings, group, topic, listener=second):
            await until(lambda: first.revoked_epochs == [1], "the revocation")
            seen_at_return.append(await committed(bootstrap, group))
            await reading
            total = 4 * len(VALUES)
            await second.read_until(lambda: second.partitions, "the assignment")
            deadline = time.monotonic() + 20
            while len(first.received) + len(second.received) < total and time.monotonic() < deadline:
                await first.read()
                await second.read()
            got = [(r.partition, r.offset) for r in (*first.received, *second.received)]
            assert sorted(got) == [(p, o) for p in range(4) for o in range(len(VALUES))]
            assert len(first.partitions) == len(second.partitions) == 2
    assert first.commit_answers[0] is True
    by_partition = seen_at_return[0]
    assert sum(offset for offset, _ in by_partition.values()) >= 30


async def test_gaps_do_not_stall_the_lag(bootstrap, settings, topic, unique_name):
    """Aborted records are never seen, and the committed offset passes over them and the transaction markers."""
    group = unique_name("g")
    async with foreign_producer(bootstrap, transactional_id=unique_name("tx")) as producer:
        for number in range(6):
            await producer.begin_transaction()
            for part in range(3):
                await producer.send_and_wait(topic, b"%d-%d" % (number, part), partition=0)
            await (producer.commit_transaction() if number % 2 == 0 else producer.abort_transaction())
    async with member(settings, group, topic) as listener:
        await listener.read_until(lambda: len(listener.received) == 9, "the committed ones")
        assert await listener.commit_done()
        end = 6 * 4
        deadline = time.monotonic() + 15
        while (await committed(bootstrap, group))[topic, 0][0] != end:
            assert time.monotonic() < deadline, await committed(bootstrap, group)
            await listener.read()
    assert [record.value[:1] for record in listener.received] == [b"0"] * 3 + [b"2"] * 3 + [b"4"] * 3
    assert (await committed(bootstrap, group))[topic, 0][0] == end


async def test_gaps_are_not_committed_over_unfinished_records(bootstrap, settings, topic, unique_name):
    """Trailing markers are committed only once everything before them is."""
    group = unique_name("g")
    async with foreign_producer(bootstrap, transactional_id=unique_name("tx")) as producer, producer.transaction():
        await producer.send_and_wait(topic, b"v", partition=0)
    listener = Listener(commit=False)
    async with member(settings, group, topic, listener=listener):
        await listener.read_until(lambda: listener.received, "the record")
        for _ in range(8):
            await listener.read(timeout_ms=200)
        assert await committed(bootstrap, group) == {}


async def test_a_gap_keeps_the_note(bootstrap, settings, topic, unique_name):
    """Committing over an aborted transaction leaves what was noted at the last commit."""
    group = unique_name("g")
    async with foreign_producer(bootstrap, transactional_id=unique_name("tx")) as producer:
        async with producer.transaction():
            await producer.send_and_wait(topic, b"v", partition=0)
        listener = Listener(commit=False)
        async with member(settings, group, topic, listener=listener):
            await listener.read_until(lambda: listener.received, "the record")
            assert await listener.consumer.commit(1, {(topic, 0): CommitPoint(1, "open")})
            await producer.begin_transaction()
            await producer.send_and_wait(topic, b"w", partition=0)
            await producer.abort_transaction()
            deadline = time.monotonic() + 15
            while (found := await committed(bootstrap, group)) != {(topic, 0): (4, "open")}:
                assert time.monotonic() < deadline, found
                await listener.read()


async def test_membership_lives_with_nothing_wanted(bootstrap, topic, unique_name):
    """A member that wants no partition for longer than max_poll_interval is not thrown out, and loses nothing."""
    settings = quick(bootstrap, max_poll_interval_ms=1500)
    await publish(bootstrap, topic, VALUES)
    async with member(settings, unique_name("g"), topic) as listener:
        await until(lambda: listener.partitions, "the assignment")
        end = time.monotonic() + 4
        while time.monotonic() < end:
            assert await listener.consumer.poll((), timeout_ms=300, max_records=10) == ()
        assert listener.epochs == [1]
        assert listener.revoked_epochs == []
        await listener.read_until(lambda: len(listener.received) == len(VALUES), "all")
        assert listener.epochs == [1]


async def test_a_partition_that_is_not_wanted_holds_up_no_other(bootstrap, settings, unique_name):
    """Only wanted partitions are returned, and a resting one goes on where it was."""
    topic = await make_topic(bootstrap, unique_name("events"), 2)
    await publish(bootstrap, topic, VALUES, 0)
    await publish(bootstrap, topic, VALUES, 1)
    async with member(settings, unique_name("g"), topic) as listener:
        await until(lambda: listener.partitions, "the assignment")
        got = []
        while len(got) < len(VALUES):
            got += await listener.consumer.poll([(topic, 1)], timeout_ms=500, max_records=7)
        assert {record.partition for record in got} == {1}
        assert await listener.consumer.poll([(topic, 1)], timeout_ms=100, max_records=7) == ()
        rest = []
        while len(rest) < len(VALUES):
            rest += await listener.consumer.poll([(topic, 0), ("another", 3)], timeout_ms=500, max_records=7)
        assert [record.value for record in rest] == VALUES


async def test_a_cancelled_poll_or_commit_leaves_the_consumer_whole(bootstrap, topic, unique_name):
    """Polls and commits cancelled at any point lose no record, and max_poll_interval still counts."""
    settings = quick(bootstrap)
    group = unique_name("g")
    async with member(settings, group, topic) as listener:
        await until(lambda: listener.partitions, "the assignment")
        publishing = asyncio.create_task(publish(bootstrap, topic, VALUES))
        for number in range(30):
            task = asyncio.create_task(listener.read(timeout_ms=1000, max_records=1))
            await asyncio.sleep(0.003 * (number % 5))
            task.cancel()
            await asyncio.wait({task})
        await publishing
        for number in range(10):
            task = asyncio.create_task(listener.commit_done())
            await asyncio.sleep(0.0005 * number)
            task.cancel()
            await asyncio.wait({task})
        await listener.read_until(lambda: len(listener.received) == len(VALUES), "all")
        assert [record.value for record in listener.received] == VALUES
        assert await listener.commit_done()
        assert listener.consumer._consumer._subscription.fetcher_idle_time < 60
        assert listener.consumer._consumer._subscription._fetch_count == 0
    assert (await committed(bootstrap, group))[topic, 0] == (len(VALUES), "")


async def test_header_names_that_are_no_utf8_and_null_values_are_read(bootstrap, settings, topic, unique_name):
    """A header name in another encoding, or a null header, stops neither its record nor the partition."""

    class Latin(str):
        __slots__ = ()

        def encode(self, *_):
            return b"\xe4\xff"

    async with foreign_producer(bootstrap) as producer:
        await producer.send_and_wait(topic, b"before", partition=0)
        await _send_with_python_builder(producer, topic, [(Latin("x"), b"1"), ("ce_id", b"2")])
        await producer.send_and_wait(topic, b"after", partition=0, headers=[("empty", None), ("ce_id", b"3")])
    async with member(settings, unique_name("g"), topic) as listener:
        await listener.read_until(lambda: len(listener.received) == 3, "all")
        assert [record.value for record in listener.received] == [b"before", b"odd", b"after"]
        assert listener.received[1].headers[1] == ("ce_id", b"2")
        assert listener.received[2].headers == (("ce_id", b"3"),)


async def _send_with_python_builder(producer, topic, headers):
    from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy  # noqa: PLC0415

    batch = producer.create_batch()
    batch._builder = _DefaultRecordBatchBuilderPy(2, 0, 0, -1, -1, 0, 100_000)
    batch.append(timestamp=1, key=b"k", value=b"odd", headers=headers)
    batch.close()
    await (await producer.send_batch(batch, topic, partition=0))


async def test_a_group_starts_at_the_end_once(bootstrap, settings, topic, unique_name):
    """With `latest` a new group begins at the end, commits that at once, and never does so again."""
    group = unique_name("g")
    await publish(bootstrap, topic, VALUES)
    async with member(settings, group, topic, listener=Listener(commit=False), start_from="latest") as listener:
        assert await committed(bootstrap, group) == {(topic, 0): (20, "")}
        await until(lambda: listener.partitions, "the assignment")
    await publish(bootstrap, topic, [b"while nobody was there"])
    async with member(settings, group, topic, start_from="latest") as listener:
        await listener.read_until(lambda: listener.received, "the record")
        assert listener.received[0].offset == 20


async def test_later_partitions_start_at_their_beginning(bootstrap, settings, topic, unique_name):
    """A partition that is added after the first start loses none of its records."""
    group = unique_name("g")
    async with member(settings, group, topic, start_from="latest"):
        pass
    async with admin_client(bootstrap) as admin:
        await admin.create_partitions({topic: NewPartitions(2)})
    await asyncio.sleep(0)
    await publish(bootstrap, topic, VALUES, 1)
    async with member(settings, group, topic, start_from="latest") as listener:
        await listener.read_until(lambda: len(listener.received) == len(VALUES), "all")
        assert listener.assignments[0] == {(topic, 0): CommitPoint(0), (topic, 1): CommitPoint(0)}


async def test_a_group_starts_at_a_time(bootstrap, settings, unique_name):
    """With a time, each partition begins at its first record that is as young, or at its end."""
    topic = await make_topic(bootstrap, unique_name("events"), 2)
    group = unique_name("g")
    async with foreign_producer(bootstrap) as producer:
        for number in range(5):
            await producer.send_and_wait(topic, b"v", partition=0, timestamp_ms=1_000_000 + number * 1000)
        await producer.send_and_wait(topic, b"v", partition=1, timestamp_ms=1_000_000)
    start = dt.datetime.fromtimestamp(1003, tz=dt.UTC)
    async with member(settings, group, topic, start_from=start, listener=Listener(commit=False)) as listener:
        await until(lambda: listener.partitions, "the assignment")
    assert listener.assignments == [{(topic, 0): CommitPoint(3), (topic, 1): CommitPoint(1)}]


async def test_members_that_start_together_agree_on_the_start(bootstrap, settings, unique_name):
    """Of several members of a new group, none takes the others' partitions for later ones."""
    topic = await make_topic(bootstrap, unique_name("events"), 4)
    for partition in range(4):
        await publish(bootstrap, topic, VALUES, partition)
    group = unique_name("g")
    listeners = [Listener(commit=False) for _ in range(3)]
    consumers = []
    for listener in listeners:
        listener.consumer = KafkaConsumer(settings, group=group, topics=[topic], start_from="latest")
        consumers.append(listener.consumer)
    await asyncio.gather(*(c.start(each) for c, each in zip(consumers, listeners, strict=True)))
    try:
        deadline = time.monotonic() + 20
        while sum(len(each.partitions) for each in listeners) != 4 or not all(each.partitions for each in listeners):
            assert time.monotonic() < deadline
            await asyncio.gather(*(each.read() for each in listeners))
        assert all(each.received == [] for each in listeners)
        for each in listeners:
            assert {point.offset for point in each.assignments[-1].values()} == {20}
    finally:
        await asyncio.gather(*(consumer.stop() for consumer in consumers))


async def test_a_pattern_takes_in_new_topics_and_never_own_ones(bootstrap, settings, unique_name, monkeypatch):
    """Topics that appear under a pattern are read from their beginning; own topics are left out."""
    monkeypatch.setattr("dispatcher.kafka.client.METADATA_MAX_AGE_MS", 500)
    prefix = unique_name("p")
    group = unique_name("g")
    first = await make_topic(bootstrap, f"{prefix}-a")
    await make_topic(bootstrap, f"{prefix}-own.retry.1m")
    arguments = {"pattern": f"^{prefix}-", "excluded_prefix": f"{prefix}-own", "start_from": "latest"}
    async with member(settings, group, listener=Listener(), **arguments) as listener:
        await listener.read_until(lambda: (first, 0) in listener.partitions, "the first topic")
        second = await make_topic(bootstrap, f"{prefix}-b")
        await publish(bootstrap, second, VALUES)
        await publish(bootstrap, first, VALUES)
        await listener.read_until(lambda: len(listener.received) == 2 * len(VALUES), "both topics")
        assert set(listener.partitions) == {(first, 0), (second, 0)}
        assert all(listener.commit_answers)


async def test_a_missing_topic_is_refused_and_not_made(bootstrap, settings, unique_name, monkeypatch):
    """A source topic that doesn't exist is the operator's to make."""
    monkeypatch.setattr("dispatcher.kafka.consumer.MISSING_TOPIC_GRACE_SECONDS", 0.5)
    name = unique_name("missing")
    consumer = KafkaConsumer(settings, group=unique_name("g"), topics=[name])
    with pytest.raises(MisconfiguredError, match=name):
        await consumer.start(Listener())
    async with admin_client(bootstrap) as admin:
        assert name not in await admin.list_topics()


async def test_a_record_larger_than_a_fetch_comes_alone(bootstrap, settings, unique_name):
    """The fetch limit never stops a record."""
    topic = await make_topic(bootstrap, unique_name("events"), max_message_bytes="3000000")
    async with foreign_producer(bootstrap, max_request_size=3_000_000) as producer:
        for value in (b"a", b"x" * 2_000_000, b"b"):
            await producer.send_and_wait(topic, value, partition=0)
    async with member(settings, unique_name("g"), topic, max_partition_fetch_bytes=65_536) as listener:
        await listener.read_until(lambda: len(listener.received) == 3, "all")
        assert [len(record.value) for record in listener.received] == [1, 2_000_000, 1]
        assert not any(isinstance(record, UnreadableRecord) for record in listener.received)


async def test_expired_records_are_stepped_over(bootstrap, settings, topic, unique_name):
    """A committed offset that is no more on the topic becomes the topic's beginning."""
    group = unique_name("g")
    await publish(bootstrap, topic, VALUES)
    async with member(settings, group, topic, listener=Listener(commit=False)) as listener:
        await until(lambda: listener.partitions, "the assignment")
        assert await listener.consumer.commit(1, {(topic, 0): CommitPoint(2)})
    async with admin_client(bootstrap) as admin:
        await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=15)})
    async with member(settings, group, topic) as listener:
        await listener.read_until(lambda: len(listener.received) == 5, "the rest")
        assert listener.assignments == [{(topic, 0): CommitPoint(15)}]


async def test_a_listener_that_raises_is_remembered(settings, topic, unique_name):
    """What aiokafka would swallow ends up as the consumer's failure."""

    class Broken(Listener):
        async def revoked(self, epoch):
            raise ZeroDivisionError

    listener = Broken()
    listener.consumer = KafkaConsumer(settings, group=unique_name("g"), topics=[topic])
    await listener.consumer.start(listener)
    await until(lambda: listener.partitions, "the assignment")
    assert listener.consumer.failure is None
    await listener.consumer.stop()
    assert isinstance(listener.consumer.failure, ZeroDivisionError)


async def test_stop_tells_the_listener_and_leaves_the_group(bootstrap, settings, topic, unique_name):
    """Stopping revokes, commits and leaves at once, so that another member needs not wait for the session to end."""
    group = unique_name("g")
    await publish(bootstrap, topic, VALUES)
    listener = Listener()
    async with member(settings, group, topic, listener=listener):
        await listener.read_until(lambda: len(listener.received) == len(VALUES), "all")
    assert listener.revoked_epochs == [1]
    assert listener.commit_answers == [True]
    async with admin_client(bootstrap) as admin:
        response = (await admin.describe_consumer_groups([group]))[0]
    assert response.groups[0][2] == "Empty"


async def test_a_partition_that_bounces_goes_on(bootstrap, settings, unique_name):
    """Partitions that go to another member and come back are read on from what was committed, none stays still."""
    group = unique_name("g")
    topic = await make_topic(bootstrap, unique_name("events"), 2)
    await publish(bootstrap, topic, VALUES, 0)
    async with member(settings, group, topic) as first:
        await first.read_until(lambda: len(first.received) == len(VALUES), "all of the first partition")
        for _ in range(2):
            before = len(first.epochs)
            joining = asyncio.create_task(first.read_until(lambda: len(first.epochs) > before, "its share"))  # noqa: B023
            async with member(settings, group, topic) as second:
                await second.read_until(lambda: second.partitions, "its share")
                await joining
            await first.read_until(lambda: len(first.partitions) == 2, "everything again")
        await publish(bootstrap, topic, VALUES, 1)
        await publish(bootstrap, topic, VALUES, 0)
        await first.read_until(lambda: len(first.received) == 3 * len(VALUES), "the rest")
        assert first.consumer.failure is None
    got = [(record.partition, record.offset) for record in first.received]
    assert sorted(got) == [(0, n) for n in range(40)] + [(1, n) for n in range(20)]


async def test_a_topic_made_anew_is_read_from_its_beginning(bootstrap, settings, topic, unique_name, monkeypatch):
    """When offsets go back, the member takes the partition over anew instead of going on with old positions."""
    monkeypatch.setattr("dispatcher.kafka.client.METADATA_MAX_AGE_MS", 500)
    group = unique_name("g")
    await publish(bootstrap, topic, VALUES)
    async with member(settings, group, topic) as listener:
        await listener.read_until(lambda: len(listener.received) == len(VALUES), "the old ones")
        assert await listener.commit_done()
        async with admin_client(bootstrap) as admin:
            await admin.delete_topics([topic])
        await make_topic(bootstrap, topic)
        await publish(bootstrap, topic, [b"new"])
        await listener.read_until(lambda: listener.received[-1].value == b"new", "the new one")
        assert listener.assignments[-1] == {(topic, 0): CommitPoint(0)}
        assert len(listener.received) == len(VALUES) + 1


async def test_offsets_that_go_back_make_the_member_begin_anew(settings, bootstrap, topic, unique_name):
    """Where aiokafka goes on at lower offsets by itself, nothing is handed out before a new assignment."""
    group = unique_name("g")
    await publish(bootstrap, topic, VALUES)
    async with member(settings, group, topic) as listener:
        await listener.read_until(lambda: len(listener.received) == len(VALUES), "all")
        assert await listener.commit_done()
        listener.consumer._consumer.seek(TopicPartition(topic, 0), 3)
        await listener.read_until(lambda: len(listener.epochs) == 2, "the second assignment")
        assert len(listener.received) == len(VALUES)
        assert listener.assignments[-1] == {(topic, 0): CommitPoint(len(VALUES))}


async def test_a_poll_during_a_rebalance_ends_and_brings_nothing(settings, bootstrap, topic, unique_name):
    """While the listener hands over, polls keep their time limit and return no record of the old assignment."""
    await publish(bootstrap, topic, VALUES)
    listener = Listener()
    seen = []

    async def poll(_epoch):
        task = asyncio.create_task(listener.consumer.poll([(topic, 0)], timeout_ms=300, max_records=100))
        done, _ = await asyncio.wait({task}, timeout=10)
        seen.extend(task.result() if done else ["a poll that doesn't end"])
        seen.append("polled")
        task.cancel()

    listener.on_revoked = poll
    async with member(settings, unique_name("g"), topic, listener=listener):
        await until(lambda: listener.partitions, "the assignment")
        listener.consumer._consumer._coordinator.request_rejoin()
        await until(lambda: len(listener.epochs) == 2, "the second assignment")
        assert seen == ["polled"]
        await listener.read_until(lambda: len(listener.received) == len(VALUES), "all")


async def test_a_long_drain_at_the_end_keeps_the_member(bootstrap, topic, unique_name):
    """A listener that takes longer to finish than max_poll_interval is still a member, and its commit stands."""
    settings = quick(bootstrap, max_poll_interval_ms=1500)
    group = unique_name("g")
    await publish(bootstrap, topic, VALUES)
    first = Listener()

    async def slow(_epoch):
        await asyncio.sleep(3.5)

    first.on_revoked = slow
    async with member(settings, group, topic, listener=first):
        await first.read_until(lambda: len(first.received) == len(VALUES), "all")
    assert first.commit_answers == [True]
    assert await committed(bootstrap, group) == {(topic, 0): (len(VALUES), "")}


async def test_a_member_that_was_thrown_out_commits_nothing(settings, bootstrap, topic, unique_name):
    """Once the group is empty, brokers take commits from outside it; a former member's is not one of those."""
    group = unique_name("g")
    await publish(bootstrap, topic, VALUES)
    async with member(settings, group, topic) as listener:
        await listener.read_until(lambda: len(listener.received) == len(VALUES), "all")
        await listener.consumer._consumer._coordinator._maybe_leave_group()
        await until(lambda: listener.revoked_epochs == [1], "the revocation")
        assert listener.commit_answers == [False]
        assert await committed(bootstrap, group) == {}
