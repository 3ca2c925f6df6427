"""Reading fetched bytes of the dead-letter topic; the fetches are stand-ins."""

import asyncio
import struct
from collections import deque

import pytest

from dispatcher.core.dead_letters import UNREADABLE
from dispatcher.core.errors import UnavailableError
from dispatcher.core.model import Origin
from dispatcher.core.records import DeliveryRecord, encode_headers
from dispatcher.core.reruns import SourceSpan
from dispatcher.kafka import dead_letters
from dispatcher.kafka.dead_letters import DeadLetterReader
from dispatcher.kafka.fetching import Fetched
from dispatcher.settings import KafkaSettings, TopicSettings
from tests.unit.kafka.test_kafka_batches import CRC_AT, batch, control, mended

RECORD = DeliveryRecord("del_1", "wh_1", "acme", 6, 0, 5, None, Origin("events", 0, 1, 2), "gone", 410, "e")
HEADERS = encode_headers(RECORD, ())


def letters(base, count, **options):
    return bytes(batch(base, [b'{"type":"user.created"}'] * count, headers=HEADERS, **options))


@pytest.fixture
async def fed():
    """Give a reader, and what its fetches bring: by partition, answers one after the other."""
    reader = DeadLetterReader(KafkaSettings("nowhere:1"), TopicSettings())
    answers, asked = {}, []

    async def bytes_from(topic, partition, offset):
        asked.append((partition, offset))
        await asyncio.sleep(0)
        return answers[partition].popleft()

    reader._reader.bytes_from = bytes_from

    async def read(*spans, fetches, **options):
        answers.update({partition: deque(given) for partition, given in fetches.items()})
        found = [each async for each in reader.read([SourceSpan("dead", *span) for span in spans], **options)]
        return found, asked

    return read


def places(batches):
    return [(letter.partition, letter.offset) for each in batches for letter in each.letters]


async def test_only_the_span_is_yielded_and_positions_pass_gaps(fed):
    """Letters before and behind the span are left out, and what is counted as done ends with the span."""
    fetches = {0: [Fetched(letters(0, 4) + letters(10, 4))]}
    found, asked = await fed((0, 2, 12), fetches=fetches)
    assert places(found) == [(0, 2), (0, 3), (0, 10), (0, 11)]
    assert [(each.position, each.done) for each in found] == [(4, 2), (12, 10)]
    assert asked == [(0, 2)]


async def test_the_next_fetch_begins_where_the_bytes_ended(fed):
    """A batch that was cut off is asked for again, and nothing twice."""
    whole, cut = letters(0, 3), letters(3, 3)
    fetches = {0: [Fetched(whole + cut[:-1]), Fetched(cut)]}
    found, asked = await fed((0, 0, 6), fetches=fetches)
    assert places(found) == [(0, offset) for offset in range(6)]
    assert asked == [(0, 0), (0, 3)]


async def test_as_many_partitions_as_allowed_are_fetched_at_once(fed):
    """With one at a time the spans come one after the other; empty ones ask nothing."""
    fetches = {number: [Fetched(letters(0, 1)), Fetched(letters(1, 1))] for number in range(3)}
    found, asked = await fed((0, 0, 2), (1, 5, 5), (2, 0, 2), fetches=fetches, at_once=1)
    assert asked == [(0, 0), (0, 1), (2, 0), (2, 1)]
    assert places(found) == [(0, 0), (0, 1), (2, 0), (2, 1)]


@pytest.mark.parametrize("codec", [1, 4])
async def test_a_corrupt_batch_costs_itself(fed, codec):
    """Its letters are told of as unreadable, its neighbours are read."""
    bad = bytearray(letters(1, 2, codec=codec))
    bad[CRC_AT] ^= 1
    found, _ = await fed((0, 0, 4), fetches={0: [Fetched(letters(0, 1) + bytes(bad) + letters(3, 1))]})
    told = [(letter.offset, letter.reason) for each in found for letter in each.letters]
    assert told == [(0, "gone"), (1, UNREADABLE), (2, UNREADABLE), (3, "gone")]
    assert "corrupt" in found[0].letters[1].problem


