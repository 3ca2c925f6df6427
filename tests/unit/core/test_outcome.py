"""What an attempt's response means for its delivery."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.exchange import Response, SendFailure
from dispatcher.core.model import DeadLetterReason, RetryTier
from dispatcher.core.outcome import DeadLetter, Delivered, Retry, classify, describe, is_success
from dispatcher.core.retry import DEFAULT_TIERS, Due

NOW_MS = 1_768_473_000_000
IN_TEN_MINUTES = "Thu, 15 Jan 2026 10:40:00 GMT"
EXHAUSTED = DeadLetter(DeadLetterReason.ATTEMPTS_EXHAUSTED)
GONE = DeadLetter(DeadLetterReason.GONE, disable=True)


def answer(status: int, retry_after: str | None = None) -> Response:
    return Response(status, None, "", retry_after, b"", 12.5)


def failure(kind: SendFailure, detail: str = "") -> Response:
    return Response(0, kind, detail, None, b"", 12.5)


def tier_of(response: Response, attempt: int = 1) -> str:
    outcome = classify(response, attempt, 20, DEFAULT_TIERS, NOW_MS)
    assert isinstance(outcome, Retry)
    assert outcome.due.not_before_ms == NOW_MS + outcome.due.tier.delay_ms
    return outcome.due.tier.name


@pytest.mark.parametrize("status", [200, 201, 202, 204, 206, 226, 299])
@pytest.mark.parametrize("attempt", [1, 6, 7])
def test_any_2xx_is_a_delivery(status, attempt):
    """Every 2xx status delivers, on whichever attempt."""
    assert is_success(answer(status))
    assert classify(answer(status), attempt, 6, DEFAULT_TIERS, NOW_MS) == Delivered()


@given(st.integers(0, 999).filter(lambda status: not 200 <= status < 300 and status != 410))
def test_every_other_status_is_tried_again(status):
    """Whatever isn't 2xx (redirects too) fails the attempt, and the next waits in the schedule's tier."""
    assert not is_success(answer(status))
    assert classify(answer(status), 1, 6, DEFAULT_TIERS, NOW_MS) == Retry(Due(DEFAULT_TIERS[0], NOW_MS + 60_000))


@pytest.mark.parametrize("kind", list(SendFailure))
def test_every_failure_is_tried_again(kind):
    """An attempt without an answer, for whichever reason, fails and is tried again, then exhausted."""
    assert tier_of(failure(kind)) == "1m"
    assert classify(failure(kind), 6, 6, DEFAULT_TIERS, NOW_MS) == EXHAUSTED


def test_the_schedule_as_documented():
    """Attempts 2 to 6 come after 1 m, 5 m, 30 m, 1 h and 6 h, and then 6 h repeats."""
    assert [tier_of(answer(500), attempt) for attempt in range(1, 9)] == [
        "1m",
        "5m",
        "30m",
        "1h",
        "6h",
        "6h",
        "6h",
        "6h",
    ]


@pytest.mark.parametrize(("attempt", "max_attempts"), [(1, 1), (6, 6), (20, 20), (7, 6)])
def test_the_last_attempt_exhausts_the_delivery(attempt, max_attempts):
    """max_attempts counts the first attempt; a failure on the last one, or past a lowered bound, is final."""
    assert classify(answer(500), attempt, max_attempts, DEFAULT_TIERS, NOW_MS) == EXHAUSTED


def test_one_attempt_before_the_last_there_is_another():
    """A failure before the last attempt is tried again."""
    assert isinstance(classify(answer(500), 5, 6, DEFAULT_TIERS, NOW_MS), Retry)


@pytest.mark.parametrize(("attempt", "max_attempts"), [(1, 6), (6, 6), (1, 1), (9, 6)])
def test_gone_ends_and_disables(attempt, max_attempts):
    """410 ends the delivery as gone and disables the subscription, on the last attempt as on the first."""
    assert classify(answer(410, "60"), attempt, max_attempts, DEFAULT_TIERS, NOW_MS) == GONE


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("retry_after", "tier"),
    [
        ("0", "1m"),
        ("60", "1m"),
        ("61", "5m"),
        ("600", "30m"),
        (IN_TEN_MINUTES, "30m"),
        ("1801", "1h"),
        ("21600", "6h"),
        ("21601", "6h"),
        ("99999999999999999999", "6h"),
        ("9" * 5000, "6h"),
        ("Fri, 31 Dec 9999 23:59:59 GMT", "6h"),
        ("Thu, 15 Jan 2026 10:00:00 GMT", "1m"),
        ("soon", "1m"),
        ("-600", "1m"),
        ("600.5", "1m"),
        ("", "1m"),
        (None, "1m"),
    ],
)
def test_retry_after_chooses_the_smallest_tier_that_covers_it(status, retry_after, tier):
    """A 429 or 503 waits in the smallest tier of at least its Retry-After; longer than all is the last."""
    assert tier_of(answer(status, retry_after)) == tier


@pytest.mark.parametrize("status", [500, 502, 504, 301, 404])
def test_retry_after_of_other_statuses_is_ignored(status):
    """Only 429 and 503 have a say in when the next attempt comes."""
    assert tier_of(answer(status, "7200")) == "1m"


def test_retry_after_never_hastens():
    """An endpoint that asks for less than the schedule gets the schedule, and later steps go by number again."""
    assert tier_of(answer(429, "1"), 4) == "1h"
    assert tier_of(answer(429, "3600"), 1) == "1h"
    assert tier_of(answer(500), 2) == "5m"


def test_retry_after_does_not_add_attempts():
    """A 503 that asks for a later attempt gets none past the last."""
    assert classify(answer(503, "60"), 6, 6, DEFAULT_TIERS, NOW_MS) == EXHAUSTED


tiers = st.lists(st.integers(1, 10**8), min_size=1, max_size=6, unique=True).map(
    lambda delays: tuple(RetryTier(f"{delay}ms", delay) for delay in sorted(delays))
)


@given(st.integers(0, 999), st.none() | st.integers(0, 10**6).map(str), st.integers(1, 30), st.integers(1, 20), tiers)
def test_a_delivery_always_ends(status, retry_after, attempt, max_attempts, schedule):
    """Whatever comes, an attempt at the bound ends the delivery, and one before it never hastens the next."""
    outcome = classify(answer(status, retry_after), attempt, max_attempts, schedule, NOW_MS)
    if isinstance(outcome, Retry):
        assert attempt < max_attempts
        assert outcome.due.tier in schedule
        assert outcome.due.tier.delay_ms >= schedule[min(attempt, len(schedule)) - 1].delay_ms
        assert outcome.due.not_before_ms == NOW_MS + outcome.due.tier.delay_ms


@pytest.mark.parametrize(
    ("response", "text"),
    [
        (answer(200), ""),
        (answer(404), "the endpoint answered 404"),
        (answer(302), "the endpoint answered 302"),
        (failure(SendFailure.TIMEOUT), "timeout"),
        (failure(SendFailure.DNS, "no such name"), "dns: no such name"),
    ],
)
def test_the_error_in_words(response, text):
    """The log's error names the status or the failure, and is empty for a success."""
    assert describe(response) == text
