"""Whole numbers are whole however they are written."""

import math

import pytest

from dispatcher.operations.number_rules import as_whole


@pytest.mark.parametrize(("sent", "read"), [(3.0, 3), (-2.0, -2), (1e300, 10**300)])
def test_a_number_without_a_fraction_is_an_integer(sent, read):
    """JSON's 3.0 is read as 3."""
    assert isinstance(as_whole(sent), int)
    assert as_whole(sent) == pytest.approx(read)


@pytest.mark.parametrize("sent", [2.5, math.inf, True, "3", None, [3.0]])
def test_all_else_is_left_to_the_field(sent):
    """Fractions, texts and booleans pass through for the field to refuse."""
    assert as_whole(sent) is sent
