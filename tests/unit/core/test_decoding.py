"""From a record's bytes to an event: the plain envelope, and whatever else arrives."""

import datetime as dt
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dispatcher.core.decoding import decode, rfc3339
from dispatcher.core.errors import UndecodableError
from dispatcher.core.model import DeadLetterReason, Event, Origin
from dispatcher.core.records import DeliveryRecord, encode_headers
from tests.fakes.event_records import (
    BINARY_HEADERS,
    CLOUD_EVENT,
    ENVELOPE,
    ORIGIN,
    STRUCTURED,
    TRACE,
    binary,
    parts,
    plain,
    raw,
    structured,
)


def test_a_plain_envelope_becomes_an_event():
    """Every member of the envelope stands in the event, and the record's own bytes with it."""
    event = plain(context={"actor": "usr_1"})
    assert parts(event) == {
        "id": "evt_1",
        "type": "user.created",
        "created_at": "2026-01-15T10:30:00Z",
        "workspace_id": "acme",
        "source": "",
        "data_json": '{"name":"Zoë"}'.encode(),
        "context_json": b'{"actor":"usr_1"}',
        "traceparent": None,
        "origin": ORIGIN,
        "value": raw(ENVELOPE, context={"actor": "usr_1"}),
        "headers": (),
        "extensions_json": b"",
        "bodies": {},
    }


@pytest.mark.parametrize(
    "value", [None, b"", b"nothing", b"{", b"[]", b'[{"type":"a"}]', b'"a"', b"1", b"null", b"\xff"]
)
def test_what_is_no_json_object_is_undecodable(value):
    """A missing, empty or broken value and JSON that is no object are refused as undecodable."""
    with pytest.raises(UndecodableError) as refused:
        decode(value, (), ORIGIN, "acme")
    assert refused.value.reason == DeadLetterReason.UNDECODABLE


@pytest.mark.parametrize(
    ("value", "says"), [(None, "has no value"), (b"", "is empty"), (b"{}x", "byte 2"), (b"[]", "no object")]
)
def test_the_message_says_what_is_wrong_with_the_value(value, says):
    """Whoever reads the dead letter learns whether there was no value, an empty one, or where it stops being JSON."""
    with pytest.raises(UndecodableError, match=says):
        decode(value, (), ORIGIN, "acme")


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"type": ...}, "type"),
        ({"type": None}, "type"),
        ({"type": ""}, "type"),
        ({"type": 7}, "type"),
        ({"type": ["user.created"]}, "type"),
        ({"type": ".user"}, "type"),
        ({"type": "-user"}, "type"),
        ({"type": "user created"}, "type"),
        ({"type": "user.*"}, "type"),
        ({"type": "user.created\n"}, "type"),
        ({"type": "user.créé"}, "type"),
        ({"type": "a" * 129}, "type"),
        ({"id": ""}, "id"),
        ({"id": 7}, "id"),
        ({"id": "a" * 257}, "id"),
        ({"id": "evt\r\nX-Evil: 1"}, "id"),
        ({"id": "evt\x00"}, "id"),
        ({"id": "evt\x7f"}, "id"),
        ({"id": "evt\x85"}, "id"),
        ({"created_at": ""}, "created_at"),
        ({"created_at": 1_768_473_000}, "created_at"),
        ({"created_at": "2026\n"}, "created_at"),
        ({"workspace_id": ""}, "workspace_id"),
        ({"workspace_id": 7}, "workspace_id"),
        ({"workspace_id": "acme/other"}, "workspace_id"),
        ({"workspace_id": "acme\n"}, "workspace_id"),
        ({"workspace_id": "a" * 65}, "workspace_id"),
        ({"context": []}, "context"),
        ({"context": "x"}, "context"),
        ({"context": False}, "context"),
    ],
)
def test_a_wrong_field_is_named(changes, names):
    """A field against its rule makes the record undecodable, and the message names the field."""
    with pytest.raises(UndecodableError, match=names) as refused:
        plain(default="main", **changes)
    assert refused.value.reason == DeadLetterReason.UNDECODABLE


def test_a_lone_surrogate_is_no_part_of_an_id():
    """An id that no header and no log could hold is refused, though JSON can write it."""
    with pytest.raises(UndecodableError, match="id"):
        decode(b'{"type":"a","workspace_id":"w","id":"\\ud800"}', (), ORIGIN, None)


