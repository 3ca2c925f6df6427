"""Percentiles from samples."""

import pytest

from dispatcher.operations.latency import Latency, Sample, latency_of


@pytest.mark.parametrize(
    ("durations", "told"),
    [
        ([7.0], (7.0, 7.0, 7.0)),
        ([1.0, 2.0], (1.0, 2.0, 2.0)),
        ([3.0, 1.0, 2.0], (2.0, 3.0, 3.0)),
        ([float(number) for number in range(1, 21)], (10.0, 19.0, 20.0)),
        ([float(number) for number in range(1, 101)], (50.0, 95.0, 99.0)),
        ([float(number) for number in range(1, 201)], (100.0, 190.0, 198.0)),
    ],
)
def test_percentiles_are_by_nearest_rank(durations, told):
    """The smallest duration that so many percent of all don't exceed, whatever they stand for."""
    for weight in (1.0, 0.1, 1.7, 1e6):
        assert latency_of([Sample(durations, weight)]) == Latency(*told)


def test_each_duration_counts_as_often_as_it_stands_for():
    """One that stands for ninety-eight others outweighs two."""
    assert latency_of([Sample([5.0], 98.0), Sample([100.0, 200.0], 1.0)]) == Latency(5.0, 5.0, 100.0)


def test_of_nothing_there_is_no_percentile():
    """No sample, or none that has a duration."""
    assert latency_of([]) is None
    assert latency_of([Sample([], 3.0)]) is None
