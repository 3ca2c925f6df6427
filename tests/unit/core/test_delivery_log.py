"""The delivery log's merge: a function of the set of entries."""

import functools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.delivery_log import (
    MAX_LOGGED_BODY_BYTES,
    MAX_LOGGED_ERROR_CHARS,
    DeliveryStatus,
    LoggedState,
    already_done,
    merge,
    shown,
)
from tests.unit.mongo.samples import START_MS, entries_of_one_delivery, entry

RETRYING, DELIVERED, FAILED, SKIPPED = (
    DeliveryStatus.RETRYING,
    DeliveryStatus.DELIVERED,
    DeliveryStatus.FAILED,
    DeliveryStatus.SKIPPED,
)


def merged(*entries):
    return functools.reduce(merge, entries, None)


@given(st.lists(entries_of_one_delivery(), min_size=1, max_size=8), st.data())
def test_the_order_and_number_of_writes_do_not_matter(entries, data):
    """Any order of the same entries, any of them repeated, makes the same document."""
    repeats = data.draw(st.lists(st.sampled_from(entries), max_size=4))
    assert merged(*data.draw(st.permutations(entries + repeats))) == merged(*entries)


@given(st.lists(entries_of_one_delivery(), min_size=1, max_size=8), entries_of_one_delivery())
def test_delivered_never_reverts_within_a_run(entries, late):
    """Once a run delivered, no entry of the same or an earlier run changes that."""
    before = merged(*entries, replace(entries[0], run="rp_2", status=DELIVERED))
    assert merge(before, late).state.status == DELIVERED


@given(st.lists(entries_of_one_delivery(), min_size=1, max_size=8))
def test_the_summary_is_that_of_the_latest_run(entries):
    """Run and attempts made are the latest run's, and the times span all entries."""
    delivery, latest = shown(merged(*entries)), max(entry.run for entry in entries)
    assert delivery.run == latest
    assert delivery.attempts_made == max(entry.attempt for entry in entries if entry.run == latest)
    assert delivery.status in {entry.status for entry in entries if entry.run == latest}
    assert delivery.created_at_ms == min(entry.at_ms for entry in entries)
    assert delivery.updated_at_ms == max(entry.at_ms for entry in entries)


def test_a_retry_moves_the_summary_on():
    """A later attempt of the same run replaces the summary, and both attempts are kept in order."""
    first = entry(status=RETRYING, response_code=500, next_attempt_at_ms=START_MS + 60_000)
    second = entry(attempt=2, at_ms=START_MS + 60_000, status=FAILED, response_code=410, reason="gone")
    delivery = shown(merged(second, first))
    assert (delivery.status, delivery.response_code, delivery.reason) == (FAILED, 410, "gone")
    assert delivery.next_attempt_at_ms is None
    assert [(attempt.attempt, attempt.response_code) for attempt in delivery.attempts] == [(1, 500), (2, 410)]


def test_of_two_stories_about_one_attempt_delivered_wins():
    """Where an attempt was made twice, the delivered one is kept, however early it was."""
    early = entry(status=DELIVERED, at_ms=START_MS)
    late = entry(status=RETRYING, at_ms=START_MS + 9, response_code=500)
    assert merged(early, late).steps == merged(early).steps


def test_a_closed_delivery_keeps_its_attempts():
    """A step without an attempt decides the status and is not among the attempts."""
    closed = entry(attempt=0, status=SKIPPED, reason="inactive", response_code=0)
    delivery = shown(merged(entry(status=RETRYING), closed))
    assert (delivery.status, delivery.reason, delivery.attempts_made) == (SKIPPED, "inactive", 1)
    assert [attempt.attempt for attempt in delivery.attempts] == [1]


def test_long_answers_are_cut():
    """Response body and error text are kept up to their bounds, and always as valid UTF-8."""
    attempt = shown(merged(entry(response_body=b"x" * 5000, error="é\ud800" * 300))).attempts[0]
    assert len(attempt.response_body) == MAX_LOGGED_BODY_BYTES
    assert attempt.error == "é?" * (MAX_LOGGED_ERROR_CHARS // 2)


@pytest.mark.parametrize(
    ("logged", "run", "next_attempt", "done"),
    [
        (None, "", 1, False),
        (LoggedState("", 1, RETRYING), "", 2, False),
        (LoggedState("", 2, RETRYING), "", 2, True),
        (LoggedState("", 1, DELIVERED), "", 2, True),
        (LoggedState("", 1, DELIVERED), "rp_1", 1, False),
        (LoggedState("rp_1", 1, RETRYING), "", 3, True),
    ],
)
def test_a_logged_attempt_is_not_made_again(logged, run, next_attempt, done):
    """A record is closed where its run ended, its attempt is logged, or a later run took over."""
    assert already_done(logged, run, next_attempt) is done