@pytest.mark.parametrize("event_type", ["a", "_", "0", "user.created", "A-b_c.d", "a" * 128, "a.", "a..b"])
def test_well_formed_types_are_taken(event_type):
    """Every type that the rule allows is accepted, in the catalogue or not."""
    assert plain(type=event_type).type == event_type


@given(
    st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=256),
    st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=64),
)
@example("x" * 256, "yesterday")
@example("  42 ", "2026-01-15T10:30:00.000000+02:00")
def test_id_and_time_pass_verbatim(event_id, created_at):
    """Whatever id of 1 to 256 characters and whatever time a publisher gives, the event has that very text."""
    event = plain(id=event_id, created_at=created_at)
    assert (event.id, event.created_at) == (event_id, created_at)


@pytest.mark.parametrize("missing", [..., None])
def test_a_missing_id_and_time_come_from_the_origin(missing):
    """Without an id and a time, left out or null, the origin's coordinates and timestamp stand in."""
    event = plain(id=missing, created_at=missing)
    assert event.id == "evt_events-3-42-1768473000123"
    assert event.created_at == "2026-01-15T10:30:00.123Z"


@pytest.mark.parametrize("missing", [..., None])
def test_a_missing_workspace_is_the_default_one(missing):
    """An event that names no workspace belongs to the configured one."""
    assert plain(workspace_id=missing, default="main").workspace_id == "main"


@pytest.mark.parametrize(
    "decoded",
    [
        lambda: plain(workspace_id=...),
        lambda: plain(workspace_id=None),
        lambda: structured(workspaceid=...),
        lambda: binary(workspaceid=None),
    ],
)
def test_without_a_default_a_missing_workspace_is_its_own_reason(decoded):
    """Where no default is configured, an event without a workspace is dead-lettered as no_workspace, in any form."""
    with pytest.raises(UndecodableError) as refused:
        decoded()
    assert refused.value.reason == DeadLetterReason.NO_WORKSPACE


def test_a_named_workspace_beats_the_default():
    """The default workspace never replaces one that the event names."""
    assert plain(default="main").workspace_id == "acme"


@pytest.mark.parametrize(("context", "expected"), [({}, b"{}"), (None, None), (..., None), ({"b": 1.0}, b'{"b":1}')])
def test_context_is_an_object_or_nothing(context, expected):
    """A context object is kept in canonical form; null and none are nothing."""
    assert plain(context=context).context_json == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"null", b"null"), (b"[ 1.0, 1E21 ]", b"[1,1e+21]"), (b'"x"', b'"x"'), (b'{"b":0,"1":1}', b'{"1":1,"b":0}')],
)
def test_data_is_any_json_in_canonical_form(data, expected):
    """Data may be any JSON value, and stands in the event as JavaScript writes it."""
    assert decode(b'{"type":"a","workspace_id":"w","data":%b}' % data, (), ORIGIN, None).data_json == expected


def test_missing_data_is_null():
    """An envelope without data is an event whose data is null."""
    assert plain(data=...).data_json == b"null"


def test_own_headers_of_publishers_mean_nothing():
    """A dispatcher- header that a publisher wrote changes nothing and is not carried on."""
    forged = encode_headers(DeliveryRecord("del_x", "wh_x", "victim", 5, 1, 1, None, Origin("t", 0, 0, 0)), ())
    assert parts(plain(forged)) == parts(plain())


def test_what_retry_records_carry_on_is_kept():
    """ce_ headers, the content type and traceparent are kept with their bytes; all others are left behind."""
    kept = (("ce_x", b"\xff"), ("Content-Type", b"application/json"), ("traceparent", b"bad"))
    assert plain((*kept, ("x-other", b"1"), ("ce_null", None))).headers == kept


