"""Which letters are still to be dealt with."""

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.dead_letters import DeadLetterFilter, read_letter
from dispatcher.core.handled_letters import HandledLetters
from dispatcher.core.letter_choice import LetterChoice, Standing
from dispatcher.core.letter_counts import REST, CountedBy
from dispatcher.core.model import Origin
from dispatcher.core.records import DeliveryRecord, encode_headers

ORIGIN = Origin("events", 3, 9, 400)
REASONS = [f"reason_{number}" for number in range(40)]


def letter(offset, delivery, at_ms, reason="gone", status=410, partition=0):
    """Make a letter; deliveries of even number are of webhook 0, the others of webhook 1."""
    record = DeliveryRecord(
        f"del_{delivery}", f"wh_{delivery % 2}", "acme", 6, 0, 500, None, ORIGIN, reason, status, "e"
    )
    return read_letter(partition, offset, at_ms, None, b"{}", encode_headers(record, ()))


made = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 4), st.sampled_from(REASONS[:3]), st.sampled_from([0, 410, 503])),
    max_size=30,
).map(lambda rows: [letter(offset, *row) for offset, row in enumerate(rows)])
filters = st.builds(
    DeadLetterFilter,
    subscription_id=st.none() | st.just("wh_0"),
    reason=st.none() | st.just(REASONS[0]),
    status=st.none() | st.sampled_from(["503", "none"]),
    since_ms=st.none() | st.integers(0, 4),
)


@given(made, filters, st.sets(st.integers(0, 30)))
def test_it_chooses_what_going_through_everything_would(letters, wanted, dealt_with):
    """Chosen is the newest letter of each delivery, where it is asked for and not dealt with; counts say the same."""
    handled = HandledLetters()
    for each in letters:
        if each.offset in dealt_with:
            handled.add(0, each.offset, each.timestamp_ms)
    choice = LetterChoice(wanted, handled)
    for each in letters:
        choice.take(each)
    newest = {}
    for each in letters:
        before = newest.get(each.delivery_id)
        if before is None or before.timestamp_ms <= each.timestamp_ms:
            newest[each.delivery_id] = each
    chosen = [each for each in newest.values() if wanted.wants(each) and each.offset not in dealt_with]
    of_chosen = {each.delivery_id for each in chosen}
    for each in letters:
        expected = Standing.LEFT
        if each.delivery_id in of_chosen:
            expected = Standing.CHOSEN if each in chosen else Standing.SUPERSEDED
        assert choice.standing(each) is expected
    assert choice.counts.total == len(chosen)
    assert choice.read == len(letters)
    rows = {row.value: row.count for row in choice.counts.by(CountedBy.REASON)}
    assert rows == {reason: count for reason in REASONS if (count := sum(each.reason == reason for each in chosen))}
    rows = {row.value: row.count for row in choice.counts.by(CountedBy.STATUS)}
    assert rows == {
        code: count for code in (0, 410, 503) if (count := sum(each.http_status == code for each in chosen))
    }


def test_a_later_letter_supersedes_even_where_it_is_not_asked_for():
    """Who asks for one reason is not shown a delivery that has since failed for another."""
    choice = LetterChoice(DeadLetterFilter(reason="expired"))
    assert choice.take(letter(0, 1, 10, "expired"))
    assert not choice.take(letter(1, 1, 20, "gone"))
    assert (choice.counts.total, choice.superseded) == (0, 1)


def test_letters_of_other_partitions_are_superseded_by_time():
    """Where a topic got more partitions, letters of one delivery stand in two: the later counts, however it is read."""
    older, newer = letter(5, 1, 10, "expired", partition=1), letter(9, 1, 20, "gone", partition=0)
    choice = LetterChoice(DeadLetterFilter())
    assert choice.take(newer)
    assert not choice.take(older)
    assert [row.value for row in choice.counts.by(CountedBy.REASON)] == ["gone"]
    assert (choice.standing(newer), choice.standing(older)) == (Standing.CHOSEN, Standing.SUPERSEDED)


def test_reasons_beyond_what_is_kept_are_counted_together():
    """Made-up reasons without end cost no memory: from some on they are one row, and are taken back from it."""
    choice = LetterChoice(DeadLetterFilter())
    for number, reason in enumerate(REASONS):
        choice.take(letter(number, number, 10, reason))
    rows = {row.value: row.count for row in choice.counts.by(CountedBy.REASON)}
    assert rows[REST] == len(REASONS) - 31
    for number, reason in enumerate(REASONS):
        choice.take(letter(100 + number, number, 20, reason))
    assert {row.value: row.count for row in choice.counts.by(CountedBy.REASON)} == rows
    assert (choice.counts.total, choice.superseded) == (len(REASONS), len(REASONS))
