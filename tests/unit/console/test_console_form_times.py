"""Times as a form's fields have them."""

import pytest

from dispatcher.console.form_times import as_rfc3339


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("2026-01-15T10:30", "2026-01-15T10:30:00Z"),
        ("2026-01-15T10:30:05", "2026-01-15T10:30:05Z"),
        ("2026-01-15T10:30:05Z", "2026-01-15T10:30:05Z"),
        ("2026-01-15T10:30+01:00", "2026-01-15T10:30+01:00"),
        ("yesterday", "yesterday"),
        ("", ""),
    ],
)
def test_times_without_a_zone_are_utc(typed, read):
    """Minutes get seconds, both get the zone; what a field didn't send stays as it is."""
    assert as_rfc3339(typed) == read
