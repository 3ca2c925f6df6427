"""The published schemas of own records' headers, against the codec that writes and reads them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema_rs import Draft202012Validator

from dispatcher.core import records
from dispatcher.core.errors import UndecodableError
from dispatcher.core.model import DeadLetterReason
from dispatcher.core.records import bad_record_headers, decode_dead_letter, decode_headers, encode_headers
from tests.unit.core.test_records import DELIVERY, deliveries, origins

FOLDER = Path(__file__).parents[3] / "schemas" / "records"
SCHEMAS = {path.stem: json.loads(path.read_text()) for path in FOLDER.glob("*.json")}
ACCEPTS = {name: Draft202012Validator(schema).is_valid for name, schema in SCHEMAS.items()}
KEPT = (("ce_id", b"1"), ("Content-Type", b"application/json"), ("traceparent", b"00-x"))
reasons = st.sampled_from(list(DeadLetterReason))


def as_text(headers):
    return {name: value.decode() for name, value in headers}


@pytest.mark.parametrize("name", ["retry", "dead-letter"])
def test_every_header_is_described_and_no_other(name):
    """The schemas name exactly the headers that the codec knows."""
    own = {value for value in vars(records).values() if isinstance(value, str) and value.startswith("dispatcher-")}
    assert set(SCHEMAS[name]["properties"]) == own - {records.PREFIX}


def test_the_reasons_of_dead_letters_are_those_of_the_code():
    """The published list is complete."""
    told = SCHEMAS["dead-letter"]["properties"]["dispatcher-reason"]["enum"]
    assert told == [reason.value for reason in DeadLetterReason]


@given(deliveries)
def test_headers_of_any_delivery_fit_the_schema(delivery):
    """What the codec writes on retry, overflow and replay topics is what was published."""
    assert ACCEPTS["retry"](as_text(encode_headers(delivery, KEPT)))


@given(deliveries, reasons)
def test_headers_of_any_ended_delivery_fit_the_schema_of_dead_letters(delivery, reason):
    """So it is on the dead-letter topic, where a reason must stand."""
    delivery.reason = reason.value
    assert ACCEPTS["dead-letter"](as_text(encode_headers(delivery, KEPT)))
    delivery.reason = "made up"
    assert not ACCEPTS["dead-letter"](as_text(encode_headers(delivery, KEPT)))


@given(origins, reasons, st.text())
def test_headers_of_any_refused_record_fit_the_schema_of_dead_letters(origin, reason, error):
    """A source record that is no event has the second form."""
    headers = as_text((*bad_record_headers(origin, reason, error), *KEPT))
    assert ACCEPTS["dead-letter"](headers)
    assert not ACCEPTS["retry"](headers)


@pytest.mark.parametrize(
    ("name", "read", "reason"), [("retry", decode_headers, ""), ("dead-letter", decode_dead_letter, "gone")]
)
def test_what_lacks_a_header_is_neither_accepted_nor_read(name, read, reason):
    """Codec and schema agree on which headers must be there."""
    written = encode_headers(replace(DELIVERY, reason=reason), ())
    for left_out, _ in written:
        rest = tuple(each for each in written if each[0] != left_out)
        if name == "dead-letter" and left_out == "dispatcher-reason":
            continue  # read leniently, so that no dead letter is out of reach
        try:
            read(rest)
            readable = True
        except UndecodableError:
            readable = False
        if name == "dead-letter" and left_out == "dispatcher-delivery-id":
            readable = ACCEPTS[name](as_text(rest))  # then it is a refused record, with more headers than it needs
        assert ACCEPTS[name](as_text(rest)) == readable, left_out


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("dispatcher-attempt", "-1"),
        ("dispatcher-attempt", "1.0"),
        ("dispatcher-origin-offset", ""),
        ("dispatcher-origin-timestamp-ms", "-2"),
        ("dispatcher-origin-key", "no base64!"),
        ("dispatcher-not-before-ms", "soon"),
        ("dispatcher-delivery-id", ""),
        ("dispatcher-delivery-id", "é"),
    ],
)
def test_a_damaged_header_is_neither_accepted_nor_read(header, value):
    """Codec and schema agree on what a header may hold."""
    written = as_text(encode_headers(DELIVERY, ())) | {header: value}
    assert not ACCEPTS["retry"](written)
    with pytest.raises(UndecodableError):
        decode_headers(tuple((name, text.encode()) for name, text in written.items()))
