"""The request on the wire: every header once, to the byte."""

import base64
import hashlib
import hmac
import json
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.decoding import decode
from dispatcher.core.errors import InvalidUrlError, SealError, UndecodableError
from dispatcher.core.model import Event, Origin, SealedSecret, Subscription
from dispatcher.core.payload import FORM
from dispatcher.core.rendering import RequestTemplate, unsendable
from dispatcher.core.sealing import Keyring, SealPurpose, binding
from dispatcher.core.signing import SigningKey
from dispatcher.core.urls import parse_endpoint_url

SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
OLD_SECRET = "an older secret"
API_KEY = "key_0123456789"
DELIVERY = "del_5lbqgedzfrx45ptzpqs2pttdot"
NOW_MS = 1_768_473_000_999
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
KEYRING = Keyring([bytes(32)])
URL = parse_endpoint_url("https://hooks.example.com:8443/in?a=1")


def sealed(text: str, purpose: SealPurpose = SealPurpose.SIGNING_SECRET, keyring: Keyring = KEYRING) -> bytes:
    return keyring.seal(text.encode(), nonce=bytes(12), aad=binding("acme", "wh_1", purpose))


def subscription(**changes) -> Subscription:
    fields = {
        "id": "wh_1",
        "workspace_id": "acme",
        "url": URL,
        "events": ("*",),
        "secrets": (SealedSecret(sealed(SECRET)),),
    }
    return Subscription(**{**fields, **changes})


def event(headers=(), **changes) -> Event:
    envelope = {"id": "evt_1", "type": "user.created", "created_at": "2026-01-15T10:30:00Z", "workspace_id": "acme",
                "data": {"name": "Zoë"}, **changes}  # fmt: skip
    return decode(json.dumps(envelope).encode(), headers, Origin("events", 0, 7, 0), None)


def render(of=None, attempt=1, now_ms=NOW_MS, happened=None):
    template = RequestTemplate(of or subscription(), KEYRING, "Dispatcher-Webhooks/1.0")
    return template.render(happened or event(), DELIVERY, attempt, now_ms)


def taken_apart(head: bytes) -> tuple[str, list[tuple[str, str]]]:
    assert head.endswith(b"\r\n\r\n")
    first, *lines = head[:-4].decode("ascii").split("\r\n")
    pairs = [tuple(line.split(": ", 1)) for line in lines]
    return first, pairs


def headers_of(request) -> dict[str, str]:
    """Return the headers by lower-case name, after checking that each stands there once."""
    _, pairs = taken_apart(request.head)
    repeated = [name for name, count in Counter(name.lower() for name, _ in pairs).items() if count > 1]
    assert repeated == []
    return {name.lower(): value for name, value in pairs}


def test_a_known_request():
    """The whole head of one request, to the byte, with signatures computed apart from the product's code."""
    body = '{"id":"evt_1","type":"user.created","created_at":"2026-01-15T10:30:00Z","data":{"name":"Zoë"}}'.encode()
    digest = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    request = render(
        subscription(headers=(("X-Team", "blue"),), api_key=sealed(API_KEY, SealPurpose.API_KEY)),
        attempt=3,
        happened=event((("traceparent", TRACE.encode()),)),
    )
    standard = headers_of(request)["webhook-signature"]
    assert request.body == body
    assert request.head.decode() == (
        "POST /in?a=1 HTTP/1.1\r\n"
        "Host: hooks.example.com:8443\r\n"
        "User-Agent: Dispatcher-Webhooks/1.0\r\n"
        "Accept: */*\r\n"
        "Accept-Encoding: identity\r\n"
        "Content-Type: application/json\r\n"
        "X-Webhook-Id: wh_1\r\n"
        "X-Team: blue\r\n"
        "X-API-Key: key_0123456789\r\n"
        "X-Webhook-Event: user.created\r\n"
        f"X-Webhook-Signature: sha256={digest}\r\n"
        f"X-Signature-256: sha256={digest}\r\n"
        f"X-Signature: {digest}\r\n"
        f"webhook-id: {DELIVERY}\r\n"
        "webhook-timestamp: 1768473000\r\n"
        f"webhook-signature: {standard}\r\n"
        "X-Webhook-Attempt: 3\r\n"
        f"traceparent: {TRACE}\r\n"
        f"Content-Length: {len(body)}\r\n"
        "\r\n"
    )
    key = bytes(range(32))
    mac = hmac.new(key, b"%b.1768473000.%b" % (DELIVERY.encode(), body), hashlib.sha256).digest()
    assert standard == "v1," + base64.b64encode(mac).decode()