async def test_a_batch_that_cannot_be_decoded_costs_itself(fed):
    """A sound checksum around bytes that can't be decompressed: likewise, batch by batch."""
    bad = bytearray(letters(1, 2, codec=4))
    bad[61:65] = b"none"
    found, _ = await fed((0, 0, 4), fetches={0: [Fetched(letters(0, 1) + bytes(mended(bad)) + letters(3, 1))]})
    told = [(letter.offset, letter.reason) for each in found for letter in each.letters]
    assert told == [(0, "gone"), (1, UNREADABLE), (2, UNREADABLE), (3, "gone")]


async def test_a_header_name_that_is_no_utf8_costs_nothing(fed):
    """A record that anybody put there with a strange header is read with the others of its batch."""
    data = bytearray(batch(0, [b"{}", b"{}"], headers=[*HEADERS, ("zzzz", b"x")]))
    at = data.index(b"zzzz")
    data[at : at + 4] = b"\xff\xfe\xfd\xfc"
    found, _ = await fed((0, 0, 2), fetches={0: [Fetched(bytes(mended(data)))]})
    assert [letter.reason for letter in found[0].letters] == ["gone", "gone"]


async def test_aborted_letters_are_left_out(fed):
    """What a transaction took back is passed over, with its marker."""
    data = letters(0, 1) + bytes(batch(1, [b"{}"], transactional=1, producer_id=7, headers=HEADERS))
    data += bytes(control(2, 7, 0)) + letters(3, 1)
    found, _ = await fed((0, 0, 4), fetches={0: [Fetched(data, [(7, 1)])]})
    assert places(found) == [(0, 0), (0, 3)]
    assert found[-1].done == 4


async def test_what_expired_is_passed_over(fed, monkeypatch):
    """A position that is no more goes on where the topic begins now, or ends the span."""

    async def first_kept(_kafka, span):
        return {0: 5, 1: span.end}[span.partition]

    monkeypatch.setattr(dead_letters, "first_kept", first_kept)
    found, _ = await fed((0, 0, 6), (1, 0, 3), fetches={0: [None, Fetched(letters(5, 1))], 1: [None]})
    assert places(found) == [(0, 5)]
    assert found[-1].done == 9


async def test_silence_is_waited_out_and_then_told(fed, monkeypatch):
    """Where Kafka brings nothing for a moment it is asked again; where it never does, that is an error, not an end."""
    monkeypatch.setattr(dead_letters, "PAUSE_SECONDS", 0.0)
    found, asked = await fed((0, 0, 1), fetches={0: [Fetched(), Fetched(), Fetched(letters(0, 1))]})
    assert (places(found), len(asked)) == ([(0, 0)], 3)
    monkeypatch.setattr(dead_letters, "PATIENCE_SECONDS", -1.0)
    with pytest.raises(UnavailableError, match="brings nothing of dead-0 at 0"):
        await fed((0, 0, 1), fetches={0: [Fetched()]})


async def test_bytes_from_before_the_position_are_stepped_over(fed):
    """A broker that brings nothing but what was read before is not asked for the same offset for ever."""
    found, asked = await fed((0, 2, 4), fetches={0: [Fetched(letters(0, 2)), Fetched(letters(3, 1))]})
    assert asked == [(0, 2), (0, 3)]
    assert places(found) == [(0, 2), (0, 3)]


async def test_an_absurd_length_is_no_batch(fed):
    """A batch that claims to end before it began is stepped over, as the slow way does."""
    data = bytearray(letters(0, 1))
    struct.pack_into(">i", data, 8, 3)
    found, _ = await fed((0, 0, 2), fetches={0: [Fetched(bytes(data)), Fetched(letters(1, 1))]})
    assert [(letter.offset, letter.reason) for each in found for letter in each.letters] == [
        (0, UNREADABLE),
        (1, "gone"),
    ]
