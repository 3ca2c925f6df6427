"""Which offset of a partition may be committed.

Records complete in any order; only the lowest incomplete offset is ever committed. A completed record leaves
nothing behind: what is kept is the incomplete ones, and how far the partition was read.
"""


class OffsetTracker:
    """Tracks one partition of one assignment.

    Args:
        position: The first offset that will be read.
    """

    __slots__ = ("_committed", "_floor", "_open", "_position")

    def __init__(self, position: int) -> None:
        self._position = position
        self._committed = position
        # Insertion order is offset order, as records come in ascending offsets.
        self._open: dict[int, int] = {}
        self._floor = position

    def __len__(self) -> int:
        """How many records are incomplete."""
        return len(self._open)

    @property
    def position(self) -> int:
        """The offset behind the last one read."""
        return self._position

    @property
    def span(self) -> int:
        """How many offsets lie between the lowest incomplete one and the position."""
        return self._position - self.committable()

    def begin(self, offset: int, since_ms: int = 0) -> None:
        """Note that a record was read and has work to do.

        Args:
            offset: Its offset.
            since_ms: Since when it could have been worked on, unix milliseconds; 0: not known.

        Raises:
            ValueError: The offset is below one that was read before: a fault of the caller.
        """
        if offset < self._position:
            raise ValueError(f"offset {offset} was read already; the position is {self._position}")
        self._open[offset] = since_ms
        self._position = offset + 1

    def complete(self, offset: int) -> None:
        """Note that a record is complete.

        Raises:
            KeyError: It was not begun, or is complete already: a fault of the caller.
        """
        del self._open[offset]

    def committable(self) -> int:
        """Return the offset to commit: the lowest incomplete one, else the position."""
        if not self._open:
            self._floor = self._position
            return self._position
        # A dict's front fills with holes as the lowest complete; asking often would step over them each time.
        if self._floor not in self._open:
            self._floor = next(iter(self._open))
        return self._floor

    def oldest_ms(self) -> int:
        """Return since when the lowest incomplete record could have been worked on; 0: not known, or there is none."""
        return self._open.get(self.committable(), 0)

    def to_commit(self) -> int | None:
        """Return the offset to commit, or None where it was committed already."""
        offset = self.committable()
        return offset if offset > self._committed else None

    def committed(self, offset: int) -> None:
        """Note that a commit of this offset stands."""
        self._committed = max(self._committed, offset)
