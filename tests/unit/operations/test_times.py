"""Times as text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.operations.times import parse_rfc3339, rfc3339


@given(at_ms=st.integers(-62_135_596_800_000, 253_402_300_799_999))
def test_a_time_survives_the_way_out_and_back(at_ms):
    """What is written is read as the same millisecond."""
    assert parse_rfc3339(rfc3339(at_ms)) == at_ms


@pytest.mark.parametrize(
    ("text", "at_ms"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t00:00:01z", 1000),
        ("1970-01-01T01:00:00.5+01:00", 500),
        ("1970-01-01T00:00:00.123456789Z", 123),
        ("1969-12-31T23:59:59.999Z", -1),
    ],
)
def test_rfc3339_is_read(text, at_ms):
    """Zones, fractions and either case are understood."""
    assert parse_rfc3339(text) == at_ms


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-01-15",
        "2026-01-15T10:30:00",
        "2026-01-15 10:30:00Z",
        "2026-02-30T00:00:00Z",
        "2026-W03-4T00:00:00Z",
        "2026-01-15T25:00:00Z",
        "0001-01-01T00:00:00+99:99",
        "\uff12026-01-15T10:30:00Z",
        "2026-01-15T10:30:00Z\n",
    ],
)
def test_anything_else_is_refused(text):
    """What is no RFC 3339 time with a zone is refused with an example."""
    with pytest.raises(ValueError, match="2026-01-15T10:30:00Z"):
        parse_rfc3339(text)
