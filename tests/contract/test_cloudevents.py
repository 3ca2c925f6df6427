"""CloudEvents with the specification's own package at both ends: as the publisher, and as the receiver."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cloudevents.core.bindings import http, kafka
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from cloudevents.v1.http import CloudEvent as OlderCloudEvent
from cloudevents.v1.http import from_http as older_from_http
from cloudevents.v1.kafka import to_binary as older_to_binary
from cloudevents.v1.kafka import to_structured as older_to_structured
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.core.decoding import decode
from dispatcher.core.model import Event, Origin, SealedSecret, Subscription
from dispatcher.core.rendering import RequestTemplate
from dispatcher.core.sealing import Keyring, SealPurpose, binding
from dispatcher.core.urls import parse_endpoint_url
from dispatcher.operations.catalogue import load_catalogue
from tests.deployment import deploy, make_settings, until
from tests.kafka_support import make_topic

KEYRING = Keyring([bytes(32)])
NOW_MS = 1_768_473_000_000
ORIGIN = Origin("events", 0, 7, NOW_MS)
TAKEN_AT = datetime.fromtimestamp(NOW_MS / 1000, UTC)
FORMAT = JSONFormat()


def older(write: Any) -> Any:
    """Publish through the package's older interface, which takes texts only."""

    def publish(attributes: dict[str, Any], data: Any) -> Any:
        times = {"time": attributes["time"].isoformat()} if "time" in attributes else {}
        return write(OlderCloudEvent({**attributes, **times}, data))

    return publish


PUBLISHERS = {
    "binary": lambda attributes, data: kafka.to_binary(CloudEvent(dict(attributes), data), FORMAT),
    "structured": lambda attributes, data: kafka.to_structured(CloudEvent(dict(attributes), data), FORMAT),
    "older binary": older(older_to_binary),
    "older structured": older(older_to_structured),
}


def taken(message: Any, check: Any = None) -> Event:
    """Take up what a publisher's package made."""
    return decode(message.value, tuple(message.headers.items()), ORIGIN, None, check)


def sent(event: Event) -> http.HTTPMessage:
    """Render a delivery of an event in the format `cloudevents`, as a receiver's framework hands it on."""
    aad = binding(event.workspace_id, "wh_1", SealPurpose.SIGNING_SECRET)
    secrets = (SealedSecret(KEYRING.seal(b"s3cret", nonce=bytes(12), aad=aad)),)
    url = parse_endpoint_url("https://hooks.example.com/in")
    subscription = Subscription("wh_1", event.workspace_id, url, ("*",), secrets, payload_format="cloudevents")
    request = RequestTemplate(subscription, KEYRING, "Dispatcher-Webhooks/1.0").render(event, "del_1", 1, NOW_MS)
    lines = request.head.decode("ascii").split("\r\n")[1:]
    headers = {name: value for name, _, value in (line.partition(": ") for line in lines) if name}
    return http.HTTPMessage(headers, request.body)


texts = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=20)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    # Beyond these, JavaScript writes doubles as integers that Python reads as other numbers.
    | st.floats(-1e15, 1e15)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
data_objects = st.dictionaries(st.text(max_size=5), json_values, max_size=4)
events = st.fixed_dictionaries(
    {
        "id": texts,
        "source": texts,
        "type": st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,30}", fullmatch=True),
        "workspaceid": st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True),
        "datacontenttype": st.just("application/json"),
        "time": st.datetimes(min_value=datetime(1970, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - bound
    },
    optional={"subject": texts, "region": texts, "sequence": st.integers(0, 999).map(str)},
)


@pytest.mark.parametrize("publisher", PUBLISHERS)
@given(attributes=events, data=data_objects)
@settings(max_examples=40, deadline=None)
def test_what_the_package_publishes_is_taken_and_received_as_it_was(publisher, attributes, data):
    """Any event, through any binding of the package, arrives at a receiver with the same attributes and data."""
    seen = []
    event = taken(PUBLISHERS[publisher](attributes, data), lambda *told: seen.append(told))
    assert (event.id, event.type, event.source) == (attributes["id"], attributes["type"], attributes["source"])
    assert event.workspace_id == attributes["workspaceid"]
    assert json.loads(event.data_json) == data
    assert seen == [(attributes["type"], data)]
    message = sent(event)
    received = http.from_http(message, FORMAT)
    assert received.get_attributes() == {**attributes, "specversion": "1.0"}
    assert received.get_data() == data
    older_received = older_from_http(message.headers, message.body)
    assert older_received.get_data() == data
    times = {"time": older_received["time"]}
    assert dict(older_received.get_attributes()) == {**attributes, **times, "specversion": "1.0"}


