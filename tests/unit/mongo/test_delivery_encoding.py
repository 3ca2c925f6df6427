"""Deliveries as documents: the bytes are BSON of the format that the reader knows."""

import struct

import bson
import pytest
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.datetime_ms import DatetimeMS
from bson.int64 import Int64
from hypothesis import given

from dispatcher.core.delivery_log import RANK, LogEntry, legible, merge
from dispatcher.mongo.delivery_documents import delivery_of, state_of
from dispatcher.mongo.delivery_encoding import encode_entry
from tests.unit.mongo.samples import entries_of_one_delivery, entry

_STORED = CodecOptions(datetime_conversion=DatetimeConversion.DATETIME_MS)


def as_dictionary(wanted: LogEntry):
    at, origin = DatetimeMS(wanted.at_ms), wanted.origin
    due = wanted.next_attempt_at_ms
    return {
        "_id": wanted.delivery_id,
        "w": wanted.workspace_id,
        "s": wanted.subscription_id,
        "e": wanted.event_id,
        "o": wanted.source,
        "c": at,
        "u": at,
        "g": {
            "ts": DatetimeMS(origin.timestamp_ms),
            "t": origin.topic,
            "p": origin.partition,
            "o": Int64(origin.offset),
            "y": wanted.event_type,
            "x": wanted.test,
        },
        "r": wanted.run,
        "m": wanted.attempt,
        "st": wanted.status.value,
        "a": [
            {
                "r": wanted.run,
                "k": RANK[wanted.status],
                "n": wanted.attempt,
                "at": at,
                "s": wanted.status.value,
                "d": wanted.duration_ms,
                "c": wanted.response_code,
                "e": legible(wanted.error[:256]),
                "x": wanted.reason,
                "nx": None if due is None else DatetimeMS(due),
                "b": wanted.response_body[:4096],
            }
        ],
    }


@given(entries_of_one_delivery())
def test_the_bytes_are_those_of_the_library(wanted):
    """An entry encoded by hand is byte for byte what the bson library makes of the documented fields."""
    assert encode_entry(wanted).raw == bson.encode(as_dictionary(wanted))


@given(entries_of_one_delivery())
def test_a_stored_entry_reads_as_its_merge(wanted):
    """What is read back is what the pure merge makes of the entry, and so is its state."""
    found = bson.decode(encode_entry(wanted).raw, _STORED)
    assert delivery_of(found) == merge(None, wanted)
    assert state_of(found) == merge(None, wanted).state


@pytest.mark.parametrize(
    "wanted",
    [entry(event_id="evt_\ud800"), entry(response_code=2**31), entry(at_ms=2**63)],
    ids=["text", "int", "date"],
)
def test_what_cannot_be_encoded_is_refused(wanted):
    """A lone surrogate or a number out of range raises, and never makes a wrong document."""
    with pytest.raises((UnicodeError, struct.error)):
        encode_entry(wanted)
