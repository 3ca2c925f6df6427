"""Rendered requests are verified by receivers in other languages, as their owners would write them."""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.core.decoding import decode
from dispatcher.core.exchange import Request
from dispatcher.core.model import Origin, SealedSecret, Subscription
from dispatcher.core.payload import FORM
from dispatcher.core.rendering import RequestTemplate
from dispatcher.core.sealing import Keyring, SealPurpose, binding
from dispatcher.core.urls import parse_endpoint_url

HERE = Path(__file__).parent / "verifiers"
PROGRAMS = {"node": "verify.js", "go": "verify.go", "php": "verify.php"}
KEYRING = Keyring([bytes(32)])
NOW_MS = 1_768_473_000_000
SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
SECRETS = [
    SECRET,
    SECRET.rstrip("="),
    "correct horse battery staple",
    "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "Schlüssel 🔑 lang",
]
FORMATS = [
    ("event", "application/json"),
    ("event", FORM),
    ("context", "application/json"),
    ("cloudevents", "application/json"),
]
AWKWARD = (
    '{"type":"user.created","workspace_id":"acme","id":"evt_é\\"\\\\","data":{"b":1.0,"10":1E21,"2":-0,"b":0.000001,'
    '"s":"\\u2028\\ud83d\\ude00\\ud800 </script>","n":[9007199254740991,1e-7,4.35]},"context":{"0":null}}'
).encode()

Case = dict[str, str]
Verify = Callable[[list[Case]], list[dict[str, bool | None]]]


@pytest.fixture(scope="module", params=list(PROGRAMS))
def verify(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Verify:
    """Run a receiver of one language over cases."""
    language = request.param
    if shutil.which(language) is None:
        pytest.skip(f"{language} is not installed: its receiver is not run here")
    command = [language, str(HERE / PROGRAMS[language])]
    if language == "go":
        built = tmp_path_factory.mktemp("go") / "verify"
        environment = {**os.environ, "GO111MODULE": "off", "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
        subprocess.run(["go", "build", "-p", "1", "-o", built, command[1]], env=environment, check=True)
        command = [str(built)]

    def run(cases: list[Case]) -> list[dict[str, bool | None]]:
        done = subprocess.run(command, input=json.dumps(cases).encode(), capture_output=True, check=True, timeout=60)
        verdicts = json.loads(done.stdout)
        assert len(verdicts) == len(cases)
        return verdicts

    return run


def rendered(
    value: bytes, *secrets: str, payload_format: str = "event", content_type: str = "application/json"
) -> Request:
    """Render a delivery that is signed with secrets, the current one first."""
    aad = binding("acme", "wh_1", SealPurpose.SIGNING_SECRET)
    sealed = [KEYRING.seal(secret.encode(), nonce=bytes(12), aad=aad) for secret in secrets]
    subscription = Subscription(
        "wh_1",
        "acme",
        parse_endpoint_url("https://hooks.example.com/in"),
        ("*",),
        tuple(SealedSecret(one, NOW_MS + 1 if turn else None) for turn, one in enumerate(sealed)),
        payload_format=payload_format,
        content_type=content_type,
    )
    event = decode(value, (), Origin("events", 0, 7, NOW_MS), None)
    template = RequestTemplate(subscription, KEYRING, "Dispatcher-Webhooks/1.0")
    return template.render(event, "del_5lbqgedzfrx45ptzpqs2pttdot", 1, NOW_MS)


def case(request: Request, secret: str) -> Case:
    return {"secret": secret, "head": request.head.decode("ascii"), "body": base64.b64encode(request.body).decode()}


def assert_all(verdicts: list[dict[str, bool | None]], expected: dict[str, bool]) -> None:
    """Assert that every verdict is the expected one; what a receiver doesn't do it says nothing of."""
    for verdict in verdicts:
        assert {name: value for name, value in verdict.items() if value is not None} == {
            name: expected[name] for name, value in verdict.items() if value is not None
        }


def test_receivers_verify_every_format_with_every_secret(verify):
    """Whatever the body's format and the secret's form, a receiver verifies the plain and the standard headers."""
    cases = [
        case(rendered(AWKWARD, secret, payload_format=name, content_type=kind), secret)
        for secret in SECRETS
        for name, kind in FORMATS
    ]
    assert_all(verify(cases), {"plain": True, "standard": True, "reserialised": True})


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=()), max_size=6),
    lambda child: (
        st.lists(child, max_size=3) | st.dictionaries(st.text(max_size=4) | st.integers(0).map(str), child, max_size=3)
    ),
)


@given(samples=st.lists(values, min_size=1, max_size=20))
@settings(max_examples=10, deadline=None)
def test_receivers_verify_any_data(verify, samples):
    """Whatever an event's data, the signatures hold over the raw body, and in JavaScript over the parsed one too."""
    cases = []
    for sample in samples:
        value = json.dumps({"type": "user.created", "workspace_id": "acme", "data": sample}).encode()
        cases += [
            case(rendered(value, SECRET, payload_format=name, content_type=kind), SECRET) for name, kind in FORMATS
        ]
    assert_all(verify(cases), {"plain": True, "standard": True, "reserialised": True})


def test_receivers_refuse_what_was_tampered_with(verify):
    """A changed body and a wrong secret fail every check; a changed id, time or attempt's signature fails its own."""
    good = rendered(AWKWARD, SECRET)
    body = replace(good, body=good.body.replace(b"user.created", b"user.deleted"))
    none = {"plain": False, "standard": False, "reserialised": False}
    assert body.body != good.body
    assert_all(verify([case(body, SECRET), case(good, "another secret than this")]), none)
    for old, new in (
        (b"webhook-id: del_5", b"webhook-id: del_6"),
        (b"timestamp: 1", b"timestamp: 2"),
        (b"v1,", b"v2,"),
    ):
        changed = replace(good, head=good.head.replace(old, new))
        assert changed.head != good.head
        assert_all(verify([case(changed, SECRET)]), {"plain": True, "standard": False, "reserialised": True})


def test_receivers_refuse_a_space_that_was_added(verify):
    """A body that says the same in other bytes fails over the raw body, and holds only once it is written again."""
    good = rendered(AWKWARD, SECRET)
    spaced = replace(good, head=good.head, body=good.body + b" ")
    assert_all(verify([case(spaced, SECRET)]), {"plain": False, "standard": False, "reserialised": True})


def test_receivers_verify_through_a_rotation(verify):
    """While a rotated secret overlaps, its holder verifies the standard header, and the new one's holder everything."""
    request = rendered(AWKWARD, SECRET, "an older secret", "an even older one")
    assert_all(verify([case(request, SECRET)]), {"plain": True, "standard": True, "reserialised": True})
    older = [case(request, secret) for secret in ("an older secret", "an even older one")]
    assert_all(verify(older), {"plain": False, "standard": True, "reserialised": False})
