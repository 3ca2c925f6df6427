"""What a replay of dead letters is about, and which deliveries the log says are not to be sent."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.dead_letter_replays import Fate, LetterReplay, ReplayChoice, gone_through, hindrance, rest
from dispatcher.core.dead_letters import DeadLetter, DeadLetterFilter
from dispatcher.core.delivery_log import DeliveryStatus, LoggedState
from dispatcher.core.reruns import SourceSpan

EARLIER, OWN, LATER = "rpl_1", "rpl_5", "rpl_9"
SPANS = (SourceSpan("dead", 0, 10, 20), SourceSpan("dead", 1, 5, 6), SourceSpan("dead", 3, 0, 100))


def logged(status, run=""):
    return LoggedState(run, 3, DeliveryStatus(status))


@pytest.mark.parametrize(
    ("state", "letter_run", "again", "fate"),
    [
        (None, "", False, None),
        (logged("failed"), "", False, None),
        (logged("failed", EARLIER), EARLIER, False, None),
        (logged("failed", EARLIER), "", False, Fate.SUPERSEDED),
        (logged("failed", EARLIER), None, False, None),
        (logged("skipped", EARLIER), "", False, None),
        (logged("delivered"), "", False, Fate.DELIVERED),
        (logged("delivered", EARLIER), None, False, Fate.DELIVERED),
        (logged("pending", EARLIER), "", False, Fate.UNDER_WAY),
        (logged("retrying"), "", False, Fate.UNDER_WAY),
        (logged("delivered", EARLIER), "", True, None),
        (logged("retrying", EARLIER), "", True, None),
        (logged("pending", OWN), "", True, Fate.SUPERSEDED),
        (logged("pending", OWN), "", False, Fate.SUPERSEDED),
        (logged("failed", LATER), "", True, Fate.SUPERSEDED),
    ],
)
def test_what_the_log_says_of_a_delivery_decides(state, letter_run, again, fate):
    """Sent is what failed last in its letter's run; with again also what was delivered or waits; all once a run."""
    assert hindrance(state, letter_run, OWN, again=again) is fate


def test_rest_is_what_lies_behind_a_place_in_the_order_of_reading():
    """Behind a place, the spans before its partition are gone, its own is cut, and those after it are whole."""
    assert rest(SPANS, 0, 12) == (replace(SPANS[0], position=12), *SPANS[1:])
    assert rest(SPANS, 0, 20) == SPANS[1:]
    assert rest(SPANS, 1, 6) == SPANS[2:]
    assert rest(SPANS, 3, 100) == ()


@given(st.lists(st.integers(10, 19), min_size=1, max_size=5, unique=True))
def test_rest_never_goes_back(offsets):
    """Whatever places come one after the other, no offset is left twice."""
    left = SPANS
    for offset in sorted(offsets):
        left = rest(left, 0, offset + 1)
    assert left == rest(SPANS, 0, max(offsets) + 1)


def test_likeness_leaves_out_the_times_and_the_manner():
    """Replays are alike by what they filter and where they go; times, rate and attempts make no other replay."""
    choice = ReplayChoice(DeadLetterFilter("acme", "wh_1", since_ms=1, until_ms=2), rate=3, most=4)
    alike = ReplayChoice(DeadLetterFilter("acme", "wh_1"), keeps_attempts=True, again=True)
    assert choice.likeness == alike.likeness
    others = [
        ReplayChoice(DeadLetterFilter("acme", "wh_2")),
        ReplayChoice(DeadLetterFilter("acme", "wh_1", status="5xx")),
        ReplayChoice(DeadLetterFilter("acme", "wh_1"), to_subscription="wh_2"),
        ReplayChoice(DeadLetterFilter("acme", "wh_1"), as_events=True),
        ReplayChoice(DeadLetterFilter("wh_1", "acme")),
    ]
    assert len({choice.likeness, *(other.likeness for other in others)}) == len(others) + 1


@pytest.mark.parametrize(
    ("partition", "offset", "covered"), [(0, 10, True), (0, 19, True), (0, 20, False), (0, 9, False), (2, 15, False)]
)
def test_a_replay_covers_what_lay_on_the_topic_when_it_began(partition, offset, covered):
    """A letter is covered by its place among the offsets of the beginning, whatever of them is still left to do."""
    began = LetterReplay("rpl_1", ReplayChoice(DeadLetterFilter()), 1, SPANS, (), {}, 1)
    assert began.covers(DeadLetter(partition, offset, 0, None, None, (), "gone")) is covered


def test_a_replay_covers_what_its_filter_wants_and_what_was_there():
    """What the filter never asked for, its times included, is no repetition; nor is what came since, at any place."""
    began = LetterReplay("rpl_1", ReplayChoice(DeadLetterFilter(since_ms=10, until_ms=20)), 15, SPANS, (), {}, 1)
    covered = [began.covers(DeadLetter(0, 10, at_ms, None, None, (), "gone")) for at_ms in (9, 10, 14, 15, 20)]
    assert covered == [False, True, True, False, False]


def test_gone_through_is_the_rest_of_the_rest():
    """What is behind a place and what is left of it are the whole, and have nothing in common."""
    assert gone_through(SPANS, ()) == SPANS
    assert gone_through(SPANS, SPANS) == ()
    assert gone_through(SPANS, rest(SPANS, 0, 12)) == (replace(SPANS[0], end=12),)
    assert gone_through(SPANS, rest(SPANS, 1, 6)) == SPANS[:2]
    assert gone_through(SPANS, rest(SPANS, 3, 7)) == (*SPANS[:2], replace(SPANS[2], end=7))
