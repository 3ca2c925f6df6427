"""Which dead letters a page is about."""

import pytest

from dispatcher.console.letter_selection import (
    COUNTED,
    chosen_of,
    counts_of,
    filter_of,
    selection_of,
    wanted_of,
)
from dispatcher.core.delivery_log import FailedFilter
from dispatcher.core.errors import InvalidInputError
from dispatcher.operations.times import parse_rfc3339
from dispatcher.ports import FailedCount, FailedSummary

AT = "2026-01-15T10:30"
AT_MS = parse_rfc3339(f"{AT}:00Z")


def summary(**changes):
    fields = ("by_webhook", "by_type", "by_reason", "by_response_code", "by_hour_ms")
    return FailedSummary(**{"total": 9, "complete": True, **dict.fromkeys(fields, ()), **changes})


def test_filters_of_an_address_are_read():
    """Times without a zone are UTC; nothing filters nothing."""
    filters = {"reason": "gone", "subscription": "wh_1", "type": "user.created", "response_code": "5xx", "since": AT}
    wanted, problems = wanted_of(filters)
    assert problems == {}
    assert (wanted.reason, wanted.subscription_id, wanted.event_type) == ("gone", "wh_1", "user.created")
    assert (wanted.response_code, wanted.since_ms, wanted.until_ms) == ("5xx", AT_MS, None)
    assert wanted_of({}) == (FailedFilter(), {})


def test_one_wrong_filter_filters_nothing_and_is_named():
    """What a page lists must not look like what was asked for where it isn't; an action on it is refused."""
    filters = {"reason": "gone", "since": "yesterday", "until": "tomorrow"}
    wanted, problems = wanted_of(filters)
    assert wanted == FailedFilter()
    assert set(problems) == {"since", "until"}
    with pytest.raises(InvalidInputError):
        filter_of(filters)


def test_one_delivery_is_chosen_beside_the_filters():
    """By its id, in a question's address as in what the operation is asked."""
    chosen = {"subscription": "wh_1", "delivery": "del_1"}
    wanted = filter_of(chosen)
    assert (wanted.subscription_id, wanted.delivery_ids) == ("wh_1", ("del_1",))
    assert selection_of(chosen) == {"subscription": "wh_1", "delivery_ids": ["del_1"]}
    assert chosen == {"subscription": "wh_1", "delivery": "del_1"}


def test_a_form_chooses_by_what_it_names_and_nothing_else():
    """Empty fields choose nothing, and neither do fields of another kind."""
    assert chosen_of({"reason": "gone", "type": "", "rate": "5", "workspace_id": "other"}) == {"reason": "gone"}
    assert selection_of({"until": AT, "reason": "gone"}) == {"until": f"{AT}:00Z", "reason": "gone"}


def test_counts_lead_to_the_list_with_one_filter_more():
    """Others stay, the same one is replaced, text is escaped; no answer is called none; few of each are shown."""
    counts = counts_of(
        summary(
            by_reason=[FailedCount("gone", 4)],
            by_webhook=[FailedCount(f"wh_{number}", 1) for number in range(COUNTED + 3)],
            by_type=[FailedCount("a&b=c", 2)],
            by_response_code=[FailedCount(503, 3), FailedCount(0, 1)],
        ),
        {"reason": "attempts_exhausted", "since": AT},
    )
    assert [(each.value, each.count, each.link) for each in counts["Reason"]] == [
        ("gone", 4, "/console/dead-letters?reason=gone&since=2026-01-15T10%3A30")
    ]
    assert len(counts["Webhook"]) == COUNTED
    assert counts["Event type"][0].link.endswith("&type=a%26b%3Dc")
    assert [(each.value, each.link.rpartition("=")[2]) for each in counts["Response"]] == [
        ("503", "503"),
        ("none", "none"),
    ]
