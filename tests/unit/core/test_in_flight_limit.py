"""How many requests an endpoint gets at a time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.in_flight_limit import INITIAL, LOWEST, InFlightLimit

FAST = 0.01


def end(limit, count=1, *, overloaded=False, succeeded=True, seconds=FAST, in_flight=None):
    for _ in range(count):
        limit.ended(in_flight or limit.current, seconds, overloaded=overloaded, succeeded=succeeded)


def test_it_doubles_while_all_is_well():
    """A limit's worth of successes doubles the limit until the first decrease, then adds one."""
    limit = InFlightLimit(1_000)
    end(limit, INITIAL)
    assert limit.current == 2 * INITIAL
    end(limit, overloaded=True, succeeded=False)
    assert limit.current == INITIAL
    end(limit, 2 * INITIAL + INITIAL)
    assert INITIAL < limit.current <= INITIAL + 3


def test_one_overload_halves_once():
    """All that was under way when the limit halved doesn't halve it again; what comes later does."""
    limit = InFlightLimit(1_000)
    end(limit, INITIAL, overloaded=True, succeeded=False, in_flight=INITIAL)
    assert limit.current == INITIAL // 2
    end(limit, overloaded=True, succeeded=False)
    assert limit.current == INITIAL // 4


def test_latency_is_a_mean_at_first():
    """The first attempts count in full, later ones a tenth."""
    limit = InFlightLimit(1_000)
    end(limit, seconds=9.0)
    assert limit.latency_seconds == 9.0
    end(limit, seconds=3.0)
    assert limit.latency_seconds == pytest.approx(6.0)
    end(limit, 100, seconds=1.0)
    end(limit, seconds=2.0)
    assert limit.latency_seconds == pytest.approx(1.1, abs=0.01)


def test_doubted_latency_is_learnt_anew():
    """After a doubt one attempt alone says what the latency is."""
    limit = InFlightLimit(1_000)
    end(limit, 100)
    limit.doubt_latency()
    assert limit.latency_seconds == pytest.approx(FAST)
    end(limit, seconds=9.0)
    assert limit.latency_seconds == 9.0


def test_plain_failures_change_nothing():
    """A failure that doesn't ask for less leaves the limit as it is."""
    limit = InFlightLimit(1_000)
    end(limit, 500, succeeded=False)
    assert limit.current == INITIAL


def test_an_unused_limit_does_not_grow():
    """What is never needed isn't raised."""
    limit = InFlightLimit(1_000)
    end(limit, 500, in_flight=3)
    assert limit.current == INITIAL


def test_a_strained_endpoint_gets_no_more():
    """While the endpoint answers much slower than it can, the limit stays."""
    limit = InFlightLimit(1_000)
    end(limit, 10, in_flight=1)
    for _ in range(50):
        end(limit, seconds=0.5)
    before = limit.current
    end(limit, 100, seconds=0.5)
    assert limit.current == before


def test_restart_feels_its_way():
    """An endpoint that has come back begins with one request at a time, and doubles."""
    limit = InFlightLimit(1_000)
    limit.restart()
    assert limit.current == LOWEST
    end(limit)
    assert limit.current == 2


@given(st.integers(1, 200), st.lists(st.tuples(st.integers(1, 300), st.floats(0, 60), st.booleans(), st.booleans())))
def test_it_stays_within_its_bounds(highest, attempts):
    """Whatever comes, the limit is at least one and at most its bound."""
    limit = InFlightLimit(highest)
    for in_flight, seconds, overloaded, succeeded in attempts:
        limit.ended(in_flight, seconds, overloaded=overloaded, succeeded=succeeded)
        assert LOWEST <= limit.current <= highest
