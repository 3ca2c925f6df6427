"""Signatures: against an independent HMAC, and against the Standard Webhooks library itself."""

import base64
import datetime as dt
import hashlib
import hmac

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from dispatcher.core.signing import SECRET_PREFIX, SigningKey, generate_secret, signatures

DELIVERY = b"del_5lbqgedzfrx45ptzpqs2pttdot"
key_bytes = st.binary(min_size=1, max_size=64)
secrets = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=40)
bodies = st.text(st.characters(exclude_categories=("Cs",)), max_size=60).map(str.encode)


def now() -> bytes:
    return b"%d" % dt.datetime.now(dt.UTC).timestamp()


def verify(webhook: Webhook, timestamp: bytes, standard: bytes, body: bytes) -> None:
    headers = {
        "webhook-id": DELIVERY.decode(),
        "webhook-timestamp": timestamp.decode(),
        "webhook-signature": standard.decode(),
    }
    webhook.verify(body, headers, json_parse=False)


def test_the_specifications_example():
    """The signature is the one that the specification's libraries give for their own example."""
    key = SigningKey("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = key.standard(b"msg_p5jXN8AQM9LWM0D4loKWxJek", b"1614265330", b'{"test": 2432232314}')
    assert signed == b"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@given(key_bytes, bodies)
def test_the_library_verifies_a_generated_form(key, body):
    """A whsec_ secret of any key verifies with the Standard Webhooks library, and another body does not."""
    secret = SECRET_PREFIX + base64.b64encode(key).decode()
    timestamp = now()
    signed = SigningKey(secret).standard(DELIVERY, timestamp, body)
    verify(Webhook(secret), timestamp, signed, body)
    with pytest.raises(WebhookVerificationError):
        verify(Webhook(secret), timestamp, signed, body + b" ")


@given(key_bytes)
@example(b"1")
@example(b"12")
@example(b"123")
def test_missing_padding_changes_no_key(key):
    """A whsec_ secret without its padding signs as with it, as most of the specification's libraries read it."""
    secret = SECRET_PREFIX + base64.b64encode(key).decode().rstrip("=")
    timestamp = now()
    verify(Webhook(secret), timestamp, SigningKey(secret).standard(DELIVERY, timestamp, b"{}"), b"{}")


@given(secrets.filter(lambda secret: not secret.startswith(SECRET_PREFIX)), bodies)
@example("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", b"{}")
@example("correct horse battery staple", b"{}")
def test_any_other_secret_is_its_own_bytes(secret, body):
    """A secret without the prefix, base64 or not, keys Standard Webhooks with its UTF-8 bytes."""
    timestamp = now()
    verify(Webhook(secret.encode()), timestamp, SigningKey(secret).standard(DELIVERY, timestamp, body), body)


@pytest.mark.parametrize(
    "rest", ["", "=", "===", "a", "abcde", "no base64!", "ab-_", "ab==cd==", "QUJD\n", "Schlüssel", "🔑🔑🔑🔑"]
)
def test_a_prefix_without_base64_is_a_secret_like_any_other(rest):
    """What only looks like a whsec_ secret raises nothing and signs with its UTF-8 bytes, prefix included."""
    secret = SECRET_PREFIX + rest
    timestamp = now()
    verify(Webhook(secret.encode()), timestamp, SigningKey(secret).standard(DELIVERY, timestamp, b"{}"), b"{}")


@given(secrets | key_bytes.map(lambda key: SECRET_PREFIX + base64.b64encode(key).decode()), bodies)
@example("k" * 64, b"{}")
@example("k" * 65, b"{}")
def test_the_plain_digest_is_an_hmac_over_the_text_of_the_secret(secret, body):
    """The hex digest is HMAC-SHA256 of the raw body, keyed with the secret's UTF-8 bytes, whatever its form."""
    expected = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    assert SigningKey(secret).hex_digest(body) == expected.encode()


@given(st.lists(key_bytes, min_size=1, max_size=4, unique=True), bodies)
def test_every_overlapping_secret_verifies(keys, body):
    """While rotated secrets overlap, the holder of any of them verifies, and nobody else; the newest comes first."""
    known = [SECRET_PREFIX + base64.b64encode(key).decode() for key in keys]
    timestamp = now()
    digest, standard = signatures([SigningKey(secret) for secret in known], DELIVERY, timestamp, body)
    for secret in known:
        verify(Webhook(secret), timestamp, standard, body)
    assert digest == hmac.new(known[0].encode(), body, "sha256").hexdigest().encode()
    assert standard.split(b" ") == [SigningKey(secret).standard(DELIVERY, timestamp, body) for secret in known]
    with pytest.raises(WebhookVerificationError):
        verify(
            Webhook(b"another key that is longer than any of these: 65 bytes at the least"), timestamp, standard, body
        )


@given(key_bytes, st.integers(0, 2))
def test_id_time_and_body_are_all_signed(key, changed):
    """A signature holds for its id, its time and its body only."""
    signing = SigningKey(SECRET_PREFIX + base64.b64encode(key).decode())
    parts = [DELIVERY, b"1768473000", b"{}"]
    other = [*parts]
    other[changed] += b"1"
    assert signing.standard(*parts) != signing.standard(*other)


def test_a_generated_secret_is_32_bytes_in_the_specified_form():
    """A new secret is whsec_ and the base64 of its 32 bytes, and no other length is taken."""
    drawn = bytes(range(32))
    assert generate_secret(drawn) == "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
    for length in (0, 31, 33):
        with pytest.raises(ValueError, match="32 random bytes"):
            generate_secret(bytes(length))


@given(st.text("abcdef0123456789", min_size=8))
def test_a_key_never_shows_itself(secret):
    """Neither repr, str nor a format of a key has anything of the secret in it."""
    key = SigningKey(secret)
    assert {repr(key), str(key), f"{key}", repr([key])} == {"SigningKey(…)", "[SigningKey(…)]"}
