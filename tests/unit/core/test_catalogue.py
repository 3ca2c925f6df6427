"""Looking events up in the catalogue, and what is said of those that it rejects."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.catalogue import Catalogue, EventType, compile_schema
from dispatcher.core.decoding import decode
from dispatcher.core.errors import UndecodableError
from dispatcher.core.model import DeadLetterReason, Origin

SCHEMA = {
    "type": "object",
    "properties": {
        "user": {
            "type": "object",
            "properties": {
                "email": {"type": "string", "format": "email"},
                "id": {"pattern": "^usr_"},
                "role": {"enum": ["admin", "guest"]},
                "name": {"pattern": "^(a|a)*\\1?(?=b)$"},
            },
            "required": ["email"],
        },
        "tags": {"items": {"maxLength": 3}},
    },
    "required": ["user"],
}
ORIGIN = Origin("events", 0, 7, 1_768_473_000_000)


def entry(event_type, schema=None):
    schema = SCHEMA if schema is None else schema
    return EventType(event_type, "T", "G", "D", schema, {}, compile_schema(schema))


CATALOGUE = Catalogue([entry("user.created"), entry("any.thing", {}), entry("no.thing", {"not": {}})])


def test_an_entry_is_found_by_its_type():
    """Types come in alphabetical order, and an unknown one is None."""
    assert list(CATALOGUE.types) == ["any.thing", "no.thing", "user.created"]
    assert CATALOGUE.get("user.created").schema == SCHEMA
    assert CATALOGUE.get("user.creatd") is None


def test_the_types_are_not_to_be_changed():
    """What every part of a process shares is read-only."""
    with pytest.raises(TypeError):
        CATALOGUE.types["x"] = entry("x")


@pytest.mark.parametrize(
    ("event_type", "data", "fault"),
    [
        ("user.created", {"user": {"email": "a@b"}}, None),
        ("user.created", {"user": {"email": "format is an annotation"}, "more": 1}, None),
        ("user.created", {"user": {"email": 7}}, DeadLetterReason.SCHEMA),
        ("user.created", None, DeadLetterReason.SCHEMA),
        ("user.creatd", {"user": {"email": "a@b"}}, DeadLetterReason.UNKNOWN_TYPE),
        ("any.thing", None, None),
        ("no.thing", {}, DeadLetterReason.SCHEMA),
        ("user.created", {"user": {"email": "\ud800"}, "\udfff": 1}, None),
        ("user.created", {"user": {"email": "", "id": "\ud800"}}, DeadLetterReason.SCHEMA),
        ("user.created", {"user": {"email": "", "id": "usr_\ud800"}}, None),
        ("user.created", {"user": {"email": "", "name": "a" * 5000}}, DeadLetterReason.SCHEMA),
        ("any.thing", {"n": 10**308}, None),
    ],
)
def test_an_event_is_in_the_catalogue_or_the_reason_is_told(event_type, data, fault):
    """A type is unknown, a schema rejects, or nothing is wrong; odd texts and numbers are no way around or out."""
    assert CATALOGUE.fault(event_type, data) == fault


def test_a_pattern_has_a_bounded_number_of_steps():
    """Publishers choose the string: one that would need many thousands of steps is rejected, though it matches."""
    catalogue = Catalogue([entry("a", {"pattern": "^((a|a)*(?=b)|a*c)$"})])
    assert catalogue.fault("a", "aac") is None
    assert catalogue.fault("a", "a" * 14 + "c") is DeadLetterReason.SCHEMA


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, 'data: the value is not of type "object"'),
        ({}, 'data: "user" is a required property'),
        ({"user": {"email": ["s3cret"]}}, 'data/user/email: the value is not of type "string"'),
        ({"user": {"email": "", "id": "s3cret"}}, 'data/user/id: the value does not match "^usr_"'),
        ({"user": {"email": "", "role": "s3cret"}}, 'data/user/role: the value is not one of "admin" or "guest"'),
        ({"user": {"email": ""}, "tags": ["a", "s3cret"]}, "data/tags/1: the value is longer than 3 characters"),
        ({"user": {"email": "", "id": "\ud800"}}, 'data/user/id: the value does not match "^usr_"'),
    ],
)
def test_a_rejection_says_where_and_which_rule_and_no_value(data, said):
    """Dead letters are read by more people than events: the event's values stay out of their texts."""
    assert CATALOGUE.explain("user.created", data) == said
    assert "s3cret" not in said


def test_an_unknown_type_is_named():
    """The text of an unknown type's dead letter says what to do."""
    said = CATALOGUE.explain("user.creatd", {})
    assert said == "the event catalogue has no type user.creatd; add a file for it, or check its spelling"


def test_a_long_way_to_the_fault_leaves_room_for_the_rule():
    """A path of publishers' own names is cut, so that the rule stands within the 256 bytes of a header."""
    catalogue = Catalogue([entry("a", {"additionalProperties": {"type": "integer"}})])
    said = catalogue.explain("a", {"k" * 500: "x"})
    assert said == f'data/{"k" * 120}...: the value is not of type "integer"'


texts = st.text(st.characters(exclude_categories=()))
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner),
)


@given(anything | anything.map(lambda value: {"user": value}))
def test_any_data_is_judged_and_explained(data):
    """No JSON value breaks the validator, and what it rejects it can say."""
    fault = CATALOGUE.fault("user.created", data)
    said = CATALOGUE.explain("user.created", data)
    assert (fault is None) == (said == "the schema accepts the data")
    assert fault is None or said.startswith("data")


CLOUD = (("ce_specversion", b"1.0"), ("ce_type", b"t"), ("ce_source", b"/s"), ("ce_workspaceid", b"w"), ("ce_id", b"1"))
ATTRIBUTES = {"specversion": "1.0", "type": "t", "source": "/s", "workspaceid": "w", "id": "1"}
FORMS = {
    "plain": ({"type": "t", "workspace_id": "w", "data": {"n": 1}}, ()),
    "binary": ({"n": 1}, CLOUD),
    "structured": ({**ATTRIBUTES, "data": {"n": 1}}, (("content-type", b"application/cloudevents+json"),)),
    "base64": ({**ATTRIBUTES, "data_base64": base64.b64encode(b'{"n":1}').decode()}, ()),
}


@pytest.mark.parametrize("form", FORMS)
def test_decoding_shows_type_and_parsed_data_to_the_check(form):
    """In each accepted form the check is called once, with what the subscriber will get as `data`."""
    body, headers = FORMS[form]
    seen = []
    event = decode(json.dumps(body).encode(), headers, ORIGIN, None, lambda *told: seen.append(told))
    assert seen == [("t", {"n": 1})]
    assert event.data_json == b'{"n":1}'


@pytest.mark.parametrize("form", FORMS)
def test_what_the_check_raises_refuses_the_event(form):
    """The check's reason is the dead letter's."""
    body, headers = FORMS[form]

    def refuse(_type, _data):
        raise UndecodableError("no", reason=DeadLetterReason.SCHEMA)

    with pytest.raises(UndecodableError) as caught:
        decode(json.dumps(body).encode(), headers, ORIGIN, None, refuse)
    assert caught.value.reason == "schema"


def test_what_is_no_event_is_not_checked():
    """A missing workspace is the reason, not a type that is unknown besides."""
    with pytest.raises(UndecodableError) as caught:
        decode(b'{"type":"t"}', (), ORIGIN, None, lambda *_: pytest.fail("checked"))
    assert caught.value.reason == "no_workspace"
