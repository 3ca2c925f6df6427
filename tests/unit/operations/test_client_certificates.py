"""Client certificates and their keys: what is accepted, and what becomes of them."""

import dataclasses
import datetime as dt
import functools

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.errors import InvalidInputError
from dispatcher.core.sealing import Keyring, SealPurpose, binding
from dispatcher.operations.audit import Audit
from dispatcher.operations.client_certificates import check_certificate, check_key, fingerprint, pair_problems
from dispatcher.operations.webhooks import Webhooks
from tests.fakes.api_stack import URL, HttpsOnly, ManualClock, draws
from tests.fakes.stores import MemoryAuditStore, MemoryWebhookStore

LEAST = {"url": URL, "events": ["user.created"]}
NOW = dt.datetime(2026, 1, 15, tzinfo=dt.UTC)
NOW_MS = int(NOW.timestamp() * 1000)


def pem_of(key, password=b"") -> str:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption).decode()


def signed(key, *, until=NOW + dt.timedelta(days=1)) -> str:
    name = x509.Name([])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, NOW - dt.timedelta(days=9), until)
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, digest).public_bytes(Encoding.PEM).decode()


@functools.cache
def pair(kind: str = "P-256") -> tuple[str, str]:
    key = {
        "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
        "P-192": lambda: ec.generate_private_key(ec.SECP192R1()),
        "Ed25519": ed25519.Ed25519PrivateKey.generate,
        "RSA 2048": lambda: rsa.generate_private_key(65537, 2048),
        "RSA 1024": lambda: rsa.generate_private_key(65537, 1024),
        "DSA": lambda: dsa.generate_private_key(1024),
    }[kind]()
    return signed(key), pem_of(key)


OTHER = (signed(key := ec.generate_private_key(ec.SECP256R1())), pem_of(key))


@pytest.mark.parametrize("kind", ["P-256", "P-521", "Ed25519", "RSA 2048"])
def test_usual_keys_are_accepted(kind):
    """A certificate and its key of each usual kind go together and are in force."""
    certificate, secret = pair(kind)
    assert check_certificate(certificate) == certificate
    assert check_key(secret) == secret
    assert pair_problems(certificate, secret, NOW_MS) == {}


@pytest.mark.parametrize("kind", ["P-192", "RSA 1024", "DSA"])
def test_weak_and_odd_keys_are_refused(kind):
    """A key that TLS would not take is refused in words, with its certificate and by itself."""
    certificate, secret = pair(kind)
    for check, value in ((check_certificate, certificate), (check_key, secret)):
        with pytest.raises(ValueError, match="of a kind that can't be used; send RSA"):
            check(value)


def test_what_is_shown_holds_no_key():
    """A certificate field with a key in it is refused, and whatever else stands around the certificates is dropped."""
    certificate, secret = pair()
    with pytest.raises(ValueError, match="private key in it"):
        check_certificate(secret + certificate)
    assert check_certificate(f"token: hush\n{certificate}password: hush") == certificate


def test_a_chain_is_kept_in_its_order():
    """The leaf and the authorities between stay as they are; too many are refused."""
    leaf = trustme.CA().create_child_ca().issue_cert("client.example")
    chain = "".join(part.bytes().decode() for part in leaf.cert_chain_pems)
    assert len(leaf.cert_chain_pems) == 2
    assert check_certificate(chain) == chain
    with pytest.raises(ValueError, match="9 certificates"):
        check_certificate(pair()[0] * 9)


