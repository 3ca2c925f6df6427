"""When a failed delivery is tried again.

Source: RFC 9110 section 10.2.3 (Retry-After).
"""

import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from dispatcher.core.model import RetryTier

_UNITS_MS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1))
_TIER = re.compile(r"([1-9][0-9]{0,9})(ms|s|m|h|d)")
_DELTA_SECONDS = re.compile(r"[0-9]+")


def parse_tier(text: str) -> RetryTier:
    """Read one delay, such as `500ms`, `2s`, `1m`, `6h`.

    Returns:
        The tier under its canonical name: the largest unit that divides it, so `60s` is `1m`.

    Raises:
        ValueError: It has no such form.
    """
    match = _TIER.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no delay; write a whole number and ms, s, m, h or d, such as 5m")
    delay_ms = int(match[1]) * dict(_UNITS_MS)[match[2]]
    unit, size = next((unit, size) for unit, size in _UNITS_MS if delay_ms % size == 0)
    return RetryTier(f"{delay_ms // size}{unit}", delay_ms)


DEFAULT_TIERS = tuple(parse_tier(name) for name in ("1m", "5m", "30m", "1h", "6h"))


@dataclass(frozen=True, slots=True)
class Due:
    """Where a delivery waits, and until when.

    Attributes:
        tier: The tier whose topic it waits in.
        not_before_ms: Unix milliseconds at which it is tried again.
    """

    tier: RetryTier
    not_before_ms: int


def due_after(attempt: int, failed_at_ms: int, tiers: Sequence[RetryTier], *, retry_after_seconds: float = 0) -> Due:
    """Say when a failed delivery is tried again, and in which tier it waits.

    The tier is the schedule's for this attempt, or the shortest longer one that covers what the endpoint
    asked for; past the last tier, the last repeats.

    Args:
        attempt: Attempts already made, from 1.
        failed_at_ms: When the last one ended, unix milliseconds.
        tiers: The schedule, shortest first; never empty.
        retry_after_seconds: What the response's Retry-After asked for; 0 where it asked nothing.

    Returns:
        The tier and the time: `failed_at_ms` plus the tier's delay.

    Raises:
        ValueError: attempt is below 1: a fault of the caller, never an outcome.
    """
    if attempt < 1:
        raise ValueError(f"attempt counts from 1, not {attempt}")
    step = min(attempt, len(tiers)) - 1
    wanted_ms = retry_after_seconds * 1000
    covering = (tier for tier in tiers[step:] if tier.delay_ms >= wanted_ms)
    tier = next(covering, tiers[-1])
    return Due(tier, failed_at_ms + tier.delay_ms)


def waited_in(waited_ms: int, attempt: int, tiers: Sequence[RetryTier]) -> RetryTier:
    """Say which tier a delivery waited, or waits, in, from how long that takes.

    The schedule's for this attempt, or a longer one that an endpoint's Retry-After asked for.

    Args:
        waited_ms: How long.
        attempt: Attempts made before, from 0; before the first there is no tier, and the first one stands for it.
        tiers: The schedule, shortest first; never empty.
    """
    step = min(max(attempt, 1), len(tiers)) - 1
    fitting = [tier for tier in tiers[step:] if tier.delay_ms <= waited_ms]
    return fitting[-1] if fitting else tiers[step]


def parse_retry_after(value: str | None, now_ms: int) -> float:
    """Read a Retry-After header.

    Args:
        value: The header's value: seconds or an HTTP date; None where there was none.
        now_ms: Unix milliseconds, for dates.

    Returns:
        Seconds from now, never below 0, infinite where the number is beyond a double; 0 for what can't be read.
    """
    if value is None:
        return 0
    value = value.strip()
    if _DELTA_SECONDS.fullmatch(value):
        return float(value)
    try:
        at = parsedate_to_datetime(value)
        if at.tzinfo is None:
            at = at.replace(tzinfo=dt.UTC)  # the asctime form names no zone and means GMT
        return max(0.0, at.timestamp() - now_ms / 1000)
    except (ValueError, TypeError, OverflowError, IndexError):
        return 0
