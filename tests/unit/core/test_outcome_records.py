"""Records of the outcomes topic, against their published schemas."""

import json
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from jsonschema_rs import Draft202012Validator

from dispatcher.core.delivery_log import TERMINAL, LogEntry
from dispatcher.core.endpoint_health import FailingEndpoint
from dispatcher.core.model import Origin
from dispatcher.core.outcome_records import delivery_finished, webhook_disabled, webhook_failing
from dispatcher.metrics import DISABLED_REASONS, FINISHED_OUTCOMES

FOLDER = Path(__file__).parents[3] / "schemas" / "records"
SCHEMAS = {name: json.loads((FOLDER / f"{name}.json").read_text()) for name in ("outcome", "operational-event")}
ACCEPTS = {name: Draft202012Validator(schema).is_valid for name, schema in SCHEMAS.items()}

times = st.integers(0, 4_102_444_800_000)
any_text = st.text(st.characters(), max_size=50)  # lone surrogates as well
entries = st.builds(
    LogEntry,
    any_text,
    any_text,
    any_text,
    any_text,
    any_text,
    any_text,
    st.just(Origin("events", 0, 0, 0)),
    st.sampled_from(["", "rpl_1"]),
    st.integers(0, 20),
    st.sampled_from(sorted(TERMINAL)),
    times,
    response_code=st.sampled_from([0, 200, 410, 599]),
    reason=st.sampled_from(["", "gone", "inactive"]),
)
endpoints = st.builds(FailingEndpoint, any_text, any_text, st.integers(1), times, times, st.booleans())
ENDPOINT = FailingEndpoint("wh_1", "ws", 3, 1_768_473_000_000, 1_768_473_600_000)


@given(entries, st.integers(0, 30))
def test_any_outcome_fits_its_schema_and_no_other(entry, attempts):
    """What is written of a finished delivery is what was published, whatever its event's publisher wrote."""
    record = json.loads(delivery_finished(entry, attempts))
    assert ACCEPTS["outcome"](record)
    assert not ACCEPTS["operational-event"](record)
    assert record["delivery_id"] == entry.delivery_id
    assert record["status"] == entry.status


@given(endpoints, times, st.sampled_from(DISABLED_REASONS))
def test_any_operational_event_fits_its_schema_and_no_other(endpoint, at_ms, reason):
    """So it is with both operational events."""
    for written in (webhook_failing(endpoint, at_ms, 1_000), webhook_disabled(endpoint, reason, at_ms)):
        record = json.loads(written)
        assert ACCEPTS["operational-event"](record)
        assert not ACCEPTS["outcome"](record)


def test_the_schemas_list_what_the_code_knows():
    """The published statuses and reasons are complete, and a record lacks none of the members."""
    assert sorted(SCHEMAS["outcome"]["properties"]["status"]["enum"]) == sorted(TERMINAL) == sorted(FINISHED_OUTCOMES)
    assert SCHEMAS["operational-event"]["properties"]["reason"]["enum"] == list(DISABLED_REASONS)
    assert SCHEMAS["outcome"]["required"] == list(SCHEMAS["outcome"]["properties"])


def test_an_event_that_is_written_again_has_the_same_id():
    """After a crash in between, whoever reads the topic can tell the repeat; another time of failing is another."""

    def id_of(written):
        return json.loads(written)["id"]

    first = id_of(webhook_failing(ENDPOINT, 1, 1_000))
    assert first == id_of(webhook_failing(ENDPOINT, 2, 1_000))
    assert first != id_of(webhook_failing(replace(ENDPOINT, failing_since_ms=5), 1, 1_000))
    assert first != id_of(webhook_disabled(ENDPOINT, "failing", 1))


def test_the_times_of_a_warning_say_from_when_to_when():
    """The owner reads since when it fails and from when on it is disabled."""
    record = json.loads(webhook_failing(ENDPOINT, 1_768_473_600_000, 86_400_000))
    assert record["failing_since"] == "2026-01-15T10:30:00Z"
    assert record["at"] == "2026-01-15T10:40:00Z"
    assert record["disabled_from"] == "2026-01-16T10:30:00Z"
