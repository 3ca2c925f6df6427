"""From a record's bytes to an event: the plain envelope, both CloudEvents modes, and whatever else arrives."""

import base64
import datetime as dt
import json
from dataclasses import fields

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dispatcher.core.decoding import decode, rfc3339
from dispatcher.core.errors import UndecodableError
from dispatcher.core.model import DeadLetterReason, Event, Origin
from dispatcher.core.records import DeliveryRecord, encode_headers

ORIGIN = Origin("events", 3, 42, 1_768_473_000_123, b"user-7")
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ENVELOPE = {
    "id": "evt_1",
    "type": "user.created",
    "created_at": "2026-01-15T10:30:00Z",
    "workspace_id": "acme",
    "data": {"name": "Zoë"},
}
CLOUD_EVENT = {
    "specversion": "1.0",
    "id": "A-1",
    "source": "/users",
    "type": "user.created",
    "time": "2026-01-15T10:30:00Z",
    "workspaceid": "acme",
    "datacontenttype": "application/json",
    "data": {"name": "Zoë"},
}
BINARY_HEADERS = (
    ("ce_specversion", b"1.0"),
    ("ce_id", b"A-1"),
    ("ce_source", b"/users"),
    ("ce_type", b"user.created"),
    ("ce_time", b"2026-01-15T10:30:00Z"),
    ("ce_workspaceid", b"acme"),
    ("content-type", b"application/json; charset=utf-8"),
)
STRUCTURED = (("content-type", b"application/cloudevents+json; charset=UTF-8"),)


def raw(base: dict, **changes: object) -> bytes:
    """Write an envelope with some members changed; `...` leaves one out."""
    return json.dumps({k: v for k, v in {**base, **changes}.items() if v is not ...}, ensure_ascii=False).encode()


def plain(headers=(), default=None, **changes) -> Event:
    return decode(raw(ENVELOPE, **changes), headers, ORIGIN, default)


def structured(headers=STRUCTURED, default=None, **changes) -> Event:
    return decode(raw(CLOUD_EVENT, **changes), headers, ORIGIN, default)


def binary(value=b'{"name":"Zo\xc3\xab"}', default=None, **changes: bytes | None) -> Event:
    """Decode a binary-mode event with some headers changed; None leaves one out."""
    named = dict(BINARY_HEADERS)
    for name, header in changes.items():
        key = "content-type" if name == "content_type" else f"ce_{name}"
        named.pop(key, None)
        if header is not None:
            named[key] = header
    return decode(value, tuple(named.items()), ORIGIN, default)


def parts(event: Event) -> dict:
    return {field.name: getattr(event, field.name) for field in fields(Event)}


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


@pytest.mark.parametrize("value", [None, b"", b"nothing", b"{", b"[]", b'[{"type":"a"}]', b'"a"', b"1", b"null", b"\xff"])
def test_what_is_no_json_object_is_undecodable(value):
    """A missing, empty or broken value and JSON that is no object are refused as undecodable."""
    with pytest.raises(UndecodableError) as refused:
        decode(value, (), ORIGIN, "acme")
    assert refused.value.reason == DeadLetterReason.UNDECODABLE


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


def test_a_structured_cloud_event_becomes_an_event():
    """Structured mode: every attribute finds its place and extensions are kept."""
    event = structured(subject="usr_1", dataschema="https://x.example/s", partitionkey="7", urgent=True, weight=3)
    assert (event.id, event.type, event.source, event.workspace_id) == ("A-1", "user.created", "/users", "acme")
    assert event.created_at == "2026-01-15T10:30:00Z"
    assert event.data_json == '{"name":"Zoë"}'.encode()
    assert event.context_json is None
    assert event.headers == STRUCTURED
    assert json.loads(b"{%b}" % event.extensions_json) == {
        "workspaceid": "acme",
        "subject": "usr_1",
        "dataschema": "https://x.example/s",
        "partitionkey": "7",
        "urgent": True,
        "weight": 3,
    }


def test_a_binary_cloud_event_becomes_an_event():
    """Binary mode: the attributes come from the ce_ headers, the data is the value, extensions are kept."""
    event = binary(subject=b"usr_1", comexampleextension="é".encode())
    assert (event.id, event.type, event.source, event.workspace_id) == ("A-1", "user.created", "/users", "acme")
    assert event.created_at == "2026-01-15T10:30:00Z"
    assert event.data_json == '{"name":"Zoë"}'.encode()
    assert json.loads(b"{%b}" % event.extensions_json) == {
        "workspaceid": "acme",
        "subject": "usr_1",
        "comexampleextension": "é",
    }


def test_both_cloud_event_modes_say_the_same():
    """One CloudEvent in binary and in structured mode gives the same event but for the bytes it came in."""
    one, other = parts(binary()), parts(structured())
    for name in ("value", "headers"):
        del one[name], other[name]
    assert one == other


@pytest.mark.parametrize("content_type", [b"application/cloudevents+json", b"Application/CloudEvents", None])
def test_structured_mode_is_known_by_its_content_type_or_its_member(content_type):
    """The content type in any case means structured mode, and so does specversion in a record without one."""
    headers = () if content_type is None else (("Content-Type", content_type),)
    assert structured(headers).source == "/users"


def test_a_structured_content_type_wins_over_ce_headers():
    """Where the content type says structured mode, ce_ headers don't make it binary."""
    assert structured((*STRUCTURED, ("ce_specversion", b"1.0"), ("ce_id", b"other"))).id == "A-1"


def test_a_structured_content_type_needs_a_cloud_event():
    """A plain envelope that claims to be a CloudEvent is refused."""
    with pytest.raises(UndecodableError, match="specversion"):
        plain(STRUCTURED)