@pytest.mark.parametrize("publisher", ["binary", "structured"])
def test_an_event_without_data_is_one(publisher):
    """Data is optional in CloudEvents: a receiver gets null, in whichever mode the event came."""
    event = taken(PUBLISHERS[publisher]({"id": "1", "source": "/s", "type": "t", "workspaceid": "acme"}, None))
    assert event.data_json == b"null"
    assert http.from_http(sent(event), FORMAT).get_data() is None
    again = decode(event.value, event.headers, ORIGIN, None)
    assert (again.id, again.data_json) == ("1", b"null")


def test_a_plain_event_is_received_as_a_cloud_event():
    """A publisher that knows nothing of CloudEvents has subscribers that do; its workspace stands for the source."""
    plain = {"id": "evt_1", "type": "user.created", "created_at": "2026-01-15T10:30:00Z", "workspace_id": "acme"}
    event = decode(json.dumps({**plain, "data": {"n": 1}}).encode(), (), ORIGIN, None)
    received = http.from_http(sent(event), FORMAT)
    assert received.get_attributes() == {
        "specversion": "1.0",
        "id": "evt_1",
        "source": "/workspaces/acme",
        "type": "user.created",
        "time": datetime(2026, 1, 15, 10, 30, tzinfo=UTC),
        "datacontenttype": "application/json",
        "workspaceid": "acme",
    }
    assert received.get_data() == {"n": 1}


@pytest.mark.parametrize("written", ["yesterday", "2026-01-15 10:30:00", "2026-01-15T10:30:00", "15.01.2026"])
def test_a_time_that_is_none_does_not_cost_the_receiver_the_event(written):
    """The package refuses an event whose time isn't RFC 3339; the record's timestamp stands for such a one."""
    plain = {"id": "evt_1", "type": "user.created", "created_at": written, "workspace_id": "acme", "data": {"n": 1}}
    received = http.from_http(sent(decode(json.dumps(plain).encode(), (), ORIGIN, None)), FORMAT)
    assert (received.get_id(), received.get_data(), received.get_time()) == ("evt_1", {"n": 1}, TAKEN_AT)


async def test_cloud_events_go_from_kafka_to_an_endpoint(services, unique_name):
    """Through a real broker and a worker, each binding's event reaches the package's receiver, tried again or not."""
    name = unique_name("cloud")
    run = make_settings(services.kafka_bootstrap, services.mongo_uri, name)
    await make_topic(services.kafka_bootstrap, f"{name}-events", 1)
    data = load_catalogue(None).types["user.created"].sample
    number_of = len(PUBLISHERS)
    at = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)
    async with deploy(run) as deployment:
        await deployment.webhook("/cloud", payload_format="cloudevents")
        # What comes the second time was read from a delay topic, with the headers that were carried there.
        deployment.receiver.answer("/cloud", lambda request: 200 if request.attempt > 1 else 503)
        for number, publish in enumerate(PUBLISHERS.values()):
            attributes = {"id": f"evt_{number}", "source": "/users", "type": "user.created", "workspaceid": "acme"}
            message = publish({**attributes, "time": at, "datacontenttype": "application/json"}, data)
            await deployment.publish(message.value, headers=list(message.headers.items()))
        async with deployment.worker() as worker:
            await until(lambda: len(deployment.receiver.at("/cloud")) == 2 * number_of, "each arrives twice")
            await deployment.until_done()
            assert sum(worker.metrics.off_catalogue.counts.values()) == 0
        assert await deployment.records(deployment.names.dead_letter) == []
        received = deployment.receiver.at("/cloud")
        assert {request.headers["content-type"] for request in received} == {"application/cloudevents+json"}
        assert len({(request.delivery_id, request.body) for request in received}) == number_of
        arrived = [http.from_http(http.HTTPMessage(dict(each.headers), each.body), FORMAT) for each in received]
        assert sorted(event.get_id() for event in arrived) == sorted([f"evt_{n}" for n in range(number_of)] * 2)
        for event in arrived:
            assert (event.get_data(), event.get_time(), event.get_source()) == (data, at, "/users")
            assert event.get_extension("workspaceid") == "acme"
