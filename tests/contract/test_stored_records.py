"""What is on topics and in MongoDB outlives the version that wrote it: upgrades and rollbacks, one worker at a time.

`records/v…` hold what a released version wrote, byte for byte, and are never written again. A new set is added with
`DISPATCHER_RECORD_AS=v0.2 python -m pytest tests/contract/test_stored_records.py` when a format has grown.
"""

import json
import os
from pathlib import Path

import pytest
from bson import json_util

from dispatcher.core.dead_letters import UNREADABLE, read_letter
from dispatcher.core.delivery_log import DeliveryStatus
from dispatcher.mongo import MongoDeliveryLog
from dispatcher.mongo.client import _TTL_INDEX
from dispatcher.mongo.delivery_documents import delivery_of
from dispatcher.mongo.endpoint_health import MongoEndpointHealth
from dispatcher.mongo.jobs import MongoReplays
from dispatcher.mongo.webhook_documents import document_of, webhook_of
from dispatcher.pipeline.work import PartitionState
from dispatcher.ports import CommitPoint
from tests.contract.records import v0_1_reader as old
from tests.contract.records.writing import (
    NAMES,
    START_MS,
    WEBHOOK,
    WORKSPACE,
    bytes_of,
    read_record,
    written_documents,
    written_notes,
    written_records,
)
from tests.mongo_support import open_database
from tests.unit.pipeline.world import World, eventually, subscription

FOLDER = Path(__file__).parent / "records"
SETS = sorted(path.name for path in FOLDER.glob("v*") if path.is_dir())


def stored(version, name):
    return json_util.loads((FOLDER / version / f"{name}.json").read_text(), json_options=READ)


READ = json_util.JSONOptions(
    json_mode=json_util.JSONMode.CANONICAL, datetime_conversion=json_util.DatetimeConversion.DATETIME_MS
)


def kafka_records(version):
    return stored(version, "records")


def headers_of(record, *more):
    return (*((name, bytes_of(value)) for name, value in record["headers"]), *more)


@pytest.fixture(scope="module")
async def connection(services, unique_name):
    async with open_database(services.mongo_uri, unique_name("stored")) as connection:
        # What is stored here is old: it would be gone within a minute.
        await connection.deliveries.drop_index(_TTL_INDEX)
        yield connection


@pytest.fixture
async def empty(connection):
    for name in ("webhooks", "deliveries", "replays", "endpoint_health"):
        await getattr(connection, name).delete_many({})
    return connection


@pytest.mark.skipif("DISPATCHER_RECORD_AS" not in os.environ, reason="a set is recorded only where that is asked for")
async def test_record_a_set(empty):
    """What today's code writes is recorded as a set of its own; one that exists is never written again."""
    folder = FOLDER / os.environ["DISPATCHER_RECORD_AS"]
    folder.mkdir()
    sets = {
        "records": await written_records(),
        "notes": written_notes(),
        "documents": await written_documents(empty),
    }
    for name, content in sets.items():
        (folder / f"{name}.json").write_text(json_util.dumps(content, json_options=READ, indent=1) + "\n")


@pytest.mark.parametrize("version", SETS)
@pytest.mark.parametrize("more", [(), (("dispatcher-of-a-later-version", b"\xff"), ("x-unknown", b"1"))])
def test_records_of_every_version_are_read_as_they_were(version, more):
    """Today's worker reads from a former version's record what that version meant, and passes over unknown headers."""
    for record in kafka_records(version):
        now = read_record(record["topic"], headers_of(record, *more))
        assert now is None or {name: now[name] for name in record["reads"]} == record["reads"], record["kind"]


@pytest.mark.parametrize("version", SETS)
def test_dead_letters_of_every_version_are_shown(version):
    """An operator's list shows a former version's letters with their reasons, none as unreadable."""
    letters = [record for record in kafka_records(version) if record["topic"] == NAMES.dead_letter]
    for number, record in enumerate(letters):
        key, value = bytes_of(record["key"]), bytes_of(record["value"])
        letter = read_letter(0, number, START_MS, key, value, headers_of(record))
        assert letter.reason != UNREADABLE
        assert (letter.reason, letter.problem) == (record["reads"]["reason"], "")
    assert len(letters) >= 5


@pytest.mark.parametrize("version", SETS)
async def test_a_worker_of_today_goes_on_with_records_of_every_version(version):
    """Each delivery that waited on a topic gets its next attempt, with its id and number, and comes to its end."""
    world = World(*(tier.name for tier in NAMES.tiers))
    world.index.put(subscription(WEBHOOK, workspace_id=WORKSPACE))
    own = [record for record in kafka_records(version) if record["topic"] not in (NAMES.dead_letter, NAMES.outcomes)]
    for topic in sorted({record["topic"] for record in own}):
        world.add_own(topic.removeprefix("webhooks."))
    for record in own:
        key, value = bytes_of(record["key"]), bytes_of(record["value"])
        world.broker.append(record["topic"], value, key=key, headers=headers_of(record))
    await world.start()
    try:
        await eventually(world.caught_up)
        expected = {(record["reads"]["delivery_id"], record["reads"]["attempt"] + 1) for record in own}
        assert {(sent.delivery_id, sent.attempt) for sent in world.sender.sent} == expected
        assert not world.faults
    finally:
        await world.stop()
    runs = {record["reads"]["delivery_id"]: record["reads"]["replay_id"] for record in own}
    assert all(world.log.state(each).status is DeliveryStatus.DELIVERED for each in runs)


