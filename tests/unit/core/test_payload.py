"""The request body in each format, to the byte, and against real Node."""

import json
import shutil
import subprocess
from urllib.parse import parse_qsl

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dispatcher.core.decoding import decode, rfc3339
from dispatcher.core.errors import UndecodableError
from dispatcher.core.model import Event, Origin, PayloadFormat
from dispatcher.core.payload import FORM, body_of

JSON = "application/json"
ORIGIN = Origin("events", 0, 7, 1_768_473_000_000)
FORMATS = [payload_format.value for payload_format in PayloadFormat]
SAFE = 2**53 - 1

legible = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=8)
awkward = legible | st.sampled_from(
    ['"', "\\", "</script>", "\u2028\u2029", "Zoë 🎉", "\ufeff", "__proto__", "10", "\xad"]
)
types = st.from_regex(r"\A[A-Za-z0-9_][A-Za-z0-9._-]{0,20}\Z")
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-SAFE, SAFE)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=()), max_size=5),
    lambda child: st.lists(child, max_size=3) | st.dictionaries(awkward, child, max_size=3),
)
attributes = st.dictionaries(
    st.from_regex(r"\A[a-z0-9]{1,12}\Z") | st.sampled_from(["0", "7", "10", "4294967294", "4294967295", "007"]),
    awkward | st.booleans() | st.integers(-SAFE, SAFE),
    max_size=4,
)
plain_events = st.fixed_dictionaries(
    {"type": types, "workspace_id": st.just("acme"), "data": values},
    optional={
        "id": awkward,
        "created_at": awkward,
        "context": st.none() | st.dictionaries(awkward, values, max_size=2),
    },
)
cloud_events = st.builds(
    lambda extensions, event: {**extensions, **event},
    attributes,
    st.fixed_dictionaries(
        {
            "specversion": st.just("1.0"),
            "type": types,
            "source": awkward,
            "workspaceid": st.just("acme"),
            "data": values,
        },
        optional={"id": awkward, "time": awkward},
    ),
)


def event_of(envelope: dict) -> Event:
    return decode(json.dumps(envelope).encode(), (), ORIGIN, None)


def stringified_by_node(texts: list[bytes]) -> list[bytes]:
    program = (
        "const lines=require('fs').readFileSync(0,'latin1').split('\\n');"
        "const again=lines.map(l=>JSON.stringify(JSON.parse(Buffer.from(l,'hex').toString('utf8'))));"
        "process.stdout.write(again.map(a=>Buffer.from(a,'utf8').toString('hex')).join('\\n'))"
    )
    lines = "\n".join(text.hex() for text in texts)
    done = subprocess.run(["node", "-e", program], input=lines, capture_output=True, text=True, check=True)
    return [bytes.fromhex(line) for line in done.stdout.split("\n")]


EVENT = {
    "id": "evt_1",
    "type": "user.created",
    "created_at": "2026-01-15T10:30:00Z",
    "workspace_id": "acme",
    "data": {"name": "Zoë", "n": 1.0},
}


def test_the_event_format():
    """The default body is id, type, time and data, compact and in this order."""
    assert body_of(event_of(EVENT), "event", JSON) == (
        '{"id":"evt_1","type":"user.created","created_at":"2026-01-15T10:30:00Z","data":{"name":"Zoë","n":1}}'.encode()
    )


@pytest.mark.parametrize(("context", "written"), [({"actor": "usr_1"}, '{"actor":"usr_1"}'), (None, "null")])
def test_the_context_format(context, written):
    """The context body has the event's time, type, context or null, and data."""
    assert body_of(event_of({**EVENT, "context": context}), "context", JSON) == (
        '{"event_time":"2026-01-15T10:30:00Z","event_type":"user.created",'
        f'"current_context":{written},"data":{{"name":"Zoë","n":1}}}}'.encode()
    )


def test_the_cloudevents_format_of_a_plain_event():
    """A plain event as a CloudEvent has its workspace as source and as extension attribute."""
    assert body_of(event_of(EVENT), "cloudevents", JSON) == (
        '{"specversion":"1.0","id":"evt_1","source":"/workspaces/acme","type":"user.created",'
        '"time":"2026-01-15T10:30:00Z","datacontenttype":"application/json","workspaceid":"acme",'
        '"data":{"name":"Zoë","n":1}}'.encode()
    )


def test_the_cloudevents_format_keeps_source_and_extensions():
    """A CloudEvent goes out with the source and the further attributes that it came with."""
    event = event_of(
        {"specversion": "1.0", "subject": "usr_1", "id": "A-1", "source": "/users", "type": "user.created",
         "time": "2026-01-15T10:30:00Z", "workspaceid": "acme", "urgent": True, "data": None}
    )  # fmt: skip
    assert body_of(event, "cloudevents", JSON) == (
        b'{"specversion":"1.0","id":"A-1","source":"/users","type":"user.created","time":"2026-01-15T10:30:00Z",'
        b'"datacontenttype":"application/json","subject":"usr_1","workspaceid":"acme","urgent":true,"data":null}'
    )


def test_attributes_named_like_an_array_index_stand_first():
    """Extension attributes that JavaScript would sort to the front stand there already, and only those."""
    event = event_of(
        {"specversion": "1.0", "id": "A-1", "source": "/s", "type": "t", "time": "2026-01-15T10:30:00Z",
         "4294967295": 3, "workspaceid": "w", "10": 'a",\\b', "007": 4, "2": False, "data": 0}
    )  # fmt: skip
    assert body_of(event, "cloudevents", JSON) == (
        b'{"2":false,"10":"a\\",\\\\b","specversion":"1.0","id":"A-1","source":"/s","type":"t",'
        b'"time":"2026-01-15T10:30:00Z","datacontenttype":"application/json","4294967295":3,"workspaceid":"w","007":4,"data":0}'
    )


