"""Times as a form's fields have them."""

import pytest

from dispatcher.console.form_times import as_local, as_rfc3339
from dispatcher.operations.times import parse_rfc3339


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("2026-01-15T10:30", "2026-01-15T10:30:00Z"),
        ("2026-01-15T10:30:05", "2026-01-15T10:30:05Z"),
        ("2026-01-15T10:30:05.12", "2026-01-15T10:30:05.12Z"),
        ("2026-01-15T10:30:05Z", "2026-01-15T10:30:05Z"),
        ("2026-01-15T10:30+01:00", "2026-01-15T10:30+01:00"),
        ("yesterday", "yesterday"),
        ("", ""),
    ],
)
def test_times_without_a_zone_are_utc(typed, read):
    """Minutes get seconds, both get the zone; what a field didn't send stays as it is."""
    assert as_rfc3339(typed) == read


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("2026-01-15T10:30:05Z", "2026-01-15T10:30:05"),
        ("2026-01-15T10:30:05.120Z", "2026-01-15T10:30:05.120"),
        ("2026-01-15T11:30:05+01:00", "2026-01-15T10:30:05"),
        ("2026-01-15T10:30", "2026-01-15T10:30"),
        ("yesterday", "yesterday"),
        ("", ""),
    ],
)
def test_a_field_is_given_what_it_can_show(sent, shown):
    """A time with a zone is written in UTC without one, and comes back as the same time; other text as it is."""
    assert as_local(sent) == shown
    if sent != shown:
        assert parse_rfc3339(as_rfc3339(shown)) == parse_rfc3339(sent)