def test_a_batch_is_refused():
    """A batch of CloudEvents, which Kafka's binding doesn't know, is refused."""
    with pytest.raises(UndecodableError, match="no object"):
        decode(b"[%b]" % raw(CLOUD_EVENT), (("content-type", b"application/cloudevents-batch+json"),), ORIGIN, None)


@pytest.mark.parametrize("content_type", [b"application/json", b"text/json", b"application/vnd.acme+json", b"Application/JSON ; a=b"])
def test_binary_data_may_have_any_json_type(content_type):
    """Every media type that is JSON is taken, in any case and with parameters."""
    assert binary(content_type=content_type).id == "A-1"


def test_binary_data_without_a_type_is_json():
    """A binary CloudEvent that names no content type is read as JSON."""
    assert binary(content_type=None).id == "A-1"


@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", "application/jsonlines", "application/avro", ""])
def test_data_that_is_no_json_is_refused(content_type):
    """A CloudEvent whose data is declared as something else than JSON is refused in both modes."""
    with pytest.raises(UndecodableError, match="must be JSON"):
        binary(content_type=content_type.encode())
    with pytest.raises(UndecodableError, match="must be JSON"):
        structured(datacontenttype=content_type)


def test_encoded_data_is_decoded():
    """data_base64 that holds JSON is the event's data, in canonical form."""
    encoded = base64.b64encode(b' {"b": 1.0} ').decode()
    assert structured(data=..., data_base64=encoded).data_json == b'{"b":1}'


@pytest.mark.parametrize("encoded", ["%%%", "é", "", base64.b64encode(b"\x00\x01").decode(), 7, ["e30="], {}, True])
def test_encoded_data_that_is_no_json_is_refused(encoded):
    """data_base64 that is no base64, or no JSON inside, is undecodable."""
    with pytest.raises(UndecodableError):
        structured(data=..., data_base64=encoded)


def test_data_comes_only_once():
    """A CloudEvent with data and data_base64 is refused, as it doesn't say which is meant."""
    with pytest.raises(UndecodableError, match="both data and data_base64"):
        structured(data_base64="e30=")


@pytest.mark.parametrize("version", ["0.3", "1.1", 1.0, None, ""])
def test_other_cloud_event_versions_are_refused(version):
    """Only version 1.0 is taken."""
    with pytest.raises(UndecodableError, match="specversion"):
        structured(specversion=version)


@pytest.mark.parametrize("source", [..., None, "", 7, "a\nb", "a" * 2049])
def test_a_cloud_event_needs_a_source(source):
    """A CloudEvent without a usable source is refused."""
    with pytest.raises(UndecodableError, match="source"):
        structured(source=source)


def test_a_source_may_be_long():
    """A source is a URI and may be as long as one."""
    assert structured(source="urn:" + "a" * 2044).source == "urn:" + "a" * 2044


def test_attributes_against_the_naming_rule_are_dropped():
    """Members that no CloudEvents attribute can be (upper case, hyphens, structures) don't travel on."""
    event = structured(Upper="x", under_score="x", nested={"a": 1}, listed=[1], empty=None, real=1.5)
    assert json.loads(b"{%b}" % event.extensions_json) == {"workspaceid": "acme"}


@pytest.mark.parametrize("form", ["structured", "binary"])
def test_a_cloud_event_of_the_default_workspace_says_so(form):
    """Where the default workspace stands in, the extension attribute names it beside the other extensions."""
    event = (
        structured(workspaceid=..., other="1", default="main")
        if form == "structured"
        else binary(workspaceid=None, other=b"1", default="main")
    )
    assert event.workspace_id == "main"
    assert json.loads(b"{%b}" % event.extensions_json) == {"workspaceid": "main", "other": "1"}


@pytest.mark.parametrize("changes", [{"id": None}, {"time": None}])
def test_a_cloud_event_without_id_or_time_gets_the_origins(changes):
    """A missing id or time of a CloudEvent is made from the origin, as a plain event's is."""
    event = structured(**{name: ... for name in changes})
    assert event.id == ("evt_events-3-42-1768473000123" if "id" in changes else "A-1")
    assert event.created_at == ("2026-01-15T10:30:00.123Z" if "time" in changes else "2026-01-15T10:30:00Z")


def test_a_binary_header_must_be_text():
    """A ce_ header that is not UTF-8 makes the record undecodable, and the message names it."""
    with pytest.raises(UndecodableError, match="ce_subject"):
        binary(subject=b"\xff")


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


@pytest.mark.parametrize("odd", [7, None, True, {"a": 1}])
def test_a_traceparent_attribute_of_another_kind_is_dropped(odd):
    """A traceparent attribute that is no text is no reason to refuse the event."""
    assert structured(traceparent=odd).traceparent is None


def test_a_traceparent_attribute_of_surrogates_is_dropped():
    """A traceparent that no bytes can hold is dropped and raises nothing."""
    value = raw(CLOUD_EVENT)[:-1] + b',"traceparent":"\\ud800"}'
    assert decode(value, STRUCTURED, ORIGIN, None).traceparent is None


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
    st.none() | st.binary(max_size=60) | st.dictionaries(member_names, json_values).map(lambda v: json.dumps(v).encode()),
    any_headers,
    st.none() | st.just("main"),
)
def test_nothing_but_undecodable_is_ever_raised(value, headers, default):
    """Whatever bytes and headers arrive, they are an event or undecodable, and nothing else is raised."""
    try:
        event = decode(value, headers, ORIGIN, default)
    except UndecodableError as refused:
        assert refused.reason in {DeadLetterReason.UNDECODABLE, DeadLetterReason.NO_WORKSPACE}
        assert str(refused)
    else:
        assert isinstance(event, Event)


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
