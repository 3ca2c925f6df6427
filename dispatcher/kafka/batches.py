"""Reads fetched bytes batch by batch, so that one bad batch or record costs only itself.

aiokafka stops at a bad batch and asks for it again for ever, loses what it had already taken of other partitions
in the same call, and takes a header name that isn't UTF-8 for an error. This is slower and is used only where
that happened, and to read single records.

Source: Kafka's message format v2 (https://kafka.apache.org/documentation/#recordbatch).
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from aiokafka import codec
from aiokafka.record.control_record import ABORT_MARKER, ControlRecord
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import decode_varint
from aiokafka.structs import ConsumerRecord

from dispatcher.ports import ConsumedRecord, UnreadableRecord

_START = struct.Struct(">qi")  # base offset, length of what follows
_HEADER = struct.Struct(">qiibIhiqqqhii")
_MAGIC_AT = 16
_CODEC_MASK = 0x07
_LOG_APPEND_TIME = 0x08
# A corrupt header may claim any number of records; beyond this many it is not believed.
_MOST_OFFSETS = 100_000
_DECOMPRESS: dict[int, Callable[[bytes], bytes]] = {
    1: codec.gzip_decode,
    2: codec.snappy_decode,
    3: codec.lz4_decode,
    4: codec.zstd_decode,
}

Entry: TypeAlias = ConsumedRecord | UnreadableRecord


@dataclass(slots=True)
class Batches:
    """What fetched bytes hold.

    Attributes:
        entries: Records and what stands for unreadable ones, by offset.
        position: The next offset to fetch; beyond the last entry where what follows is no record (transaction
            markers, aborted or compacted records).
    """

    entries: list[Entry] = field(default_factory=list)
    position: int = 0


def read_batches(topic: str, partition: int, data: bytes, aborted: Sequence[tuple[int, int]], position: int) -> Batches:
    """Read fetched bytes.

    Args:
        topic: Where they come from.
        partition: Likewise.
        data: The message set as the broker sent it; a batch that is cut off at its end is left for later.
        aborted: Producer id and first offset of each aborted transaction among them.
        position: The offset that was asked for; records before it are left out.

    Returns:
        Records, and for each offset that can't be read an `UnreadableRecord`. The position always advances
        where there were any bytes.
    """
    found = Batches(position=position)
    transactions = _Transactions(aborted)
    at = 0
    while len(data) - at >= _START.size:
        _, length = _START.unpack_from(data, at)
        end = at + _START.size + length
        if length <= _MAGIC_AT or end > len(data):
            break
        batch = data[at:end]
        next_base = _START.unpack_from(data, end)[0] if len(data) - end >= _START.size else None
        _read_batch(topic, partition, batch, next_base, transactions, found)
        at = end
    if data and found.position == position:
        # Not one whole batch, or one of no sense: step over it rather than ask for it for ever.
        found.entries.append(
            UnreadableRecord(topic, partition, position, "the record is too large to be fetched", too_large=True)
        )
        found.position = position + 1
    return found


def _read_batch(
    topic: str, partition: int, data: bytes, next_base: int | None, transactions: "_Transactions", found: Batches
) -> None:
    start = found.position
    if data[_MAGIC_AT] < 2:  # noqa: PLR2004 - the formats before v2, kept by old brokers only
        try:
            _read_with(topic, partition, MemoryRecords(data).next_batch(), found)
        except Exception as error:  # noqa: BLE001 - codecs raise what they like
            # A compressed one carries its last record's offset.
            offsets = range(found.position, max(found.position, _START.unpack_from(data)[0]) + 1)
            _unreadable(topic, partition, offsets, f"the records can't be read: {type(error).__name__}", found)
        return
    if len(data) < _HEADER.size:
        _unreadable(topic, partition, range(start, start + 1), "the record batch is cut short", found)
        return
    header = _HEADER.unpack_from(data)
    base, delta, producer_id, count = header[0], header[6], header[9], header[12]
    after = base + delta + 1
    batch: Any = MemoryRecords(data).next_batch()
    if not batch.validate_crc():
        believed = 0 <= delta < _MOST_OFFSETS and delta + 1 == count
        if next_base is not None and (not believed or after > next_base):
            believed, after = 0 < next_base - base <= _MOST_OFFSETS, next_base
        offsets = range(max(start, base), after if believed else max(start, base) + 1)
        _unreadable(topic, partition, offsets, "the record batch is corrupt (its checksum differs)", found)
    elif not transactions.hides(batch, producer_id) and not batch.is_control_batch:
        try:
            _read_with(topic, partition, batch, found, last=after - 1)
        except Exception as error:  # noqa: BLE001 - codecs raise what they like
            del found.entries[_count_before(found, start) :]
            found.position = start
            _read_one_by_one(topic, partition, data, error, found)
        found.position = max(found.position, after)
    else:
        found.position = max(found.position, after)


def _read_with(topic: str, partition: int, batch: Any, found: Batches, *, last: int | None = None) -> None:
    """Read a sound batch with aiokafka's reader.

    Raises:
        ValueError: Its offsets don't count up, or pass the last one.
    """
    before = -1
    for record in batch:
        if record.offset <= before or (last is not None and record.offset > last):
            raise ValueError(f"the record's offset {record.offset} is out of order")
        before = record.offset
        if record.offset >= found.position:
            headers = tuple(record.headers)
            found.entries.append(
                _record(topic, partition, record.offset, record.timestamp, record.key, record.value, headers)
            )
            found.position = record.offset + 1


def _read_one_by_one(topic: str, partition: int, data: bytes, error: Exception, found: Batches) -> None:
    """Read a batch whose checksum is right though its records can't all be read."""
    base, _, _, _, _, attributes, delta, first_ms, max_ms, _, _, _, count = _HEADER.unpack_from(data)
    body = data[_HEADER.size :]
    try:
        if attributes & _CODEC_MASK:
            body = _DECOMPRESS[attributes & _CODEC_MASK](body)
    except Exception as failure:  # noqa: BLE001 - codecs raise what they like
        problem = f"the record batch can't be decompressed: {type(failure).__name__}"
        if attributes & _CODEC_MASK not in _DECOMPRESS:
            problem = f"the record batch is compressed with an unknown codec ({attributes & _CODEC_MASK})"
        _unreadable(topic, partition, range(max(found.position, base), base + delta + 1), problem, found)
        return
    for index, (offset_delta, raw) in enumerate(_split(body, count)):
        # Where none is missing, counting is safer than what a malformed record says.
        offset = base + (index if count == delta + 1 else offset_delta)
        if not found.position <= offset <= base + delta:
            continue
        try:
            ts_delta, key, value, headers = _parse(raw)
        except (ValueError, IndexError, struct.error):
            problem = f"the record is malformed: {type(error).__name__}: {error}"[:200]
            found.entries.append(UnreadableRecord(topic, partition, offset, problem))
        else:
            timestamp = max_ms if attributes & _LOG_APPEND_TIME else first_ms + ts_delta
            found.entries.append(_record(topic, partition, offset, timestamp, key, value, headers))
        found.position = offset + 1
    # What could not even be told apart.
    rest = range(max(found.position, base), base + delta + 1)
    _unreadable(topic, partition, rest, "the record batch is malformed", found)


