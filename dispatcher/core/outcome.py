"""What one attempt means for its delivery.

Source: Standard Webhooks 1.0, "Responses"; RFC 9110 sections 15.5.11 (410) and 10.2.3 (Retry-After).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from dispatcher.core.exchange import Response, SendFailure
from dispatcher.core.model import DeadLetterReason, RetryTier
from dispatcher.core.retry import Due, due_after, parse_retry_after

_GONE = 410
_THROTTLING = frozenset({429, 503})


@dataclass(frozen=True, slots=True)
class Delivered:
    """The endpoint answered with a 2xx status in time."""


@dataclass(frozen=True, slots=True)
class Retry:
    """The attempt failed and another follows.

    Attributes:
        due: Where it waits, and until when.
    """

    due: Due


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """The delivery has failed for good.

    Attributes:
        reason: Why.
        disable: True where the subscription is to be disabled as well.
    """

    reason: DeadLetterReason
    disable: bool = False


Outcome = Delivered | Retry | DeadLetter

DELIVERED = Delivered()
_EXHAUSTED = DeadLetter(DeadLetterReason.ATTEMPTS_EXHAUSTED)
_GONE_LETTER = DeadLetter(DeadLetterReason.GONE, disable=True)


def is_success(response: Response) -> bool:
    """Say whether a response is a delivery: any 2xx status."""
    return 200 <= response.status < 300  # noqa: PLR2004 - the 2xx range


def classify(response: Response, attempt: int, max_attempts: int, tiers: Sequence[RetryTier], now_ms: int) -> Outcome:
    """Say what an attempt's response means.

    Args:
        response: What came.
        attempt: The number of this attempt, from 1.
        max_attempts: The subscription's bound, the first attempt counted.
        tiers: The schedule, shortest first.
        now_ms: When the attempt ended, unix milliseconds.
    """
    if is_success(response):
        return DELIVERED
    if response.status == _GONE:
        return _GONE_LETTER
    if attempt >= max_attempts:
        return _EXHAUSTED
    asked = parse_retry_after(response.retry_after, now_ms) if response.status in _THROTTLING else 0
    return Retry(due_after(attempt, now_ms, tiers, retry_after_seconds=asked))


def is_overloaded(response: Response) -> bool:
    """Say whether an outcome asks for fewer requests at a time: a time-out, 429 or 503."""
    return response.failure is SendFailure.TIMEOUT or response.status in _THROTTLING


def describe(response: Response) -> str:
    """Say in words what went wrong: the log's `error`. Empty for a success."""
    if response.failure is not None:
        return f"{response.failure.value}: {response.detail}" if response.detail else response.failure.value
    return "" if is_success(response) else f"the endpoint answered {response.status}"
