"""The endpoint for trying things out verifies what the dispatcher signs."""

import base64

import pytest

from dispatcher.app.receive import verify
from dispatcher.core.signing import SigningKey, generate_secret

BODY = b'{"id":"evt_1"}'
SECRETS = [
    generate_secret(bytes(range(32))),
    "whsec_" + base64.b64encode(b"of another length").decode().rstrip("="),
    "whsec_not base64",
    "whsec_",
    "correct horse bättery",
]


def headers(secret):
    """Sign as the dispatcher does."""
    key = SigningKey(secret)
    return {
        "webhook-id": "del_1",
        "webhook-timestamp": "1700000000",
        "webhook-signature": key.standard(b"del_1", b"1700000000", BODY).decode(),
        "x-webhook-signature": "sha256=" + key.hex_digest(BODY).decode(),
    }


@pytest.mark.parametrize("secret", SECRETS)
def test_what_is_signed_is_verified(secret):
    """A secret of any form that the dispatcher takes verifies, and no other body does."""
    assert verify(secret, headers(secret), BODY)
    assert not verify(secret, headers(secret), BODY + b" ")


@pytest.mark.parametrize("name", ["x-webhook-signature", "webhook-signature", "webhook-id", "webhook-timestamp"])
@pytest.mark.parametrize("value", [None, "", "v1,", "é", "\udcff"])
def test_a_header_of_no_sense_is_a_wrong_signature(name, value):
    """Whatever stands in a header, or where it is missing, the answer is no, not an error."""
    sent = headers(SECRETS[0]) | {name: value}
    if value is None:
        del sent[name]
    assert not verify(SECRETS[0], sent, BODY)