def test_the_rest_of_a_request():
    """A request carries the URL, the time-out and the workspace that the sender needs."""
    request = render(subscription(timeout_seconds=7))
    assert (request.url, request.timeout_seconds, request.workspace_id) == (URL, 7.0, "acme")


def test_every_promised_header_is_there_once():
    """Each header that the documentation promises stands in a plain request exactly once, and nothing unknown."""
    assert set(headers_of(render())) == {
        "host", "user-agent", "accept", "accept-encoding", "content-type", "content-length",
        "x-webhook-id", "x-webhook-event", "x-webhook-signature", "x-signature-256", "x-signature",
        "x-webhook-attempt", "webhook-id", "webhook-timestamp", "webhook-signature",
    }  # fmt: skip


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_the_method_is_the_subscriptions(method):
    """The request line has the chosen method."""
    assert taken_apart(render(subscription(method=method)).head)[0] == f"{method} /in?a=1 HTTP/1.1"


@pytest.mark.parametrize(
    ("payload_format", "chosen", "sent"),
    [
        ("event", "application/json", "application/json"),
        ("context", FORM, FORM),
        ("event", FORM, FORM),
        ("cloudevents", "application/json", "application/cloudevents+json"),
        ("cloudevents", FORM, "application/cloudevents+json"),
    ],
)
def test_the_content_type_is_that_of_the_body(payload_format, chosen, sent):
    """The content type is the chosen one, except that CloudEvents fix their own; the signature is the body's."""
    request = render(subscription(payload_format=payload_format, content_type=chosen))
    headers = headers_of(request)
    assert headers["content-type"] == sent
    assert request.body.startswith(b"payload=") == (sent == FORM)
    assert headers["x-signature"] == hmac.new(SECRET.encode(), request.body, "sha256").hexdigest()


@pytest.mark.parametrize(
    ("header", "value"),
    [("X-API-Key", API_KEY), ("Authorization", f"Bearer {API_KEY}"), ("authorization", f"Bearer {API_KEY}")],
)
def test_the_api_key_goes_into_its_header(header, value):
    """The API key stands alone in X-API-Key, and as a bearer token in Authorization."""
    request = render(subscription(api_key=sealed(API_KEY, SealPurpose.API_KEY), api_key_header=header))
    headers = headers_of(request)
    assert headers[header.lower()] == value
    assert ("x-api-key" in headers) != ("authorization" in headers)


def test_static_headers_are_added():
    """Static headers go out as they were set, names and values untouched."""
    _, pairs = taken_apart(render(subscription(headers=(("X-Team", "blue: green"), ("x-empty", "")))).head)
    assert ("X-Team", "blue: green") in pairs
    assert ("x-empty", "") in pairs


@pytest.mark.parametrize(("given", "sent"), [(TRACE, TRACE), ("bad\r\nX-Evil: 1", None), (None, None)])
def test_only_a_valid_traceparent_is_passed_on(given, sent):
    """The record's traceparent goes out where it is valid, and no header at all where it isn't."""
    carried = () if given is None else (("traceparent", given.encode()),)
    assert headers_of(render(happened=event(carried))).get("traceparent") == sent


@given(
    st.text(max_size=30) | st.sampled_from(["a\r\nX-Evil: 1", "a\n", "a\r", "a\x00b", "a: b"]),
    st.text(max_size=30) | st.sampled_from(["evt\r\nX-Evil: 1", "evt\x85", "evt\u2028"]),
)
def test_no_event_can_add_a_header(event_type, event_id):
    """Whatever type and id a publisher writes, the request has the headers it has for any event, or there is none."""
    try:
        happened = event(type=event_type, id=event_id)
    except UndecodableError:
        return
    headers = headers_of(render(happened=happened))
    assert set(headers) == set(headers_of(render()))
    assert headers["x-webhook-event"] == event_type


@given(st.text(st.characters(exclude_categories=()), max_size=30), st.sampled_from(["application/json", FORM]))
def test_the_length_is_counted_in_bytes(text, content_type):
    """Content-Length is the body's length in bytes, whatever characters it has."""
    request = render(subscription(content_type=content_type), happened=event(data=text))
    assert headers_of(request)["content-length"] == str(len(request.body))


