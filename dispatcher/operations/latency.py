"""Percentiles of how long attempts took, from samples."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

_TRIFLE = 1e-9


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles of how long attempts took, ms."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Sample:
    """Some attempts out of many.

    Attributes:
        durations: How long they took, ms.
        weight: How many attempts each of them stands for.
    """

    durations: Sequence[float]
    weight: float


def latency_of(samples: Iterable[Sample]) -> Latency | None:
    """Return percentiles by nearest rank, each duration counted as often as it stands for; None of nothing."""
    ordered = sorted((duration, sample.weight) for sample in samples for duration in sample.durations)
    if not ordered:
        return None
    counted = list(accumulate(weight for _, weight in ordered))
    # A trifle less than the hundredths of the whole: sums of fractions are not exact.
    ranks = (bisect_left(counted, percent / 100 * counted[-1] * (1 - _TRIFLE)) for percent in (50, 95, 99))
    return Latency(*(ordered[rank][0] for rank in ranks))