@pytest.mark.parametrize("text", ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_what_is_no_certificate_is_refused(text):
    """Anything else is refused with what to send."""
    with pytest.raises(ValueError, match="send a PEM certificate"):
        check_certificate(text)
    with pytest.raises(ValueError, match="send the certificate's private key"):
        check_key(text.replace("CERTIFICATE", "PRIVATE KEY"))


def test_texts_too_long_are_not_read():
    """A text over its bound is refused before anything parses it."""
    certificate, secret = pair()
    with pytest.raises(ValueError, match="send a PEM certificate"):
        check_certificate(certificate + " " * 16_384)
    with pytest.raises(ValueError, match="send the certificate's private key"):
        check_key(secret + " " * 4_096)


def test_a_pass_phrase_is_refused():
    """An encrypted key is refused in words; nothing asks for its pass phrase."""
    with pytest.raises(ValueError, match="has a pass phrase"):
        check_key(pem_of(ec.generate_private_key(ec.SECP256R1()), b"hush"))


@given(st.text(max_size=200), st.integers(0, 1000), st.sampled_from(["P-256", "RSA 2048"]))
def test_damaged_texts_raise_nothing_else(damage, at, kind):
    """Whatever is put into a certificate or a key, the outcome is a value or a ValueError."""
    for check, value in zip((check_certificate, check_key), pair(kind), strict=True):
        try:
            check(value[: at % len(value)] + damage + value[at % len(value) :])
        except ValueError as error:
            assert str(error)  # noqa: PT017 - either outcome is right


def test_a_stored_certificate_that_is_none_has_no_fingerprint():
    """Whatever stands in the document, the audit log has a word for it."""
    assert fingerprint("no PEM") == "unreadable"
    assert fingerprint(None) is None
    assert fingerprint(pair()[0]) != fingerprint(OTHER[0])


def test_a_pair_that_does_not_go_together_is_refused():
    """Another certificate's key, and a certificate that has ended, are each named."""
    certificate, secret = pair()
    assert "client_key" in pair_problems(certificate, OTHER[1], NOW_MS)
    ended = signed(ec.generate_private_key(ec.SECP256R1()), until=NOW)
    assert "expired on 2026-01-15" in pair_problems(ended, secret, NOW_MS)["client_certificate"]


@pytest.fixture
def store():
    return MemoryWebhookStore()


@pytest.fixture
def audit():
    return MemoryAuditStore()


@pytest.fixture
def webhooks(store, audit):
    clock, draw = ManualClock(), draws()
    keyring = Keyring([b"k" * 32])
    return Webhooks(store, clock, HttpsOnly(), keyring, draw, audit=Audit(audit, clock, draw))


def sent(of=None):
    certificate, secret = of or pair()
    return {"client_certificate": certificate, "client_key": secret}


async def test_the_key_is_sealed_and_shows_nowhere(webhooks, store, audit):
    """What is stored opens for this webhook and this purpose alone; neither repr nor audit has the key."""
    created = (await webhooks.create("acme", {**LEAST, **sent()})).webhook
    subscription = store.webhooks[created.subscription.id].subscription
    assert subscription.client_certificate == pair()[0]
    aad = binding("acme", subscription.id, SealPurpose.CLIENT_KEY)
    assert Keyring([b"k" * 32]).open(subscription.client_key, aad=aad).decode() == pair()[1]
    changed = (await webhooks.update("acme", subscription.id, sent(OTHER))).webhook
    told = repr((created, changed, audit.__dict__))
    for _, secret in (pair(), OTHER):
        assert secret.splitlines()[1] not in told
    assert fingerprint(OTHER[0]) in told
    assert OTHER[0].splitlines()[1] not in repr(audit.__dict__)


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"client_certificate": pair()[0]}, "client_key"),
        ({"client_key": pair()[1]}, "client_certificate"),
        ({"client_certificate": None, "client_key": pair()[1]}, "client_certificate"),
        ({"client_certificate": pair()[0], "client_key": OTHER[1]}, "client_key"),
        ({"client_certificate": "x", "client_key": pair()[1]}, "client_certificate"),
        ({"client_certificate": 1, "client_key": pair()[1]}, "client_certificate"),
        ({"client_key_set": True}, "client_key_set"),
    ],
)
async def test_half_a_pair_is_refused(webhooks, change, wrong):
    """Certificate and key are set together or not at all, in a new webhook and in a change."""
    with pytest.raises(InvalidInputError) as caught:
        await webhooks.create("acme", {**LEAST, **change})
    assert list(caught.value.fields) == [wrong]
    assert pair()[1] not in str(caught.value)
    webhook_id = (await webhooks.create("acme", LEAST)).webhook.subscription.id
    with pytest.raises(InvalidInputError) as caught:
        await webhooks.update("acme", webhook_id, change)
    assert list(caught.value.fields) == [wrong]
    assert wrong in webhooks.problems_of({**LEAST, **change})


@pytest.mark.parametrize("name", ["client_certificate", "client_key"])
async def test_null_removes_both(webhooks, name):
    """Null for either takes both away; another change leaves both as they are."""
    created = (await webhooks.create("acme", {**LEAST, **sent()})).webhook.subscription
    kept = (await webhooks.update("acme", created.id, {"name": "n"})).webhook.subscription
    assert (kept.client_certificate, kept.client_key) == (created.client_certificate, created.client_key)
    gone = (await webhooks.update("acme", created.id, {name: None})).webhook.subscription
    assert (gone.client_certificate, gone.client_key) == (None, None)


class Lax:
    """Lets every URL in."""

    def check_url(self, _url):
        """Refuse nothing."""


async def test_a_certificate_goes_with_https_alone(store):
    """A plain URL with a certificate is refused, whichever of the two comes last, and nothing else is."""
    webhooks = Webhooks(store, ManualClock(), Lax(), Keyring([b"k" * 32]), draws())
    plain = {**LEAST, "url": "HTTP://plain.example.com/"}
    with pytest.raises(InvalidInputError) as caught:
        await webhooks.create("acme", {**plain, **sent()})
    assert list(caught.value.fields) == ["client_certificate"]
    webhook_id = (await webhooks.create("acme", {**LEAST, **sent()})).webhook.subscription.id
    with pytest.raises(InvalidInputError) as caught:
        await webhooks.update("acme", webhook_id, {"url": plain["url"]})
    assert list(caught.value.fields) == ["url"]
    changed = await webhooks.update("acme", webhook_id, {"url": plain["url"], "client_key": None})
    assert changed.webhook.url == plain["url"]
    assert dataclasses.asdict(changed.webhook)["subscription"]["client_key"] is None