@pytest.mark.parametrize(
    ("given_time", "kept"),
    [
        ("2026-01-15T10:30:00.123456789+05:30", True),
        ("2016-12-31t23:59:60z", True),
        ("yesterday", False),
        ("2026-01-15 10:30:00Z", False),
        ("2026-01-15T10:30:00", False),
        ("2026-13-15T10:30:00Z", False),
        ("2026-01-15T10:30:00Z ", False),
    ],
)
def test_only_a_time_that_cloudevents_allows_goes_out_in_that_format(given_time, kept):
    """A publisher's own way of writing times reaches the other formats as it is, and spoils no CloudEvent."""
    event = event_of({**EVENT, "created_at": given_time})
    assert json.loads(body_of(event, "event", JSON))["created_at"] == given_time
    told = json.loads(body_of(event, "cloudevents", JSON))["time"]
    assert told == (given_time if kept else rfc3339(ORIGIN.timestamp_ms))


@pytest.mark.parametrize(
    ("timestamp_ms", "told"), [(-1, "1970-01-01T00:00:00Z"), (2**63 - 1, "9999-12-31T23:59:59.999Z")]
)
def test_no_timestamp_of_a_record_stops_a_cloud_event(timestamp_ms, told):
    """Where neither the event nor its record has a time, the nearest that can be written stands there."""
    origin = Origin("events", 0, 7, timestamp_ms)
    event = decode(json.dumps({**EVENT, "created_at": "yesterday"}).encode(), (), origin, None)
    assert json.loads(body_of(event, "cloudevents", JSON))["time"] == told


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@given(st.lists(plain_events | cloud_events, min_size=1, max_size=25))
@settings(max_examples=25, deadline=None)
def test_node_writes_the_very_same_bytes(envelopes):
    """For every event in every format, JSON.stringify(JSON.parse(body)) is the body, whatever its id, time and data."""
    events = [event_of(envelope) for envelope in envelopes]
    bodies = [body_of(event, name, JSON) for event in events for name in FORMATS]
    assert stringified_by_node(bodies) == bodies


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_deepest_data_is_still_written_as_node_does():
    """Data at the bound of nesting, with the body's own level around it, is what Node writes."""
    event = decode(b'{"type":"t","workspace_id":"w","data":%b}' % (b"[" * 127 + b"]" * 127), (), ORIGIN, None)
    bodies = [body_of(event, name, JSON) for name in FORMATS]
    assert stringified_by_node(bodies) == bodies


@given(plain_events, st.sampled_from(FORMATS))
def test_a_body_says_what_the_event_says(envelope, name):
    """The body's data is the publisher's data, in every format."""
    event = event_of(envelope)
    # Whole doubles are written as integers: comparing both as doubles.
    members = json.loads(body_of(event, name, JSON), parse_int=float)
    assert members["data"] == json.loads(json.dumps(envelope["data"]), parse_int=float)
    assert members.get("id", event.id) == event.id
    # No time that is made up here is RFC 3339.
    assert (rfc3339(ORIGIN.timestamp_ms) if name == "cloudevents" else event.created_at) in members.values()


def test_large_integers_keep_their_digits():
    """An integer beyond 2^53 is sent with every digit, for receivers that verify the raw body."""
    event = decode(b'{"type":"t","workspace_id":"w","data":{"n":12345678901234567890123}}', (), ORIGIN, None)
    assert b'"n":12345678901234567890123}' in body_of(event, "event", JSON)


@given(plain_events, st.sampled_from(["event", "context"]))
@example({**EVENT, "data": "a b+c%d&e=f;g\r\n"}, "event")
def test_form_encoding_decodes_to_the_json(envelope, name):
    """A form body has one field, payload, and it holds the very JSON that the plain body is."""
    event = event_of(envelope)
    form = body_of(event, name, FORM)
    assert form.isascii()
    assert parse_qsl(form.decode(), strict_parsing=True, keep_blank_values=True) == [
        ("payload", body_of(event, name, JSON).decode())
    ]


def test_cloudevents_are_never_form_encoded():
    """The CloudEvents format excludes form encoding, whatever the content type says."""
    event = event_of(EVENT)
    assert body_of(event, "cloudevents", FORM) == body_of(event, "cloudevents", JSON)


def test_each_body_is_rendered_once():
    """All subscriptions that want an event in one form share the bytes, and forms don't mix them up."""
    event = event_of(EVENT)
    first = {(name, kind): body_of(event, name, kind) for name in FORMATS for kind in (JSON, FORM)}
    assert all(body_of(event, name, kind) is body for (name, kind), body in first.items())
    assert len(event.bodies) == len(set(first.values())) == 5


def test_every_format_that_exists_can_be_rendered():
    """No value of the enum is without a body."""
    for payload_format in PayloadFormat:
        assert json.loads(body_of(event_of(EVENT), payload_format, JSON))


def test_an_undecodable_number_never_reaches_a_body():
    """NaN, infinity and numbers beyond a double are refused before there is a body to write."""
    for number in (b"NaN", b"-Infinity", b"1e999"):
        with pytest.raises(UndecodableError):
            decode(b'{"type":"t","workspace_id":"w","data":%b}' % number, (), ORIGIN, None)
