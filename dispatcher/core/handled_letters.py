"""Which dead letters were dealt with, replayed or purged: those leave the lists.

A letter is known by its place on the topic and its time: where the topic was made anew, its places mean other letters.
"""

import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from dispatcher.core.dead_letters import DeadLetter, identity_of
from dispatcher.core.errors import UndecodableError
from dispatcher.core.newest_letters import PAYLOAD_BITS, NewestLetters
from dispatcher.core.records import REPLAY_ID
from dispatcher.core.reruns import run_rank

MAX_MARKED = 100_000
"""As many letters one mark stands for at most."""

_WHAT_TO_DO = (
    "; somebody wrote to MongoDB's collection handled_letters, or a newer version did: use the newest version, "
    "or remove that document (its letters are then listed again)"
)
_PAGE_BITS = 10
_PAGE = 1 << _PAGE_BITS
_IN_PAGE = _PAGE - 1
_WORD = 2**32 - 1
_BYTES = 8
_MAX_RAW = MAX_MARKED * _BYTES
_BEHIND_ALL = 2**42 - 1, 2**PAYLOAD_BITS - 1


@dataclass(frozen=True, slots=True)
class HandledMark:
    """Letters of one partition that were dealt with at once.

    Attributes:
        topic: The dead-letter topic.
        partition: Its partition.
        first: The lowest of their offsets.
        last: The highest.
        count: How many they are.
        offsets: Their offsets (`pack`).
        times: Their timestamps, in the order of the offsets (`pack`).
    """

    topic: str
    partition: int
    first: int
    last: int
    count: int
    offsets: bytes
    times: bytes


def marks_of(topic: str, letters: Iterable[tuple[int, int, int]]) -> Sequence[HandledMark]:
    """Make the marks of letters.

    Args:
        topic: The dead-letter topic.
        letters: Partition, offset and timestamp (unix milliseconds) of each, in any order.
    """
    marks = []
    places: dict[int, dict[int, int]] = {}
    for partition, offset, at_ms in letters:
        places.setdefault(partition, {})[offset] = at_ms
    for partition, times in sorted(places.items()):
        offsets = sorted(times)
        for start in range(0, len(offsets), MAX_MARKED):
            part = offsets[start : start + MAX_MARKED]
            packed = pack(part), pack([times[offset] for offset in part])
            marks.append(HandledMark(topic, partition, part[0], part[-1], len(part), *packed))
    return marks


def pack(numbers: Sequence[int]) -> bytes:
    """Write whole numbers of 63 bits as few bytes: those that rise evenly cost next to nothing."""
    deltas = array("q", (after - before for before, after in zip((0, *numbers), numbers, strict=False)))
    return zlib.compress(deltas.tobytes(), 6)


def unpack(packed: bytes) -> Iterator[int]:
    """Read what `pack` wrote.

    Raises:
        UndecodableError: It is nothing that `pack` writes, or too much for one mark.
    """
    deltas = array("q")
    try:
        opened = zlib.decompressobj()
        deltas.frombytes(opened.decompress(packed, _MAX_RAW))
    except (zlib.error, ValueError) as error:
        raise UndecodableError(f"a mark of handled dead letters can't be read: {error}{_WHAT_TO_DO}") from None
    if not opened.eof:
        raise UndecodableError(f"a mark of handled dead letters is cut off, or too long{_WHAT_TO_DO}")
    return accumulate(deltas)


class HandledLetters:
    """The letters that were dealt with, for looking up.

    Four bytes an offset, in pages where there are any; at most 43 a delivery that was dealt with as a whole.
    """

    def __init__(self) -> None:
        self._pages: dict[tuple[int, int], array[int]] = {}
        self._deliveries = NewestLetters()

    def __bool__(self) -> bool:
        return bool(self._pages) or len(self._deliveries) > 0

    def add(self, partition: int, offset: int, timestamp_ms: int) -> None:
        """Take in one letter."""
        where = partition, offset >> _PAGE_BITS
        page = self._pages.get(where)
        if page is None:
            page = self._pages[where] = array("I", bytes(_PAGE * 4))
        page[offset & _IN_PAGE] = _stamp(timestamp_ms)

    def add_delivery(self, delivery_id: str) -> None:
        """Take in all letters of a delivery."""
        self._deliveries.put(identity_of(delivery_id), *_BEHIND_ALL)

    def add_run(self, delivery_id: str, run: str) -> None:
        """Take in the letters of a delivery that ended a run before this one: no clock is asked."""
        rank = run_rank(run, PAYLOAD_BITS)
        if rank is not None:
            self._deliveries.put(identity_of(delivery_id), *rank)

    def add_mark(self, mark: HandledMark) -> None:
        """Take in the letters of a mark.

        Raises:
            UndecodableError: It can't be read.
        """
        for offset, at_ms in zip(unpack(mark.offsets), unpack(mark.times), strict=False):
            self.add(mark.partition, offset, at_ms)

    def has(self, partition: int, offset: int, timestamp_ms: int) -> bool:
        """Say whether a letter was dealt with."""
        page = self._pages.get((partition, offset >> _PAGE_BITS))
        return page is not None and page[offset & _IN_PAGE] == _stamp(timestamp_ms)

    def has_letter(self, letter: DeadLetter) -> bool:
        """Say whether a letter was dealt with: it alone, or what its delivery had in earlier runs."""
        if self.has(letter.partition, letter.offset, letter.timestamp_ms):
            return True
        if letter.delivery_id is None or not len(self._deliveries):
            return False
        known = self._deliveries.get(identity_of(letter.delivery_id))
        return known is not None and (known == _BEHIND_ALL or _is_before(letter, known))


def _is_before(letter: DeadLetter, rank: tuple[int, int]) -> bool:
    """Say whether a letter ended a run that sorts before another one; a delivery's first run does before all others."""
    run = dict(letter.headers).get(REPLAY_ID)
    if not run:
        return True
    own = run_rank(run.decode("ascii", "replace"), PAYLOAD_BITS)
    return own is not None and own < rank


def _stamp(timestamp_ms: int) -> int:
    """Return 32 bits of a time, never 0: with the offset, enough to tell a letter from one of another topic's life."""
    return timestamp_ms & _WORD or 1
