"""Reading fetched bytes batch by batch."""

import struct

import pytest
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy as Builder
from aiokafka.record.util import calc_crc32c
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.kafka.batches import read_batches, without_nulls
from dispatcher.ports import UnreadableRecord

CRC_AT, ATTRIBUTES_AT = 17, 21


def batch(base, values, *, codec=0, transactional=0, producer_id=-1, headers=()):
    """Write a batch as a broker stores it."""
    builder = Builder(2, codec, transactional, producer_id, 0, 0, 10_000_000)
    for delta, value in enumerate(values):
        builder.append(delta, 1000 + delta, b"k", value, list(headers))
    data = bytearray(builder.build())
    struct.pack_into(">q", data, 0, base)
    return data


def mended(data):
    """Make a batch's checksum right."""
    struct.pack_into(">I", data, CRC_AT, calc_crc32c(bytes(data[ATTRIBUTES_AT:])))
    return data


def control(base, producer_id, kind):
    """Write a transaction marker: 0 aborts, 1 commits."""
    builder = Builder(2, 0, 1, producer_id, 0, 0, 1000)
    builder.append(0, 1, struct.pack(">hh", 0, kind), b"\x00" * 6, [])
    data = bytearray(builder.build())
    struct.pack_into(">q", data, 0, base)
    data[ATTRIBUTES_AT + 1] |= 0x20
    return mended(data)


def offsets(found, *, readable=True):
    return [e.offset for e in found.entries if isinstance(e, UnreadableRecord) is not readable]


def read(data, position=0, aborted=()):
    return read_batches("t", 1, bytes(data), aborted, position)


@pytest.mark.parametrize("codec", [0, 1, 2, 3, 4])
def test_records_come_with_their_parts(codec):
    """Key, value, headers, offset and time are read, of every codec, from the offset that was asked for."""
    found = read(batch(10, [b"a" * 50, b"b" * 50, b"c" * 50], codec=codec, headers=[("ce_id", b"1")]), 11)
    assert [(r.offset, r.value, r.timestamp) for r in found.entries] == [(11, b"b" * 50, 1001), (12, b"c" * 50, 1002)]
    assert found.entries[0].headers == (("ce_id", b"1"),)
    assert (found.entries[0].topic, found.entries[0].partition, found.entries[0].key) == ("t", 1, b"k")
    assert found.position == 13


def test_a_cut_off_batch_is_left_for_later():
    """What the fetch size cut off is not lost."""
    whole, cut = batch(0, [b"a"]), batch(1, [b"b"])[:-1]
    found = read(whole + cut)
    assert offsets(found) == [0]
    assert found.position == 1


def test_a_batch_that_never_fits_is_stepped_over():
    """Where not one whole batch came, the offset is reported as too large."""
    (entry,) = (found := read(batch(5, [b"a"])[:-1], 5)).entries
    assert (entry.offset, entry.too_large) == (5, True)
    assert found.position == 6


def test_a_wrong_checksum_costs_its_batch():
    """The records of a corrupt batch are reported one by one, the neighbours are read."""
    bad = batch(1, [b"x", b"y"])
    bad[-2] ^= 1
    found = read(batch(0, [b"a"]) + bad + batch(3, [b"b"]))
    assert (offsets(found), offsets(found, readable=False)) == ([0, 3], [1, 2])
    assert "checksum" in found.entries[1].problem


@pytest.mark.parametrize("delta", [-5, 2_000_000_000])
def test_a_corrupt_header_is_not_believed(delta):
    """The next batch's offset, not a corrupt count, says where a corrupt batch ends."""
    bad = batch(1, [b"x", b"y"])
    struct.pack_into(">i", bad, 23, delta)
    found = read(batch(0, [b"a"]) + bad + batch(3, [b"b"]))
    assert (offsets(found), offsets(found, readable=False)) == ([0, 3], [1, 2])
    found = read(bad, 1)
    assert offsets(found, readable=False) == [1]
    assert found.position == 2


def test_an_unknown_codec_costs_its_batch():
    """A codec of the future is reported with its number."""
    bad = batch(0, [b"x", b"y"])
    bad[ATTRIBUTES_AT + 1] = 6
    found = read(mended(bad) + batch(2, [b"b"]))
    assert (offsets(found), offsets(found, readable=False)) == ([2], [0, 1])
    assert "unknown codec (6)" in found.entries[0].problem


def test_one_malformed_record_costs_only_itself():
    """Records are told apart by their lengths: the ones after a malformed one are read."""
    data = batch(0, [b"a" * 10, b"x" * 10, b"c" * 10])
    at = data.index(b"x" * 10) - 1
    data[at] = 0x7E  # a value longer than its record
    found = read(mended(data))
    assert (offsets(found), offsets(found, readable=False)) == ([0, 2], [1])
    assert [record.value for record in found.entries[::2]] == [b"a" * 10, b"c" * 10]
    assert found.position == 3


def test_a_header_name_in_another_encoding_is_read():
    """Header names that are no UTF-8 are replaced, and the record stays."""
    data = batch(0, [b"a", b"b"], headers=[("name", b"1"), ("ce_id", b"2")])
    data = mended(data.replace(b"name", b"n\xff\xfee"))
    found = read(data)
    assert [record.value for record in found.entries] == [b"a", b"b"]
    assert found.entries[0].headers == (("n��e", b"1"), ("ce_id", b"2"))
    assert found.entries[1].timestamp == 1001


def test_aborted_records_and_markers_are_no_records():
    """Of interleaved transactions, the committed one's records are read, and the position passes everything."""
    data = (
        batch(0, [b"aborted"], transactional=1, producer_id=7)
        + batch(1, [b"kept"], transactional=1, producer_id=8)
        + control(2, 7, 0)
        + control(3, 8, 1)
        + batch(4, [b"kept too"], transactional=1, producer_id=7)
        + control(5, 7, 1)
    )
    found = read(data, 0, [(7, 0)])
    assert [record.value for record in found.entries] == [b"kept", b"kept too"]
    assert found.position == 6


def test_null_headers_are_left_out():
    """A header without a value says nothing."""
    assert without_nulls([("a", None), ("b", b"")]) == (("b", b""),)


@given(st.binary(max_size=300), st.integers(0, 5))
def test_any_bytes_are_survived(data, position):
    """Bytes of no sense are reported, never raised, and always advance the position."""
    found = read(data, position)
    assert (found.position > position) is bool(data)
    assert all(isinstance(entry, UnreadableRecord) for entry in found.entries)


@given(st.data())
def test_any_damage_within_sound_checksums_is_survived(data):
    """Batches of any damage whose checksum is right leave the batch after them readable."""
    codec = data.draw(st.sampled_from([0, 1, 2, 3, 4]))
    bad = batch(1, [b"one" * 9, b"two" * 9, b"three" * 9], codec=codec, headers=[("h", b"v")])
    for _ in range(data.draw(st.integers(1, 4))):
        bad[data.draw(st.integers(61, len(bad) - 1))] = data.draw(st.integers(0, 255))
    found = read(batch(0, [b"a"]) + mended(bad) + batch(4, [b"b"]))
    assert found.position == 5
    assert found.entries[0].value == b"a"
    assert found.entries[-1].value == b"b"
    got = [entry.offset for entry in found.entries]
    assert got == sorted(set(got))
