"""A delivery's way through the tiers."""

from dispatcher.console.timeline import Step, steps_of
from dispatcher.core.delivery_log import DeliveryStatus
from dispatcher.core.retry import DEFAULT_TIERS
from tests.fakes.api_stack import START_MS
from tests.unit.api.test_api_deliveries import delivery
from tests.unit.console.test_console_delivery_pages import attempt


def shape(steps):
    return [(step.kind, step.number, step.tier) for step in steps]


def test_a_retrying_delivery_shows_what_was_what_is_due_and_what_may_come():
    """Each wait has its tier; the next attempt its due time; the rest of the schedule follows, up to the maximum."""
    row = delivery(
        1,
        "wh_1",
        status=DeliveryStatus.RETRYING,
        attempts_made=2,
        updated_at_ms=START_MS + 120_000,
        next_attempt_at_ms=START_MS + 420_000,
        attempts=[attempt(2), attempt(1)],
    )
    steps = steps_of(row, DEFAULT_TIERS, 5)
    assert shape(steps) == [
        ("attempt", 1, ""),
        ("attempt", 2, "1m"),
        ("next", 3, "5m"),
        ("planned", 4, "30m"),
        ("planned", 5, "1h"),
    ]
    assert (steps[1].waited_ms, steps[2].due_ms) == (59_980, START_MS + 420_000)


def test_a_longer_wait_than_the_schedules_has_its_own_tier():
    """What an endpoint's Retry-After asked for shows as the tier that it chose."""
    row = delivery(
        1,
        "wh_1",
        status=DeliveryStatus.RETRYING,
        updated_at_ms=START_MS,
        next_attempt_at_ms=START_MS + 3_600_000,
        attempts=[attempt(1)],
    )
    assert shape(steps_of(row, DEFAULT_TIERS, 2))[-1] == ("next", 2, "1h")


def test_an_ended_delivery_has_nothing_to_come():
    """Delivered, failed, skipped, or a test: only what was."""
    for changes in ({}, {"status": DeliveryStatus.FAILED}, {"status": DeliveryStatus.RETRYING, "test": True}):
        row = delivery(1, "wh_1", attempts=[attempt(1)], **changes)
        assert shape(steps_of(row, DEFAULT_TIERS, 6)) == [("attempt", 1, "")]


def test_runs_are_told_apart():
    """A replay begins a part of its own, also before its first attempt."""
    row = delivery(
        1, "wh_1", status=DeliveryStatus.PENDING, run="rpl_1", attempts_made=0, attempts=[attempt(1), attempt(2)]
    )
    kinds = shape(steps_of(row, DEFAULT_TIERS, 6))
    assert kinds == [("run", 0, ""), ("attempt", 1, ""), ("attempt", 2, "1m"), ("run", 0, ""), ("waiting", 1, "")]


def test_without_tiers_nothing_is_named():
    """A dispatcher without a schedule shows attempts all the same."""
    row = delivery(1, "wh_1", attempts=[attempt(1)])
    assert steps_of(row, (), 6) == [Step("attempt", 1, "", row.attempts[0])]