def _split(body: bytes, count: int) -> Iterator[tuple[int, bytes]]:
    """Tell a batch's records apart by their lengths: offset delta and bytes of each, as far as that goes."""
    buffer, at = bytearray(body), 0
    for _ in range(count):
        try:
            length, at = decode_varint(buffer, at)
            raw = body[at : at + length]
            _, inner = decode_varint(bytearray(raw), 1)  # after the attributes: the timestamp
            offset_delta, _ = decode_varint(bytearray(raw), inner)
        except (ValueError, IndexError):
            return
        if length <= 0 or len(raw) < length:
            return
        yield offset_delta, raw
        at += length


def _parse(raw: bytes) -> tuple[int, bytes | None, bytes | None, tuple[tuple[str, bytes | None], ...]]:
    """Read one record; header names that are no UTF-8 get replacement characters.

    Raises:
        ValueError: A length points beyond the record.
        IndexError: Likewise.
    """
    buffer = bytearray(raw)
    ts_delta, at = decode_varint(buffer, 1)
    _, at = decode_varint(buffer, at)

    def take() -> bytes | None:
        nonlocal at
        length, at = decode_varint(buffer, at)
        if length < 0:
            return None
        if at + length > len(raw):
            raise ValueError("a length points beyond the record")
        at += length
        return raw[at - length : at]

    key, value = take(), take()
    count, at = decode_varint(buffer, at)
    headers = [((take() or b"").decode("utf-8", "replace"), take()) for _ in range(count)]
    return ts_delta, key, value, tuple(headers)


class _Transactions:
    """Which producers' records are aborted, at the point reached."""

    def __init__(self, aborted: Sequence[tuple[int, int]]) -> None:
        self._coming = sorted(aborted, key=lambda each: each[1])
        self._now: set[int] = set()

    def hides(self, batch: Any, producer_id: int) -> bool:
        """Take in a batch; say whether its records are aborted."""
        while self._coming and self._coming[0][1] <= batch.base_offset:
            self._now.add(self._coming.pop(0)[0])
        if batch.is_control_batch:
            if any(ControlRecord.parse(record.key) == ABORT_MARKER for record in batch):
                self._now.discard(producer_id)
            return False
        return bool(batch.is_transactional) and producer_id in self._now


def _record(
    topic: str, partition: int, offset: int, timestamp: int, key: bytes | None, value: bytes | None, headers: Any
) -> ConsumedRecord:
    kept = without_nulls(headers)
    record: ConsumedRecord = ConsumerRecord(topic, partition, offset, timestamp, 0, key, value, None, -1, -1, kept)
    return record


def without_nulls(headers: Sequence[tuple[str, bytes | None]]) -> tuple[tuple[str, bytes], ...]:
    """Leave out headers whose value is null: to say nothing is what they do."""
    return tuple([(name, value) for name, value in headers if value is not None])


def _unreadable(topic: str, partition: int, offsets: range, problem: str, found: Batches) -> None:
    found.entries.extend(UnreadableRecord(topic, partition, offset, problem) for offset in offsets)
    found.position = max(found.position, offsets.stop)


def _count_before(found: Batches, offset: int) -> int:
    """Count the entries below an offset."""
    entries = found.entries
    count = len(entries)
    while count and entries[count - 1].offset >= offset:
        count -= 1
    return count
