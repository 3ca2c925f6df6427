"""The header codec of the own topics."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core import records
from dispatcher.core.errors import UndecodableError
from dispatcher.core.model import Origin
from dispatcher.core.records import (
    BadRecord,
    DeliveryRecord,
    bad_record_headers,
    decode_dead_letter,
    decode_headers,
    due_ms,
    encode_headers,
    error_bytes,
    kept_headers,
    with_traceparent,
)

NAMES = {
    "dispatcher-delivery-id",
    "dispatcher-subscription-id",
    "dispatcher-workspace-id",
    "dispatcher-attempt",
    "dispatcher-not-before-ms",
    "dispatcher-first-attempt-ms",
    "dispatcher-parked-since-ms",
    "dispatcher-origin-topic",
    "dispatcher-origin-partition",
    "dispatcher-origin-offset",
    "dispatcher-origin-timestamp-ms",
    "dispatcher-origin-key",
    "dispatcher-reason",
    "dispatcher-http-status",
    "dispatcher-error",
    "dispatcher-replay-id",
}

ms = st.integers(0, 253_402_300_799_999)
texts = st.text(min_size=1)
origins = st.builds(
    Origin,
    topic=texts,
    partition=st.integers(0, 2**31 - 1),
    offset=st.integers(0, 2**63 - 1),
    timestamp_ms=st.integers(-1, 253_402_300_799_999),
    key=st.none() | st.binary(),
)
deliveries = st.builds(
    DeliveryRecord,
    delivery_id=texts,
    subscription_id=texts,
    workspace_id=texts,
    attempt=st.integers(0, 1_000_000),
    not_before_ms=ms,
    first_attempt_ms=ms,
    parked_since_ms=st.none() | ms,
    origin=origins,
    reason=st.text(),
    http_status=st.integers(0, 999),
    error=st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=256),
    replay_id=st.text(),
)
names = st.sampled_from(sorted(NAMES)) | st.text(max_size=10)
headers = st.lists(st.tuples(names, st.none() | st.binary(max_size=30) | st.integers().map(lambda n: b"%d" % n))).map(
    tuple
)

DELIVERY = DeliveryRecord(
    "del_1", "wh_1", "ws_1", 2, 1000, 500, 700, Origin("events", 3, 9, 400, b"\x00key"), "http", 503, "HTTP 503", "rp_1"
)


@given(deliveries, headers)
def test_what_is_written_is_read(delivery, kept):
    """Every delivery survives the way through headers, whatever the headers before it were."""
    assert decode_headers(encode_headers(delivery, kept)) == delivery


@given(deliveries, headers)
def test_headers_are_ascii_and_replaced(delivery, kept):
    """Own headers stand there once, in ASCII; of the others only the event's remain."""
    written = encode_headers(delivery, kept)
    own = [(name, value) for name, value in written if name.startswith("dispatcher-")]
    assert {name for name, _ in own} <= NAMES
    assert len({name for name, _ in own}) == len(own)
    assert all(value.isascii() for _, value in own)
    assert [each for each in written if each not in own] == list(kept_headers(kept))


@given(headers)
def test_nothing_but_undecodable_comes_of_any_headers(anything):
    """Headers of any kind are either read or refused with the one error."""
    for read in (decode_headers, decode_dead_letter):
        try:
            found = read(anything)
        except UndecodableError as error:
            assert "dispatcher-" in str(error)  # noqa: PT017 - both ways are right
        else:
            assert found.origin.offset >= 0


@given(deliveries, st.data())
def test_any_damaged_header_is_refused_or_read(delivery, data):
    """One header with any bytes in it never breaks the reader."""
    written = list(encode_headers(delivery, ()))
    at = data.draw(st.integers(0, len(written) - 1))
    written[at] = (written[at][0], data.draw(st.binary(max_size=40)))
    try:
        decode_headers(tuple(written))
    except UndecodableError as error:
        assert written[at][0] in str(error)  # noqa: PT017 - both ways are right


def test_every_header_has_its_name():
    """A delivery that has everything writes every header of the list."""
    assert {name for name, _ in encode_headers(DELIVERY, ())} == NAMES
    assert dict(encode_headers(DELIVERY, ()))["dispatcher-origin-key"] == b"AGtleQ=="


