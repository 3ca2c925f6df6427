"""Signatures in every header form.

Source: Standard Webhooks 1.0, "Signature scheme"; RFC 2104 (HMAC); GitHub's and common `sha256=` headers.
"""

import base64
import binascii
import hashlib
from collections.abc import Sequence

SECRET_PREFIX = "whsec_"  # noqa: S105 - the prefix of a secret, not one

_BLOCK_BYTES = 64
_INNER = bytes(byte ^ 0x36 for byte in range(256))
_OUTER = bytes(byte ^ 0x5C for byte in range(256))


class SigningKey:
    """One secret, ready to sign with.

    Args:
        secret: As its owner knows it. Its UTF-8 bytes key the plain headers. A `whsec_` secret's base64 part,
            padded or not, decodes to the key for Standard Webhooks; any other secret's UTF-8 bytes are used
            there too.
    """

    __slots__ = ("_raw", "_standard")

    def __init__(self, secret: str) -> None:
        self._raw = _Hmac(secret.encode())
        self._standard = _Hmac(_standard_key(secret))

    def __repr__(self) -> str:
        return "SigningKey(…)"

    def hex_digest(self, body: bytes) -> bytes:
        """Return the lower-case hex HMAC-SHA256 of a raw body: the value of `X-Signature`."""
        return self._raw.digest(body).hex().encode()

    def standard(self, delivery_id: bytes, timestamp: bytes, body: bytes) -> bytes:
        """Return one signature of `webhook-signature`: `v1,` and base64.

        Args:
            delivery_id: The `webhook-id` header's value.
            timestamp: The `webhook-timestamp` header's value.
            body: The raw body.
        """
        signed = b"%b.%b.%b" % (delivery_id, timestamp, body)
        return b"v1," + binascii.b2a_base64(self._standard.digest(signed), newline=False)


class _Hmac:
    """HMAC-SHA256 whose two keyed states are made once, as RFC 2104, section 4, has it: half the cost of a digest."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        block = hashlib.sha256(key).digest() if len(key) > _BLOCK_BYTES else key
        block = block.ljust(_BLOCK_BYTES, b"\0")
        self._inner = hashlib.sha256(block.translate(_INNER))
        self._outer = hashlib.sha256(block.translate(_OUTER))

    def digest(self, message: bytes) -> bytes:
        inner = self._inner.copy()
        inner.update(message)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.digest()


def _standard_key(secret: str) -> bytes:
    if secret.startswith(SECRET_PREFIX):
        # Most of the specification's libraries read base64 without its padding too.
        encoded = secret.removeprefix(SECRET_PREFIX).rstrip("=")
        try:
            return base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True) or secret.encode()
        except ValueError:
            pass  # no base64, or not even ASCII: then it is a secret of another form that happens to start so
    return secret.encode()


def generate_secret(random_bytes: bytes) -> str:
    """Return a new secret: `whsec_` and the base64 of 32 random bytes.

    Raises:
        ValueError: They are not 32 bytes.
    """
    if len(random_bytes) != 32:  # noqa: PLR2004 - the length that the docstring states
        raise ValueError("a secret is made of 32 random bytes")
    return SECRET_PREFIX + base64.b64encode(random_bytes).decode()


def signatures(keys: Sequence[SigningKey], delivery_id: bytes, timestamp: bytes, body: bytes) -> tuple[bytes, bytes]:
    """Sign a body with every secret that is in force.

    Args:
        keys: The current one first, then those that still overlap.
        delivery_id: The `webhook-id` header's value.
        timestamp: The `webhook-timestamp` header's value.
        body: The raw body.

    Returns:
        The hex digest by the current secret, and the value of `webhook-signature` by all of them.
    """
    if len(keys) == 1:
        return keys[0].hex_digest(body), keys[0].standard(delivery_id, timestamp, body)
    return keys[0].hex_digest(body), b" ".join([key.standard(delivery_id, timestamp, body) for key in keys])
