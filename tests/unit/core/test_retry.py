"""The schedule: its tiers, its times, and what Retry-After says."""

import datetime as dt
import time
from email.utils import format_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dispatcher.core.model import RetryTier
from dispatcher.core.retry import DEFAULT_TIERS, Due, due_after, parse_retry_after, parse_tier, waited_in

NOW_MS = 1_768_473_000_000  # 2026-01-15T10:30:00Z
UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


@pytest.mark.parametrize(
    ("text", "name", "delay_ms"),
    [
        ("500ms", "500ms", 500),
        ("1000ms", "1s", 1_000),
        ("1500ms", "1500ms", 1_500),
        ("2s", "2s", 2_000),
        ("60s", "1m", 60_000),
        ("90s", "90s", 90_000),
        ("60m", "1h", 3_600_000),
        (" 5m ", "5m", 300_000),
        ("24h", "1d", 86_400_000),
        ("36h", "36h", 129_600_000),
        ("7d", "7d", 604_800_000),
    ],
)
def test_a_delay_has_one_name(text, name, delay_ms):
    """A delay is read in any unit and named in the largest that divides it."""
    assert parse_tier(text) == RetryTier(name, delay_ms)


@given(st.integers(1, 10**9), st.sampled_from(list(UNITS_MS)))
def test_names_are_canonical(number, unit):
    """The name denotes the same delay and is its own name; two spellings of one delay have one name."""
    tier = parse_tier(f"{number}{unit}")
    assert tier.delay_ms == number * UNITS_MS[unit]
    assert parse_tier(tier.name) == tier
    if len(str(tier.delay_ms)) <= 10:
        assert parse_tier(f"{tier.delay_ms}ms") == tier


@pytest.mark.parametrize(
    "text", ["", "5", "m", "0s", "01m", "-1m", "1.5m", "1 m", "1M", "1w", "1m5s", "٣m", "99999999999s", "1m\x00"]
)
def test_what_is_no_delay_is_refused(text):
    """A delay of another form is refused, and the message says how to write one."""
    with pytest.raises(ValueError, match="such as 5m"):
        parse_tier(text)


def test_the_default_schedule():
    """The tiers are 1 m, 5 m, 30 m, 1 h and 6 h unless configured otherwise."""
    assert [tier.name for tier in DEFAULT_TIERS] == ["1m", "5m", "30m", "1h", "6h"]


@pytest.mark.parametrize("attempt", [0, -1])
def test_attempts_count_from_one(attempt):
    """An attempt below 1 is a fault of the caller and raises."""
    with pytest.raises(ValueError, match="from 1"):
        due_after(attempt, NOW_MS, DEFAULT_TIERS)


@given(st.integers(1, 40), st.floats(0, 10**6) | st.just(float("inf")))
def test_the_tier_is_the_smallest_that_is_allowed(attempt, asked):
    """The tier is the first from the schedule's on that covers what was asked for, else the last."""
    step = min(attempt, 5) - 1
    allowed = [tier for tier in DEFAULT_TIERS[step:] if tier.delay_ms >= asked * 1000] or [DEFAULT_TIERS[-1]]
    assert due_after(attempt, NOW_MS, DEFAULT_TIERS, retry_after_seconds=asked) == Due(
        allowed[0], NOW_MS + allowed[0].delay_ms
    )


@given(st.integers(1, 5), st.integers(0, 10**10))
def test_the_time_is_exact(attempt, failed_at_ms):
    """The next attempt is due the tier's delay after the failure, to the millisecond."""
    due = due_after(attempt, failed_at_ms, DEFAULT_TIERS)
    assert due.not_before_ms - failed_at_ms == DEFAULT_TIERS[attempt - 1].delay_ms


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, 0),
        ("0", 0),
        ("120", 120),
        (" 120 ", 120),
        ("0120", 120),
        ("99999999999", 99_999_999_999),
        ("9" * 400, float("inf")),
        ("Thu, 15 Jan 2026 10:40:00 GMT", 600),
        ("Thursday, 15-Jan-26 10:40:00 GMT", 600),
        ("Thu Jan 15 10:40:00 2026", 600),
        ("Thu, 15 Jan 2026 10:40:00 -0000", 600),
        ("Thu, 15 Jan 2026 10:29:59 GMT", 0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0),
        ("-1", 0),
        ("+1", 0),
        ("1.5", 0),
        ("1e3", 0),
        ("10m", 0),
        ("60s", 0),
        ("10, 20", 0),
        ("٣", 0),
        ("²", 0),
        ("", 0),
        ("never", 0),
        ("Thu, 99 Jan 2026 10:40:00 GMT", 0),
        ("Thu, 15 Jan 99999 10:40:00 GMT", 0),
        ("Thu, 15 Jan 2026 10:40:00 +99999999", 0),
    ],
)
def test_retry_after_is_seconds_or_a_date(value, seconds):
    """Seconds and all three forms of an HTTP date are read; a past date and what can't be read ask for nothing."""
    assert parse_retry_after(value, NOW_MS) == seconds


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/Los_Angeles", "UTC"])
def test_dates_are_gmt_wherever_the_machine_is(zone, monkeypatch):
    """A date without a zone means GMT on a machine in any time zone."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert parse_retry_after("Thu Jan 15 10:40:00 2026", NOW_MS) == 600
    finally:
        monkeypatch.undo()
        time.tzset()


@given(st.integers(0, 10**11))
def test_every_date_to_come_is_read(seconds):
    """Every HTTP date from now on asks for exactly the seconds until then."""
    at = dt.datetime.fromtimestamp(NOW_MS / 1000 + seconds, tz=dt.UTC)
    assert parse_retry_after(format_datetime(at, usegmt=True), NOW_MS) == seconds


fragments = st.sampled_from(
    ["Thu", ",", " ", "15", "Jan", "2026", "10:40:00", "GMT", "+9999", "-0000", ":", "-", "99999", "0"]
)


@given(
    st.text(max_size=40) | st.lists(fragments, max_size=9).map(" ".join) | st.lists(fragments, max_size=9).map("".join)
)
@example("\x00")
@example("1" * 5000 + "x")
def test_reading_retry_after_never_raises(value):
    """Whatever an endpoint writes there, the answer is a number of seconds that isn't negative."""
    seconds = parse_retry_after(value, NOW_MS)
    assert seconds >= 0
    assert due_after(1, NOW_MS, DEFAULT_TIERS, retry_after_seconds=seconds).tier in DEFAULT_TIERS


@pytest.mark.parametrize(
    ("waited_ms", "attempt", "tier"),
    [
        (60_000, 1, "1m"),
        (59_980, 1, "1m"),
        (0, 0, "1m"),
        (300_000, 2, "5m"),
        (3_600_000, 1, "1h"),
        (21_600_000, 19, "6h"),
        (0, 19, "6h"),
    ],
)
def test_the_tier_of_a_wait_is_the_schedules_or_a_longer_one_that_fits(waited_ms, attempt, tier):
    """A wait tells its tier: never a shorter one than the schedule has, the last one again and again."""
    assert waited_in(waited_ms, attempt, DEFAULT_TIERS).name == tier
