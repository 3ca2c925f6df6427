"""Marks of letters that were dealt with: small, exact, and of one life of the topic."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.dead_letters import DeadLetter
from dispatcher.core.errors import UndecodableError
from dispatcher.core.handled_letters import MAX_MARKED, HandledLetters, marks_of, pack, unpack
from dispatcher.core.records import REPLAY_ID
from dispatcher.core.reruns import new_run_id

letters = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 5000) | st.integers(0, 2**62), st.integers(-1, 2**41)), max_size=50
)


@given(letters, letters)
def test_what_was_marked_and_nothing_else_is_handled(marked, others):
    """Any letters, in any order and however often, are handled after their marks were read; no other is."""
    handled = HandledLetters()
    for mark in marks_of("dead", marked):
        assert (mark.first, mark.last) == (min(unpack(mark.offsets)), max(unpack(mark.offsets)))
        handled.add_mark(mark)
    known = {(partition, offset): at_ms for partition, offset, at_ms in marked}
    for partition, offset, at_ms in (*marked, *others):
        expected = known.get((partition, offset)) == at_ms
        assert handled.has(partition, offset, at_ms) is expected
    assert bool(handled) is bool(marked)


def test_a_topic_made_anew_has_no_handled_letters():
    """At the same place of a new topic stands a letter of another time: it is not handled."""
    handled = HandledLetters()
    handled.add(0, 17, 1_768_473_000_000)
    assert handled.has(0, 17, 1_768_473_000_000)
    assert not handled.has(0, 17, 1_768_473_000_001)
    assert not handled.has(1, 17, 1_768_473_000_000)


def test_letters_of_a_delivery_that_was_dealt_with_are_handled():
    """Marked by its delivery, a letter is handled wherever it stands; a source record that is no event never is."""
    handled = HandledLetters()
    assert not handled
    handled.add_delivery("del_1")
    assert handled
    for delivery_id, expected in (("del_1", True), ("del_2", False), (None, False)):
        letter = DeadLetter(0, 5, 1, None, None, (), "gone", delivery_id=delivery_id)
        assert handled.has_letter(letter) is expected
    handled.add(0, 5, 1)
    assert handled.has_letter(DeadLetter(0, 5, 1, None, None, (), "gone"))


def letter(run, at_ms=1, delivery_id="del_1"):
    headers = ((REPLAY_ID, run.encode()),) if run else ()
    return DeadLetter(0, 5, at_ms, None, None, headers, "gone", delivery_id=delivery_id)


def test_letters_of_runs_before_a_later_one_are_handled():
    """What a delivery's earlier runs ended in is past; what its latest one did is not, whatever the clocks say."""
    runs = [new_run_id(1000, bytes(10)), new_run_id(1000, b"\x01" + bytes(9)), new_run_id(2000, bytes(10))]
    handled = HandledLetters()
    handled.add_run("del_1", runs[1])
    for at_ms in (1, 1_999, 10**12):
        found = [handled.has_letter(letter(run, at_ms)) for run in ("", *runs, "odd")]
        assert found == [True, True, False, False, False]
    assert not handled.has_letter(letter("", delivery_id="del_2"))
    handled.add_delivery("del_1")
    assert all(handled.has_letter(letter(run)) for run in ("", *runs))
    handled = HandledLetters()
    handled.add_run("del_1", "odd")
    assert not handled.has_letter(letter(""))


@given(st.lists(st.integers(-(2**61), 2**61), max_size=50))
def test_numbers_survive_packing(numbers):
    """What is packed comes out the same."""
    assert list(unpack(pack(numbers))) == numbers


def test_marks_are_cut_and_small():
    """More letters than one mark holds make more marks, a tenth of a byte a letter where they stand side by side."""
    count = MAX_MARKED + 10
    marks = marks_of("dead", ((0, offset, 1_768_473_000_000) for offset in range(count)))
    assert [mark.count for mark in marks] == [MAX_MARKED, 10]
    assert sum(len(mark.offsets) + len(mark.times) for mark in marks) < count / 10


@pytest.mark.parametrize("packed", [b"", b"rubbish", pack([1, 2, 3])[:-3], pack(list(range(MAX_MARKED + 1)))])
def test_what_is_no_mark_is_refused(packed):
    """Rubbish, a mark that is cut off and one that would take too much memory are refused."""
    with pytest.raises(UndecodableError, match="mark of handled dead letters"):
        unpack(packed)