def test_what_is_not_there_has_no_header():
    """A first spill carries no empty headers."""
    bare = replace(
        DELIVERY,
        parked_since_ms=None,
        origin=replace(DELIVERY.origin, key=None),
        reason="",
        http_status=0,
        error="",
        replay_id="",
    )
    assert len(encode_headers(bare, ())) == 10


@pytest.mark.parametrize("name", sorted(NAMES - {"dispatcher-parked-since-ms", "dispatcher-origin-key",
                                                 "dispatcher-reason", "dispatcher-http-status", "dispatcher-error",
                                                 "dispatcher-replay-id"}))  # fmt: skip
def test_a_missing_header_is_named(name):
    """Each header that is needed is missed by name."""
    written = tuple(each for each in encode_headers(DELIVERY, ()) if each[0] != name)
    with pytest.raises(UndecodableError, match=f"{name} is missing"):
        decode_headers(written)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("dispatcher-attempt", b"two", "no whole number"),
        ("dispatcher-attempt", b"1_000", "no whole number"),
        ("dispatcher-attempt", b" 1", "no whole number"),
        ("dispatcher-attempt", b"", "no whole number"),
        ("dispatcher-attempt", b"-1", "out of range"),
        ("dispatcher-attempt", b"9" * 5000, "no whole number"),
        ("dispatcher-not-before-ms", b"99999999999999999", "out of range"),
        ("dispatcher-origin-partition", b"2147483648", "out of range"),
        ("dispatcher-origin-key", b"!", "no base64"),
        ("dispatcher-workspace-id", b"\xff", "no text"),
        ("dispatcher-workspace-id", b"%ff", "no text"),
        ("dispatcher-delivery-id", b"", "empty"),
        ("dispatcher-http-status", b"1000", "out of range"),
    ],
)
def test_a_bad_value_is_named(name, value, problem):
    """A value of no sense is refused with the header's name and what is wrong."""
    written = tuple((key, value if key == name else old) for key, old in encode_headers(DELIVERY, ()))
    with pytest.raises(UndecodableError, match=f"{name} is {problem}"):
        decode_headers(written)


def test_the_events_own_headers_are_kept():
    """CloudEvents attributes, content type and traceparent go along; anything else doesn't."""
    given_headers = (
        ("ce_id", b"1"),
        ("Content-Type", b"application/json"),
        ("traceparent", b"00-1"),
        ("authorization", b"secret"),
        ("dispatcher-attempt", b"9"),
        ("ce_null", None),
    )
    assert kept_headers(given_headers) == given_headers[:3]


def test_an_error_is_cut_to_printable_ascii():
    """Error texts stay within their size and hold nothing that could disturb a reader."""
    assert error_bytes("x" * 300) == b"x" * 256
    assert error_bytes("größe\r\nx\x00") == b"gr\\xf6\\xdfe  x "
    assert len(error_bytes("\U0001f600" * 300)) == 256


def test_a_bad_source_record_is_told_apart_from_a_delivery():
    """A dead letter is read as what it is: a delivery, or a record that never became an event."""
    origin = Origin("events", 1, 2, 3)
    written = bad_record_headers(origin, "too_large", "2 MiB")
    assert decode_dead_letter(written) == BadRecord(origin, "too_large", "2 MiB")
    assert decode_dead_letter(encode_headers(DELIVERY, ())) == DELIVERY
    with pytest.raises(UndecodableError, match="missing"):
        decode_dead_letter(())


def test_deliveries_of_one_subscription_share_a_key():
    """The key is the subscription's id."""
    assert DELIVERY.key == b"wh_1"
    assert records.PREFIX == "dispatcher-"


@pytest.mark.parametrize(("value", "due"), [(b"1768473000000", 1_768_473_000_000), (b"", 0), (b"soon", 0), (None, 0)])
def test_a_due_time_that_says_nothing_is_now(value, due):
    """Whatever stands in the header, a null included, a record has a due time."""
    assert due_ms((("x", None), (records.NOT_BEFORE_MS, value))) == due


def test_one_trace_context_takes_the_place_of_another():
    """However the publisher wrote the header's name, there is one trace context afterwards; the rest stays."""
    before = (("Traceparent", b"00-1"), ("ce_id", b"1"), ("traceparent", b"00-2"))
    assert with_traceparent(before, "00-3") == (("ce_id", b"1"), ("traceparent", b"00-3"))
    assert with_traceparent((), "00-3") == (("traceparent", b"00-3"),)
