"""Later runs of a delivery: their ids, and the record that starts one."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.delivery_log import already_done, merge, shown
from dispatcher.core.errors import GoneError
from dispatcher.core.model import Origin
from dispatcher.core.records import decode_headers
from dispatcher.core.reruns import new_run_id, pending_entry, rerun_record
from tests.fakes.event_records import BINARY_HEADERS, ENVELOPE, raw
from tests.unit.mongo.samples import entry

MOMENTS = st.integers(0, 253_402_300_799_999)
CHANCE = st.binary(min_size=10, max_size=10)
ORIGIN = Origin("events", 3, 41, 1_768_473_000_123, b"user-7")
LOGGED = shown(merge(None, entry(1, workspace_id="acme", event_id="evt_1", origin=ORIGIN)))


@given(MOMENTS, CHANCE, MOMENTS, CHANCE)
def test_run_ids_sort_by_time(first_ms, first, second_ms, second):
    """Of two runs the later one has the greater id, every id has one length, and is greater than the first way's."""
    earlier, later = new_run_id(first_ms, first), new_run_id(second_ms, second)
    assert (earlier < later) == ((first_ms, first) < (second_ms, second))
    assert len(earlier) == len(later) == 30
    assert earlier > ""


@given(MOMENTS, CHANCE, MOMENTS, CHANCE)
def test_run_sorts_behind_the_one_before_whatever_the_clock_says(first_ms, first, second_ms, second):
    """A run that is made on a clock that goes behind still counts as the later one."""
    before = new_run_id(first_ms, first)
    after = new_run_id(second_ms, second, after=before)
    assert after > before
    assert new_run_id(second_ms, second, after="") == new_run_id(second_ms, second)
    assert new_run_id(1, first, after="rp_0001") > "rp_0001"


def test_rerun_starts_anew_from_the_origin_record():
    """Attempt 0 of a new run, the same delivery and origin, the event's own headers kept and no others."""
    logged = replace(LOGGED, event_id="A-1", source="/users")
    value = b'{"name":"Zoe"}'
    foreign = (*BINARY_HEADERS, ("dispatcher-attempt", b"7"), ("x-other", b"1"))
    key, headers = rerun_record(logged, "rpl_1", value, foreign, ORIGIN)
    record = decode_headers(headers)
    assert key == b"wh_1"
    assert (record.delivery_id, record.workspace_id, record.replay_id) == (logged.delivery_id, "acme", "rpl_1")
    assert (record.attempt, record.first_attempt_ms, record.not_before_ms, record.parked_since_ms) == (0, 0, 0, None)
    assert record.origin == ORIGIN
    kept = [name for name, _ in headers if not name.startswith("dispatcher-")]
    assert kept == [name for name, _ in BINARY_HEADERS]
    assert [name for name, _ in headers].count("dispatcher-attempt") == 1


@pytest.mark.parametrize(
    ("value", "headers"),
    [
        (raw(ENVELOPE, id="evt_2"), ()),
        (raw(ENVELOPE, workspace_id="globex"), ()),
        (b'{"name":"Zoe"}', tuple((name, b"evt_1" if name == "ce_id" else text) for name, text in BINARY_HEADERS)),
        (b"no event", ()),
        (None, ()),
    ],
    ids=["id", "workspace", "source", "undecodable", "empty"],
)
def test_another_record_at_the_coordinates_counts_as_gone(value, headers):
    """A record that decodes to another event id, workspace or source, or to none, is not sent in the place of it."""
    with pytest.raises(GoneError, match=r"offset 41 of topic events holds another"):
        rerun_record(LOGGED, "rpl_1", value, headers, ORIGIN)


def test_event_that_named_no_workspace_is_the_same_again():
    """A record without workspace is taken for one of the logged workspace, as it was the first time."""
    _, headers = rerun_record(LOGGED, "rpl_1", raw(ENVELOPE, workspace_id=...), (), ORIGIN)
    assert decode_headers(headers).workspace_id == "acme"


def test_pending_step_shows_the_new_run_and_closes_the_old_one():
    """The log shows the delivery as pending, its old schedule is over, and the new run's first attempt is still due."""
    run = new_run_id(2_000_000_000_000, bytes(10))
    document = merge(merge(None, entry(1)), pending_entry(LOGGED, run, 2_000_000_000_000))
    assert (shown(document).status, shown(document).run, shown(document).attempts_made) == ("pending", run, 0)
    assert already_done(document.state, "", 2)
    assert not already_done(document.state, run, 1)
