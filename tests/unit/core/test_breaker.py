"""When a circuit opens, and how it closes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.breaker import (
    FIRST_PROBE_SECONDS,
    MAX_PROBE_SECONDS,
    MIN_ATTEMPTS,
    MIN_DELIVERIES,
    PROBES_TO_CLOSE,
    WINDOW_SECONDS,
    CircuitBreaker,
    Permit,
)


def opened(now: float = 0.0) -> CircuitBreaker:
    breaker = CircuitBreaker()
    for number in range(MIN_ATTEMPTS):
        breaker.record(now, f"del_{number}", succeeded=False)
    assert breaker.is_open
    return breaker


def test_closed_circuit_sends():
    """A new circuit is closed, and 19 failures don't open it."""
    breaker = CircuitBreaker()
    for number in range(MIN_ATTEMPTS - 1):
        breaker.record(0.0, f"del_{number}", succeeded=False)
    assert breaker.permit(0.0) is Permit.SEND
    breaker.record(0.0, "del_x", succeeded=False)
    assert breaker.permit(0.0) is Permit.REFUSE


@given(st.integers(1, 1000), st.integers(1, MIN_DELIVERIES - 1))
def test_few_deliveries_never_open_it(attempts, deliveries):
    """However often fewer than ten deliveries fail, the circuit stays closed: a ladder is no outage."""
    breaker = CircuitBreaker()
    for number in range(attempts):
        breaker.record(number / 50, f"del_{number % deliveries}", succeeded=False)
    assert not breaker.is_open


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 40)), max_size=200))
def test_it_opens_exactly_where_the_window_says(attempts):
    """It is open as soon as the attempts of one window number 20, nine tenths of them failed, of ten deliveries."""
    breaker, seen, expected = CircuitBreaker(), [], False
    for succeeded, delivery in attempts:
        breaker.record(5.0, f"del_{delivery}", succeeded=succeeded)
        seen.append((succeeded, delivery))
        failed = [each for ok, each in seen if not ok]
        if len(seen) >= MIN_ATTEMPTS and len(failed) >= 0.9 * len(seen) and len(set(failed)) >= MIN_DELIVERIES:
            expected = expected or not succeeded
        assert breaker.is_open == expected


@pytest.mark.parametrize(("later", "opens"), [(WINDOW_SECONDS - 10, True), (WINDOW_SECONDS, False)])
def test_window_moves(later, opens):
    """Failures count for a minute and not longer."""
    breaker = CircuitBreaker()
    for number in range(MIN_ATTEMPTS - 1):
        breaker.record(0.0, f"del_{number}", succeeded=False)
    breaker.record(later, "del_x", succeeded=False)
    assert breaker.is_open == opens


def test_successes_of_the_window_keep_it_closed():
    """An endpoint that has just answered well gets its minute before the circuit opens."""
    breaker = CircuitBreaker()
    for number in range(100):
        breaker.record(0.0, f"del_{number}", succeeded=True)
    for number in range(100):
        breaker.record(30.0, f"del_{number}", succeeded=False)
    assert not breaker.is_open


def test_one_probe_at_a_time_closes_it_step_by_step():
    """Three probes in a row that succeed close the circuit; between them nothing else is sent."""
    breaker = opened()
    now = FIRST_PROBE_SECONDS
    assert breaker.permit(now - 0.1) is Permit.REFUSE
    for number in range(PROBES_TO_CLOSE):
        assert breaker.permit(now) is Permit.PROBE
        assert breaker.permit(now) is Permit.REFUSE
        assert breaker.is_open
        breaker.probe_ended(now + number, succeeded=True)
        now += number
    assert breaker.permit(now) is Permit.SEND
    breaker.record(now, "del_x", succeeded=False)
    assert not breaker.is_open


def test_probes_that_fail_grow_rare():
    """Each failed probe doubles the pause, up to its bound; a success before doesn't shorten it."""
    breaker, now, pauses = opened(), FIRST_PROBE_SECONDS, []
    for _ in range(7):
        assert breaker.permit(now) is Permit.PROBE
        breaker.probe_ended(now, succeeded=False)
        waited = 1
        while breaker.permit(now + waited) is Permit.REFUSE:
            waited += 1
        breaker.probe_unused()
        pauses.append(waited)
        now += waited
    assert pauses == [10, 20, 40, MAX_PROBE_SECONDS, MAX_PROBE_SECONDS, MAX_PROBE_SECONDS, MAX_PROBE_SECONDS]


def test_an_unused_probe_is_given_to_the_next():
    """A probe that wasn't made leaves the circuit as it was, and the next attempt is the probe."""
    breaker = opened()
    assert breaker.permit(FIRST_PROBE_SECONDS) is Permit.PROBE
    breaker.probe_unused()
    assert breaker.permit(FIRST_PROBE_SECONDS) is Permit.PROBE


def test_what_was_under_way_changes_nothing():
    """Attempts that began before the circuit opened neither close it nor count afterwards."""
    breaker = opened()
    for number in range(100):
        breaker.record(1.0, f"del_{number}", succeeded=True)
    assert breaker.is_open
    assert breaker.permit(1.0) is Permit.REFUSE