def test_an_overlapping_secret_signs_until_it_expires():
    """A rotated secret's signature stands behind the current one's up to its expiry, and never from then on."""
    rotated = subscription(secrets=(SealedSecret(sealed(SECRET)), SealedSecret(sealed(OLD_SECRET), NOW_MS)))
    template = RequestTemplate(rotated, KEYRING, "x")

    def signing(now_ms: int) -> list[str]:
        return headers_of(template.render(event(), DELIVERY, 1, now_ms))["webhook-signature"].split(" ")

    def expected(secret: str, body: bytes) -> str:
        return SigningKey(secret).standard(DELIVERY.encode(), b"1768473000", body).decode()

    body = render(rotated).body
    assert signing(NOW_MS - 1) == [expected(SECRET, body), expected(OLD_SECRET, body)]
    assert signing(NOW_MS) == [expected(SECRET, body)]
    # It is forgotten, not only left out.
    assert signing(NOW_MS - 1) == [expected(SECRET, body)]


def test_the_plain_headers_are_signed_by_the_current_secret():
    """The headers that hold one signature hold the current secret's, also while an older one overlaps."""
    rotated = subscription(secrets=(SealedSecret(sealed(SECRET)), SealedSecret(sealed(OLD_SECRET), NOW_MS + 1)))
    assert headers_of(render(rotated))["x-signature"] == headers_of(render())["x-signature"]


@pytest.mark.parametrize("expiries", [(), (NOW_MS + 1,)])
def test_without_a_current_secret_nothing_is_sent_unsigned(expiries):
    """A subscription that has no current secret raises, and says what to do, rather than go out unsigned."""
    with pytest.raises(SealError, match="rotate"):
        RequestTemplate(subscription(secrets=tuple(SealedSecret(sealed(SECRET), at) for at in expiries)), KEYRING, "x")


def test_a_secret_under_another_key_cannot_be_opened():
    """A signing secret or an API key sealed with a key that isn't configured raises SealError."""
    other = Keyring([b"\x01" * 32])
    foreign = SealedSecret(sealed(SECRET, keyring=other))
    with pytest.raises(SealError):
        render(subscription(secrets=(foreign,)))
    with pytest.raises(SealError):
        render(subscription(secrets=(SealedSecret(sealed(SECRET)), foreign)))
    with pytest.raises(SealError):
        render(subscription(api_key=sealed(API_KEY, SealPurpose.API_KEY, other)))


@pytest.mark.parametrize("changes", [{"id": "wh_2"}, {"workspace_id": "other"}])
def test_a_copied_secret_does_not_open(changes):
    """A sealed secret that was copied to another subscription or workspace does not open there."""
    with pytest.raises(SealError):
        render(subscription(**changes))


def test_a_signing_secret_is_no_api_key():
    """A sealed signing secret that was put in the API key's place is not sent to the endpoint."""
    with pytest.raises(SealError):
        render(subscription(api_key=sealed(SECRET)))


@pytest.mark.parametrize(
    "changes",
    [
        {"headers": (("X-Team", "blue\r\nX-Evil: 1"),)},
        {"headers": (("X-Team: blue\nX-Evil", "1"),)},
        {"headers": (("X-Team", "blue\0"),)},
        {"method": "POST / HTTP/1.1\r\nX-Evil: 1\r\n"},
        {"content_type": "application/json\r\nX-Evil: 1"},
        {"api_key": sealed("key\r\nX-Evil: 1", SealPurpose.API_KEY)},
        {"api_key": sealed("key", SealPurpose.API_KEY), "api_key_header": "X-API-Key: 1\r\nX-Evil"},
    ],
)
def test_what_is_stored_cannot_add_a_header(changes):
    """Whoever wrote the document: a line break in it makes no request at all, and its text isn't told."""
    with pytest.raises(ValueError, match="line break") as caught:
        RequestTemplate(subscription(**changes), KEYRING, "x")
    assert "Evil" not in unsendable(caught.value).detail


def test_a_url_that_cannot_be_used_raises():
    """A subscription whose stored URL can't be used raises, and says what to do."""
    with pytest.raises(InvalidUrlError, match="set a valid one"):
        render(subscription(url=None))


