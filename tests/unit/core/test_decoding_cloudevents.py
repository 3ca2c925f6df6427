"""From a record's bytes to an event: CloudEvents 1.0 in binary and in structured mode."""

import base64
import json

import pytest

from dispatcher.core.decoding import decode
from dispatcher.core.errors import UndecodableError
from tests.fakes.event_records import CLOUD_EVENT, ORIGIN, STRUCTURED, binary, parts, plain, raw, structured


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


@pytest.mark.parametrize("name", ["content-type", "Content-Type"])
def test_a_structured_content_type_needs_a_cloud_event(name):
    """A plain envelope that claims to be a CloudEvent is refused, however the header's name is spelled."""
    with pytest.raises(UndecodableError, match="specversion"):
        plain(((name, b"application/cloudevents+json"),))


def test_a_batch_is_refused():
    """A batch of CloudEvents, which Kafka's binding doesn't know, is refused."""
    with pytest.raises(UndecodableError, match="no object"):
        decode(b"[%b]" % raw(CLOUD_EVENT), (("content-type", b"application/cloudevents-batch+json"),), ORIGIN, None)


@pytest.mark.parametrize(
    "content_type", [b"application/json", b"text/json", b"application/vnd.acme+json", b"Application/JSON ; a=b"]
)
def test_binary_data_may_have_any_json_type(content_type):
    """Every media type that is JSON is taken, in any case and with parameters."""
    assert binary(content_type=content_type).id == "A-1"


def test_binary_data_without_a_type_is_json():
    """A binary CloudEvent that names no content type is read as JSON."""
    assert binary(content_type=None).id == "A-1"


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/xml", "application/jsonlines", "application/avro", ""]
)
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
    event = structured(**dict.fromkeys(changes, ...))
    assert event.id == ("evt_events-3-42-1768473000123" if "id" in changes else "A-1")
    assert event.created_at == ("2026-01-15T10:30:00.123Z" if "time" in changes else "2026-01-15T10:30:00Z")


def test_a_binary_header_must_be_text():
    """A ce_ header that is not UTF-8 makes the record undecodable, and the message names it."""
    with pytest.raises(UndecodableError, match="ce_subject"):
        binary(subject=b"\xff")


@pytest.mark.parametrize("odd", [7, None, True, {"a": 1}])
def test_a_traceparent_attribute_of_another_kind_is_dropped(odd):
    """A traceparent attribute that is no text is no reason to refuse the event."""
    assert structured(traceparent=odd).traceparent is None


def test_a_traceparent_attribute_of_surrogates_is_dropped():
    """A traceparent that no bytes can hold is dropped and raises nothing."""
    value = raw(CLOUD_EVENT)[:-1] + b',"traceparent":"\\ud800"}'
    assert decode(value, STRUCTURED, ORIGIN, None).traceparent is None
