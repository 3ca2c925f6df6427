"""When a failing endpoint is told of, and when it is disabled."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.endpoint_health import Due, FailingEndpoint, HealthNote, what_is_due

PERIOD_MS = 1_000
NOW_MS = 50_000
SINCE_MS = 10_000
times = st.integers(0, 10_000)


def endpoint(*, last_ms, warned=False):
    return FailingEndpoint("wh_1", "ws", 1, SINCE_MS, last_ms, warned)


@pytest.mark.parametrize(
    ("failed_for_ms", "warned", "due"),
    [
        (0, False, Due.NOTHING),
        (499, False, Due.NOTHING),
        (500, False, Due.WARN),
        (500, True, Due.NOTHING),
        (999, True, Due.NOTHING),
        (1_000, True, Due.DISABLE),
        (1_000, False, Due.DISABLE),
        (5_000, True, Due.DISABLE),
    ],
)
def test_half_of_the_time_is_told_of_once_and_all_of_it_disables(failed_for_ms, warned, due):
    """The time runs from the first failure to the latest that was seen."""
    assert what_is_due(endpoint(last_ms=SINCE_MS + failed_for_ms, warned=warned), NOW_MS, PERIOD_MS) is due


def test_an_endpoint_that_was_sent_nothing_since_is_left_alone():
    """One failure long ago is no failure for so long."""
    assert what_is_due(endpoint(last_ms=SINCE_MS), SINCE_MS + 1000 * PERIOD_MS, PERIOD_MS) is Due.NOTHING


def test_a_failure_from_the_future_counts_as_of_now():
    """A worker whose clock is ahead doesn't bring a webhook's end forward."""
    assert what_is_due(endpoint(last_ms=SINCE_MS + PERIOD_MS), SINCE_MS + 400, PERIOD_MS) is Due.NOTHING


@given(st.lists(st.tuples(st.booleans(), times)))
def test_a_note_holds_what_failed_after_the_last_success(steps):
    """Whatever comes, a note has the last success, and the first and latest failure after it."""
    note = HealthNote("wh_1", "ws", 1)
    for succeeded, at_ms in steps:
        (note.succeeded if succeeded else note.failed)(at_ms)
    successes = [number for number, (succeeded, _) in enumerate(steps) if succeeded]
    since = successes[-1] if successes else -1
    failures = [at_ms for _, at_ms in steps[since + 1 :]]
    assert note.succeeded_at_ms == (steps[since][1] if successes else None)
    assert note.first_failure_ms == (failures[0] if failures else None)
    assert note.last_failure_ms == max(failures, default=0)
