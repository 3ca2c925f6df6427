"""Counts of letters in bounded memory."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.dead_letters import HOUR_MS
from dispatcher.core.letter_counts import REST, CountedBy, LetterCounts

letters = st.tuples(
    st.sampled_from(["gone", "expired", REST]),
    st.none() | st.sampled_from(["a", "b", "c", "d", "e"]),
    st.none() | st.integers(0, 30).map(lambda number: f"wh_{number}"),
    st.none() | st.sampled_from(["user.created", "user.deleted"]),
    st.sampled_from([0, 200, 503]),
    st.integers(0, 10 * HOUR_MS),
)


@given(st.lists(letters, max_size=60), st.integers(1, 6))
def test_every_count_adds_up_whatever_is_taken_back(added, most):
    """However few rows there may be, each count sums to the total, and what is taken back leaves the row it was in."""
    counts = LetterCounts(max_rows=most)
    for letter in added:
        counts.add(*letter)
    taken_back = added[::2]
    for letter in taken_back:
        counts.add(*letter, times=-1)
    left = added[1::2]
    assert counts.total == len(left)
    for index, kind in enumerate(CountedBy):
        rows = counts.by(kind)
        assert sum(row.count for row in rows) == len(left)
        assert all(row.count > 0 for row in rows)
        assert len(rows) <= most + 1
        expected = Counter(
            letter[index] // HOUR_MS * HOUR_MS if kind is CountedBy.HOUR else letter[index] for letter in left
        )
        for row in rows:
            if row.value is not REST:
                assert row.count == expected[row.value]


def test_rows_come_largest_first_and_hours_in_order():
    """The largest row stands first, what is counted together last; hours stand in their order, as their start."""
    counts = LetterCounts(max_rows=2)
    for hour, workspace in ((5, "a"), (1, "b"), (5, "b"), (7, "c"), (7, "c"), (7, "c")):
        counts.add("gone", workspace, None, None, 0, hour * HOUR_MS + 17)
    assert [(row.value, row.count) for row in counts.by(CountedBy.WORKSPACE)] == [("b", 2), ("a", 1), (REST, 3)]
    assert [(row.value, row.count) for row in counts.by(CountedBy.HOUR)] == [(HOUR_MS, 1), (5 * HOUR_MS, 2), (REST, 3)]