@pytest.mark.parametrize("version", SETS)
def test_notes_of_every_version_say_the_same_today(version):
    """A partition that an old worker left open is looked up, as far as it says; one left clean isn't."""
    notes = stored(version, "notes")
    assert set(notes) == set(written_notes())
    for meaning, note in notes.items():
        state = PartitionState("events", 0, CommitPoint(10, note), 100)
        assert state.lookups_left == (0 if meaning == "left clean" else 100)
        assert state.noted == (15 if meaning == "worked on up to 15" else 10)


@pytest.mark.parametrize("note", ["open 12 more", "open later", "later-version 12", "", "open -3"])
def test_a_later_versions_note_stops_nobody(note):
    """What this version can't make out beside a commit is no fault: at most, more is looked up."""
    assert PartitionState("events", 0, CommitPoint(10, note), 100).noted >= 10


@pytest.mark.parametrize("version", SETS)
@pytest.mark.parametrize("more", [{}, {"of_a_later_version": {"a": 1}}])
async def test_documents_of_every_version_are_read_as_they_were(empty, version, more):
    """Webhooks, logged deliveries, replay jobs and failing endpoints are read with unknown fields and without."""
    documents = stored(version, "documents")
    for name, some in documents.items():
        await getattr(empty, name).insert_many([each | more for each in some])
    for each in documents["webhooks"]:
        read = webhook_of(each | more)
        assert (read.subscription.id, read.url, read.created_at_ms) == (
            each["_id"],
            each["url"],
            int(each["created_at"]),
        )
        written = document_of(read)
        assert {field: written[field] for field in each} == each
    log = MongoDeliveryLog(empty.deliveries)
    states = await log.states([each["_id"] for each in documents["deliveries"]])
    for each in documents["deliveries"]:
        assert (states[each["_id"]].attempt, states[each["_id"]].status) == (each["m"], each["st"])
        assert [step.number for step in delivery_of(each | more).steps] == [step["n"] for step in each["a"]]
    for each in documents["replays"]:
        job = await MongoReplays(empty.replays).find(each["_id"])
        assert (job.counts.produced, list(job.in_hand)) == (each["produced"], each["in_hand"])
    (failing,) = await MongoEndpointHealth(empty.endpoint_health, empty.deliveries).load()
    assert (failing.webhook_id, failing.failing_since_ms) == (WEBHOOK, START_MS)


async def test_an_old_worker_reads_the_records_of_today():
    """Whoever knows only version 0.1 reads from today's records what today's code does, key by key."""
    for record in await written_records():
        headers = list(headers_of(record))
        if record["topic"] == NAMES.outcomes:
            assert old.read_outcome(bytes_of(record["value"]))["webhook_id"] == WEBHOOK
        else:
            read = old.read_dead_letter if record["topic"] == NAMES.dead_letter else old.read_delivery
            found = read(headers)
            assert found == {name: record["reads"][name] for name in found}, record["kind"]


def test_an_old_worker_reads_the_notes_of_today():
    """A rollback in the middle of the work looks up what the new worker may have done."""
    found = {meaning: old.read_note(note) for meaning, note in written_notes().items()}
    assert found == {"taken over": (True, None), "worked on up to 15": (True, 15), "left clean": (False, None)}


async def test_an_old_worker_reads_the_documents_of_today(empty):
    """Today's documents have what version 0.1 needs, in its order and with values that it knows."""
    documents = await written_documents(empty)
    webhook = next(old.read_webhook(each) for each in documents["webhooks"] if each["_id"] == WEBHOOK)
    assert (webhook["max_attempts"], webhook["headers"], webhook["method"]) == (3, [("X-Team", "red")], "PUT")
    logged = [old.read_logged(each) for each in documents["deliveries"]]
    assert {each["state"][2] for each in logged} == {"retrying", "delivered", "failed", "skipped"}
    jobs = {each["id"]: each for each in map(old.read_job, documents["replays"])}
    assert len(jobs) == 3
    assert jobs["rpl_02"]["spans"] == [("events", 0, 17, 90)]
    assert [old.read_failing(each)["webhook_id"] for each in documents["endpoint_health"]] == [WEBHOOK]


@pytest.mark.parametrize("version", SETS)
async def test_the_old_reader_reads_its_own_sets(version):
    """The frozen reader is what it claims to be: it reads everything that its version recorded."""
    for record in kafka_records(version):
        if record["topic"] == NAMES.outcomes:
            old.read_outcome(bytes_of(record["value"]))
        else:
            found = old.read_dead_letter(list(headers_of(record)))
            assert found == {name: record["reads"][name] for name in found}
    for each in stored(version, "documents")["deliveries"]:
        old.read_logged(each)


def test_every_kind_is_in_the_first_set():
    """The first set holds every topic's records and every collection's documents that a worker goes on with."""
    topics = {record["topic"] for record in kafka_records("v0.1")}
    assert topics == {*(NAMES.retry(tier) for tier in NAMES.tiers[:2]), NAMES.overflow, NAMES.replay,
                      NAMES.dead_letter, NAMES.outcomes}  # fmt: skip
    assert json.loads((FOLDER / "v0.1" / "documents.json").read_text()).keys() == {
        "webhooks", "deliveries", "replays", "endpoint_health"
    }  # fmt: skip