def test_one_template_renders_many():
    """A template's requests depend on the event, the attempt and the time only, in any order."""
    template = RequestTemplate(subscription(), KEYRING, "x")
    first = template.render(event(), DELIVERY, 1, NOW_MS)
    other = template.render(event(id="evt_2", type="user.deleted"), "del_b", 2, NOW_MS + 60_000)
    again = template.render(event(), DELIVERY, 1, NOW_MS)
    assert (first.head, first.body) == (again.head, again.body)
    assert headers_of(other)["x-webhook-event"] == "user.deleted"
    assert headers_of(other)["webhook-timestamp"] == "1768473060"


def client_of(**changes):
    """Return the client certificate of the request of a subscription with one."""
    owner = {"id": "wh_1", "workspace_id": "acme", **changes}
    aad = binding(owner["workspace_id"], owner["id"], SealPurpose.CLIENT_KEY)
    key = KEYRING.seal(b"the key", nonce=bytes(12), aad=aad)
    secret = KEYRING.seal(
        SECRET.encode(), nonce=bytes(12), aad=binding(owner["workspace_id"], owner["id"], SealPurpose.SIGNING_SECRET)
    )
    of = {"client_certificate": "the certificate", "client_key": key, "secrets": (SealedSecret(secret),), **owner}
    template = RequestTemplate(subscription(**of), KEYRING, "x")
    happened = event(workspace_id=owner["workspace_id"])
    first, second = (template.render(happened, DELIVERY, attempt, NOW_MS) for attempt in (1, 2))
    assert first.client is second.client
    return first.client


def test_the_client_certificate_is_the_requests_and_its_webhooks_alone():
    """Each request carries its certificate and opened key; the same certificate elsewhere has another id."""
    client = client_of()
    assert (client.certificate, client.key) == (b"the certificate", b"the key")
    assert client_of().id == client.id
    others = [{"id": "wh_2"}, {"workspace_id": "other"}, {"client_certificate": "another"}]
    assert len({client.id, *(client_of(**other).id for other in others)}) == 4
    assert "the key" not in repr(client)
    assert client_of(client_key=None) is None
    assert client_of(client_certificate=None) is None
    assert client_of(url=parse_endpoint_url("http://plain.example.com/")) is None
    assert render().client is None


def test_another_webhooks_client_key_does_not_open():
    """A sealed client key that was copied to another webhook, or stands for another purpose, is refused."""
    for purpose, owner in ((SealPurpose.CLIENT_KEY, "wh_2"), (SealPurpose.API_KEY, "wh_1")):
        key = KEYRING.seal(b"the key", nonce=bytes(12), aad=binding("acme", owner, purpose))
        with pytest.raises(SealError):
            client_of(client_key=key)


def test_nothing_shows_a_secret():
    """Neither a template's nor a request's nor the subscription's repr has a secret, a key or a signature in it."""
    owner = subscription(api_key=sealed(API_KEY, SealPurpose.API_KEY))
    template = RequestTemplate(owner, KEYRING, "x")
    request = template.render(event(), DELIVERY, 1, NOW_MS)
    shown = repr(template) + repr(request) + repr(owner) + str(template._keys)
    assert API_KEY not in shown
    assert SECRET.removeprefix("whsec_") not in shown
    assert not re.search(r"sha256|v1,|Zoë", shown)


@pytest.mark.parametrize("api_key", ["k3y!", "key_0123456789", None])
def test_an_answer_is_kept_without_secrets(api_key):
    """Each of a webhook's secrets is masked in an answer, down to one that is nothing else; other answers stay."""
    sealed_key = None if api_key is None else sealed(api_key, SealPurpose.API_KEY)
    overlapping = (SealedSecret(sealed(SECRET)), SealedSecret(sealed(OLD_SECRET), NOW_MS))
    template = RequestTemplate(subscription(secrets=overlapping, api_key=sealed_key), KEYRING, "x")
    for secret in (SECRET.removeprefix("whsec_"), OLD_SECRET, *([api_key] if api_key else [])):
        assert template.without_secrets(secret.encode()) == b"***"
        assert template.without_secrets(f"<{secret}>".encode()) == b"<***>"
    for other in (b"", b"OK", b'{"ok": true}', b"x" * 4096):
        assert template.without_secrets(other) == other


def test_a_template_shows_nothing_after_it_masked():
    """What a template keeps to mask with stands in no representation of it."""
    template = RequestTemplate(subscription(), KEYRING, "x")
    template.without_secrets(SECRET.encode())
    assert SECRET.removeprefix("whsec_") not in repr(template) + repr(template._echoes)
