"""What a rate limit lets through."""

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.token_bucket import TokenBucket


@given(st.floats(0.1, 1000), st.lists(st.floats(0, 5), max_size=300))
def test_never_more_than_the_rate_and_one_burst(rate, pauses):
    """Over any time no more goes through than the rate's worth and one second's burst."""
    bucket, now, taken = TokenBucket(rate, 0.0), 0.0, 0
    for pause in pauses:
        now += pause
        taken += bucket.take(now)
        assert taken <= now * rate + 1 + 1e-6


@given(st.floats(0.1, 1000))
def test_after_the_wait_there_is_a_token(rate):
    """Waiting as long as was said brings a token, and hardly less does not."""
    bucket = TokenBucket(rate, 0.0)
    assert bucket.take(0.0)
    wait = bucket.wait_seconds(0.0)
    assert not bucket.take(wait * 0.99)
    assert bucket.take(wait)


def test_burst_is_one_second():
    """After a long rest, one second's worth goes at once and no more."""
    bucket = TokenBucket(10.0, 0.0)
    assert sum(bucket.take(1000.0) for _ in range(50)) == 10


def test_a_lower_rate_keeps_no_old_burst():
    """A rate that was lowered bounds what was gathered before."""
    bucket = TokenBucket(100.0, 0.0)
    bucket.set_rate(2.0, 1000.0)
    assert sum(bucket.take(1000.0) for _ in range(50)) == 2


def test_a_token_that_was_given_back_is_there_again():
    """Asking takes nothing, and what was taken for nothing can be taken again, once."""
    bucket = TokenBucket(1.0, 0.0)
    assert bucket.has_token(0.0)
    assert bucket.take(0.0)
    assert not bucket.has_token(0.0)
    bucket.give_back()
    assert bucket.take(0.0)
    assert not bucket.take(0.5)
