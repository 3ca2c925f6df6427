"""Which offset may be committed: never one behind which something is unfinished."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dispatcher.core.offsets import OffsetTracker


class TrackerMachine(RuleBasedStateMachine):
    """One partition of one assignment beside the simplest model of it: the sets of begun and of complete offsets."""

    def __init__(self) -> None:
        super().__init__()
        self.tracker = OffsetTracker(1_000)
        self.position = 1_000
        self.unfinished: set[int] = set()
        self.committed = 1_000
        self.seen = 1_000

    @rule(gap=st.sampled_from([0, 0, 0, 1, 7]), records=st.integers(1, 5))
    def read(self, gap: int, records: int) -> None:
        """Read some records, behind a gap such as transaction markers leave."""
        for offset in range(self.position + gap, self.position + gap + records):
            self.tracker.begin(offset)
            self.unfinished.add(offset)
        self.position += gap + records

    @precondition(lambda self: self.unfinished)
    @rule(data=st.data(), count=st.integers(1, 6))
    def finish(self, data: st.DataObject, count: int) -> None:
        """Complete some records in any order."""
        for _ in range(min(count, len(self.unfinished))):
            offset = data.draw(st.sampled_from(sorted(self.unfinished)))
            self.tracker.complete(offset)
            self.unfinished.remove(offset)

    @rule()
    def commit(self) -> None:
        """Commit what may be committed, if there is anything new."""
        offset = self.tracker.to_commit()
        allowed = min(self.unfinished, default=self.position)
        assert offset == (allowed if allowed > self.committed else None)
        if offset is not None:
            self.tracker.committed(offset)
            self.committed = offset

    @invariant()
    def commits_nothing_unfinished(self) -> None:
        """What may be committed is the lowest unfinished offset, else the position, and never goes back."""
        allowed = self.tracker.committable()
        assert allowed == min(self.unfinished, default=self.position)
        assert allowed >= self.seen
        self.seen = allowed

    @invariant()
    def counts_what_is_unfinished(self) -> None:
        """The length, the position and the span are those of the model."""
        assert len(self.tracker) == len(self.unfinished)
        assert self.tracker.position == self.position
        assert self.tracker.span == self.position - min(self.unfinished, default=self.position)


TestTracker = TrackerMachine.TestCase


@given(st.permutations(range(8)))
def test_every_order_of_completion_is_safe(order):
    """In whichever order records complete, what may be committed is exactly the finished front."""
    tracker = OffsetTracker(0)
    for offset in range(8):
        tracker.begin(offset)
    finished = set()
    for offset in order:
        tracker.complete(offset)
        finished.add(offset)
        assert tracker.committable() == next((front for front in range(8) if front not in finished), 8)


def test_nothing_read_is_nothing_to_commit():
    """A fresh assignment commits nothing, whether asked once or often."""
    tracker = OffsetTracker(5)
    assert (tracker.to_commit(), tracker.to_commit(), tracker.committable(), len(tracker)) == (None, None, 5, 0)


def test_offset_zero_is_an_offset():
    """The very first record of a partition holds its commit back like any other."""
    tracker = OffsetTracker(0)
    tracker.begin(0)
    assert tracker.to_commit() is None
    tracker.complete(0)
    assert tracker.to_commit() == 1


def test_a_commit_that_did_not_stand_is_asked_for_again():
    """What may be committed is told until its commit is confirmed, and an older confirmation takes nothing back."""
    tracker = OffsetTracker(0)
    for offset in range(3):
        tracker.begin(offset)
        tracker.complete(offset)
    assert (tracker.to_commit(), tracker.to_commit()) == (3, 3)
    tracker.committed(3)
    tracker.committed(1)
    assert tracker.to_commit() is None


def test_an_offset_is_begun_once():
    """Reading an offset again, or one before it, is a fault of the caller and changes nothing."""
    tracker = OffsetTracker(5)
    tracker.begin(7)
    for offset in (4, 6, 7):
        with pytest.raises(ValueError, match="read already"):
            tracker.begin(offset)
    assert (tracker.position, tracker.committable(), len(tracker)) == (8, 7, 1)


def test_an_offset_is_completed_once():
    """Completing what was not begun, or is complete, is a fault of the caller and changes nothing."""
    tracker = OffsetTracker(0)
    tracker.begin(0)
    tracker.complete(0)
    for offset in (0, 1):
        with pytest.raises(KeyError):
            tracker.complete(offset)
    assert tracker.committable() == 1


def test_a_complete_record_leaves_nothing_behind():
    """Behind one slow record, completed ones keep nothing: only what is unfinished is counted."""
    tracker = OffsetTracker(0)
    for offset in range(10_000):
        tracker.begin(offset)
    for offset in range(1, 10_000):
        tracker.complete(offset)
    assert (len(tracker), tracker.committable(), tracker.span) == (1, 0, 10_000)
    assert len(tracker._open) == 1


def test_the_oldest_is_the_lowest_incomplete():
    """Since when something waits is told of the lowest incomplete record, whatever completes behind it; 0 of none."""
    tracker = OffsetTracker(5)
    assert tracker.oldest_ms() == 0
    for offset, since_ms in ((5, 700), (6, 600), (9, 900)):
        tracker.begin(offset, since_ms)
    tracker.complete(6)
    assert tracker.oldest_ms() == 700
    tracker.complete(5)
    assert tracker.oldest_ms() == 900
    tracker.complete(9)
    assert tracker.oldest_ms() == 0
    tracker.begin(10)
    assert tracker.oldest_ms() == 0
