"""What one member knows of the partitions it reads now: positions, and what waits to be handed out."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka.structs import TopicPartition

from dispatcher.kafka.batches import Batches, Entry, without_nulls
from dispatcher.ports import CommitPoint, Partition


@dataclass(slots=True)
class Assignment:
    """Partitions of one epoch. Offsets are of the next record, as Kafka counts positions.

    Attributes:
        partitions: Each, as aiokafka wants it.
        handed_out: Up to where records were handed out.
        committed: Up to where is committed; where nothing is, from where it is read.
        gaps: Offsets without a record that were committed over: from and to.
        ready: Records read one by one, not yet handed out.
    """

    partitions: dict[Partition, TopicPartition] = field(default_factory=dict)
    handed_out: dict[Partition, int] = field(default_factory=dict)
    committed: dict[Partition, int] = field(default_factory=dict)
    gaps: dict[Partition, tuple[int, int]] = field(default_factory=dict)
    ready: dict[Partition, deque[Entry]] = field(default_factory=dict)

    @classmethod
    def at(cls, points: Mapping[TopicPartition, CommitPoint]) -> "Assignment":
        """Begin at positions."""
        offsets: dict[Partition, int] = {(each.topic, each.partition): point.offset for each, point in points.items()}
        return cls({(each.topic, each.partition): each for each in points}, offsets, dict(offsets))

    def fetchable(self, wanted: Sequence[Partition]) -> list[TopicPartition]:
        """Return those of the wanted partitions that are assigned and have nothing ready."""
        partitions, ready = self.partitions, self.ready
        return [partitions[each] for each in wanted if each in partitions and each not in ready]

    def keep_ready(self, partition: TopicPartition, found: Batches) -> None:
        """Keep what was read one by one until it is asked for."""
        if found.entries:
            self.ready[partition.topic, partition.partition] = deque(found.entries)

    def take_ready(self, wanted: Sequence[Partition], max_records: int) -> list[Entry]:
        """Hand out what is ready of the wanted partitions."""
        taken: list[Entry] = []
        for partition in wanted:
            entries = self.ready.get(partition)
            if entries is None:
                continue
            while entries and len(taken) < max_records:
                taken.append(entries.popleft())
                self.handed_out[partition] = taken[-1].offset + 1
            if not entries:
                del self.ready[partition]
        return taken

    def hand_out(self, found: Mapping[TopicPartition, Sequence[Any]]) -> list[Entry] | None:
        """Hand out what aiokafka fetched.

        Returns:
            The records, headers without a value left out; None where offsets went back, which happens only to a
            topic that was made anew.
        """
        records: list[Any] = []
        for partition, some in found.items():
            if some[0].offset < self.handed_out[partition]:
                return None
            records.extend(some)
        for partition, some in found.items():
            self.handed_out[partition] = some[-1].offset + 1
        for record in records:
            for header in record.headers:
                if header[1] is None:
                    record.headers = without_nulls(record.headers)
                    break
        return records

    def find_gaps(self, position_of: Callable[[TopicPartition], int | None]) -> dict[Partition, tuple[int, int]]:
        """Find partitions where everything handed out is committed, and the position is further on: from and to.

        Between the two stand transaction markers and aborted or compacted records: nobody will ever complete
        them, and the lag would never be 0.

        Args:
            position_of: aiokafka's position in a partition, None where it has none.
        """
        found = {}
        for key, partition in self.partitions.items():
            handed_out = self.handed_out[key]
            if key not in self.ready and self.committed[key] == handed_out:
                position = position_of(partition)
                if position is not None and handed_out < position:
                    found[key] = (handed_out, position)
        return found

    def pass_gaps(self, gaps: Mapping[Partition, tuple[int, int]]) -> None:
        """Note that gaps are committed over."""
        self.gaps.update(gaps)
        for key, (_, end) in gaps.items():
            self.handed_out[key] = max(self.handed_out[key], end)

    def past_gap(self, partition: Partition, point: CommitPoint) -> CommitPoint:
        """Keep a commit from going back over offsets that hold no record."""
        start, end = self.gaps.get(partition, (0, 0))
        return CommitPoint(end, point.metadata) if start <= point.offset < end else point
