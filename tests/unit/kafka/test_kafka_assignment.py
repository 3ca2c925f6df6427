"""What a member knows of its partitions, where offsets are missing as on a compacted or transactional topic."""

from types import SimpleNamespace

from aiokafka.structs import TopicPartition

from dispatcher.kafka.assignment import Assignment
from dispatcher.ports import CommitPoint

PARTITION = TopicPartition("events", 0)
KEY = ("events", 0)


def records(*offsets):
    """Make what aiokafka fetched of the partition."""
    return {PARTITION: [SimpleNamespace(offset=offset, headers=()) for offset in offsets]}


def begun(*offsets, committed):
    """Begin at 0, hand records out, and commit."""
    assignment = Assignment.at({PARTITION: CommitPoint(0)})
    assert assignment.hand_out(records(*offsets)) is not None
    assignment.committed[KEY] = committed
    return assignment


def test_offsets_that_compaction_took_are_no_going_back():
    """Records with holes between them are handed out as they are, and so is a first one far from the position."""
    assignment = Assignment.at({PARTITION: CommitPoint(3)})
    assert [record.offset for record in assignment.hand_out(records(10, 17, 18))] == [10, 17, 18]
    assert assignment.handed_out == {KEY: 19}


def test_offsets_that_go_back_hand_nothing_out():
    """A topic that was made anew gives nothing, and what is known of the position stays."""
    assignment = begun(4, 5, committed=0)
    assert assignment.hand_out(records(2, 3)) is None
    assert assignment.handed_out == {KEY: 6}


def test_a_gap_at_the_end_counts_once_everything_before_it_is_committed():
    """The lag comes to 0 where the last offsets hold no record, and never before what was handed out is done."""
    assignment = begun(0, 1, committed=1)
    assert assignment.find_gaps(lambda _: 9) == {}
    assignment.committed[KEY] = 2
    assert assignment.find_gaps(lambda _: None) == {}
    assert assignment.find_gaps(lambda _: 2) == {}
    assert assignment.find_gaps(lambda _: 9) == {KEY: (2, 9)}


def test_a_commit_never_goes_back_over_a_passed_gap():
    """After a gap was committed over, a position before its end is its end, with the committer's note; others stand."""
    assignment = begun(0, 1, committed=2)
    assignment.pass_gaps({KEY: (2, 9)})
    assert assignment.past_gap(KEY, CommitPoint(2, "note")) == CommitPoint(9, "note")
    assert assignment.past_gap(KEY, CommitPoint(8, "note")) == CommitPoint(9, "note")
    assert assignment.past_gap(KEY, CommitPoint(1)) == CommitPoint(1)
    assert assignment.past_gap(KEY, CommitPoint(9)) == CommitPoint(9)
    assert assignment.past_gap(KEY, CommitPoint(12)) == CommitPoint(12)