@pytest.mark.parametrize(
    ("value", "valid"),
    [
        (TRACE, True),
        ("cc" + TRACE[2:], True),
        ("ff" + TRACE[2:], False),
        (TRACE.upper(), False),
        (TRACE + "\n", False),
        (TRACE + "-extra", False),
        (TRACE[:-1], False),
        ("00-" + "0" * 32 + TRACE[35:], False),
        (TRACE[:36] + "0" * 16 + "-01", False),
        ("é" + TRACE[1:], False),
        ("", False),
    ],
)
def test_only_a_valid_traceparent_passes(value, valid):
    """A W3C traceparent passes through from the header or the attribute; anything else is dropped."""
    expected = value if valid else None
    assert plain((("traceparent", value.encode()),)).traceparent == expected
    assert structured(traceparent=value).traceparent == expected
    assert binary(traceparent=value.encode()).traceparent == expected


@given(st.integers(0, 253_402_300_799_999))
@example(253_402_300_799_999)
@example(1_768_473_000_000)
def test_a_timestamp_is_written_to_the_millisecond(unix_ms):
    """Every timestamp up to the year 9999 reads back as itself, with milliseconds only where there are some."""
    text = rfc3339(unix_ms)
    at = dt.datetime.fromisoformat(text)
    assert text.endswith("Z")
    assert ("." in text) == bool(unix_ms % 1000)
    assert (at - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(milliseconds=1) == unix_ms


@pytest.mark.parametrize("unix_ms", [253_402_300_800_000, 2**63 - 1, -(2**63)])
def test_a_timestamp_beyond_the_calendar_is_undecodable(unix_ms):
    """An event without a time in a record whose timestamp is no time is refused, and one with a time is not."""
    origin = Origin("events", 0, 0, unix_ms)
    assert decode(raw(ENVELOPE), (), origin, None).created_at == ENVELOPE["created_at"]
    with pytest.raises(UndecodableError, match="timestamp"):
        decode(raw(ENVELOPE, created_at=...), (), origin, None)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=()), max_size=5),
    lambda child: st.lists(child, max_size=3) | st.dictionaries(st.text(max_size=3), child, max_size=3),
)
member_names = st.sampled_from([*ENVELOPE, *CLOUD_EVENT, "context", "data_base64", "traceparent", "0", "Upper"])
header_names = st.sampled_from([name for name, _ in BINARY_HEADERS] + ["traceparent", "dispatcher-attempt", "x", ""])
any_headers = st.lists(
    st.tuples(header_names | st.text(max_size=4), st.none() | st.binary(max_size=30) | st.sampled_from([b"1.0", b"a"])),
    max_size=9,
).map(tuple)


@given(
    st.none()
    | st.binary(max_size=60)
    | st.dictionaries(member_names, json_values).map(lambda v: json.dumps(v).encode()),
    any_headers,
    st.none() | st.just("main"),
)
def test_nothing_but_undecodable_is_ever_raised(value, headers, default):
    """Whatever bytes and headers arrive, they are an event or undecodable, and nothing else is raised."""
    try:
        event = decode(value, headers, ORIGIN, default)
    except UndecodableError as refused:
        told = (refused.reason, bool(str(refused)))
    else:
        told = type(event)
    assert told in {Event, (DeadLetterReason.UNDECODABLE, True), (DeadLetterReason.NO_WORKSPACE, True)}


@given(
    st.sampled_from(["plain", "structured", "binary"]),
    st.dictionaries(st.sampled_from(["data", "context", "traceparent", "0", "subject"]), json_values),
    st.sets(st.sampled_from(["id", "created_at", "time", "workspace_id", "workspaceid"])),
)
def test_a_retry_record_decodes_to_the_same_event(form, changes, missing):
    """What a later record carries on of an event (value, kept headers, origin) decodes to an equal event."""
    members = {**(ENVELOPE if form == "plain" else CLOUD_EVENT), **changes}
    members = {name: member for name, member in members.items() if name not in missing}
    headers = STRUCTURED if form == "structured" else (("x-other", b"1"), ("traceparent", TRACE.encode()))
    value = json.dumps(members).encode()
    if form == "binary":
        headers += tuple((name, header) for name, header in BINARY_HEADERS if name.removeprefix("ce_") not in missing)
    try:
        first = decode(value, headers, ORIGIN, "main")
    except UndecodableError:
        return
    record = DeliveryRecord("del_x", "wh_x", first.workspace_id, 1, 0, 0, None, first.origin)
    again = decode(first.value, encode_headers(record, first.headers), first.origin, first.workspace_id)
    assert parts(again) == parts(first)
