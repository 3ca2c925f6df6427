"""Secrets at rest: sealed with AES-256-GCM, bound to the place they belong to.

A sealed value is `version (1 byte) | key id (8) | nonce (12) | ciphertext and tag`. The first two and the caller's
`aad` are authenticated: a value that was changed, or copied to another subscription or purpose, does not open.

Source: NIST SP 800-38D (GCM), RFC 5116 section 5.2 (AEAD_AES_256_GCM).
"""

import hashlib
from collections.abc import Sequence
from enum import StrEnum

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dispatcher.core.errors import SealError

KEY_BYTES = 32
NONCE_BYTES = 12

_VERSION = b"\x01"
_KEY_ID_BYTES = 8
_HEADER_BYTES = len(_VERSION) + _KEY_ID_BYTES
_TAG_BYTES = 16
_SHORTEST = _HEADER_BYTES + NONCE_BYTES + _TAG_BYTES


class SealPurpose(StrEnum):
    """What a sealed value is used for; part of what it is bound to."""

    SIGNING_SECRET = "signing-secret"  # noqa: S105 - a name, no secret
    API_KEY = "api-key"
    CLIENT_KEY = "client-key"
    ANSWER = "answer"
    SESSION = "session"


def binding(workspace_id: str, subscription_id: str, purpose: SealPurpose) -> bytes:
    """Return the `aad` that ties a sealed value to one subscription and one purpose.

    Each part is preceded by its length, so that no two different triples give the same bytes.
    """
    parts = (workspace_id.encode(), subscription_id.encode(), purpose.value.encode())
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


class Keyring:
    """The encryption keys of one deployment: the first seals, all open.

    Args:
        keys: Keys of 32 bytes, at least one. To change the key, put the new one in front, seal everything that
            `is_current` denies again, then leave the old one out (`dispatcher.operations.key_rotation`).

    Attributes:
        ids: The keys' ids, in their order; no secret.

    Raises:
        ValueError: There is no key, or one has another length.
    """

    __slots__ = ("_ciphers", "_current_id", "ids")

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys:
            raise ValueError("at least one encryption key of 32 bytes is needed")
        if any(len(key) != KEY_BYTES for key in keys):
            raise ValueError("every encryption key must have exactly 32 bytes")
        self._current_id = _key_id(keys[0])
        self._ciphers = {_key_id(key): AESGCM(key) for key in keys}
        self.ids = tuple(key_id.hex() for key_id in self._ciphers)

    def __repr__(self) -> str:
        return f"Keyring({len(self._ciphers)} keys)"

    def seal(self, plaintext: bytes, *, nonce: bytes, aad: bytes) -> bytes:
        """Seal with the first key.

        Args:
            plaintext: What to keep secret.
            nonce: 12 random bytes, never used twice with one key.
            aad: What the value is bound to; see `binding`.

        Returns:
            The sealed value, 37 bytes longer than the plaintext.

        Raises:
            ValueError: The nonce has another length.
        """
        if len(nonce) != NONCE_BYTES:
            raise ValueError(f"the nonce must have exactly {NONCE_BYTES} bytes")
        header = _VERSION + self._current_id
        return header + nonce + self._ciphers[self._current_id].encrypt(nonce, plaintext, header + aad)

    def open(self, sealed: bytes, *, aad: bytes) -> bytes:
        """Return the plaintext of a sealed value.

        Args:
            sealed: What `seal` returned, from whichever of the keys.
            aad: What it was bound to.

        Raises:
            SealError: It was changed, is bound to something else, or its key isn't configured.
        """
        if len(sealed) < _SHORTEST or sealed[:1] != _VERSION:
            raise SealError("this is no sealed value of a known version; set the secret again")
        header, nonce = sealed[:_HEADER_BYTES], sealed[_HEADER_BYTES : _HEADER_BYTES + NONCE_BYTES]
        cipher = self._ciphers.get(header[len(_VERSION) :])
        if cipher is None:
            raise SealError("the key that sealed this value is not configured; add it to DISPATCHER_ENCRYPTION_KEYS")
        try:
            return cipher.decrypt(nonce, sealed[_HEADER_BYTES + NONCE_BYTES :], header + aad)
        except InvalidTag:
            raise SealError("the sealed value was changed, or belongs to another webhook; set it again") from None

    def is_current(self, sealed: bytes) -> bool:
        """Say whether a value was sealed with the first key, so that it needs no sealing again."""
        return sealed[:_HEADER_BYTES] == _VERSION + self._current_id


def key_id_of(sealed: bytes) -> str:
    """Return the id of the key that a value says it was sealed with; empty where it is no sealed value."""
    return sealed[len(_VERSION) : _HEADER_BYTES].hex() if sealed[:1] == _VERSION and len(sealed) >= _SHORTEST else ""


def _key_id(key: bytes) -> bytes:
    return hashlib.sha256(b"dispatcher key id\x00" + key).digest()[:_KEY_ID_BYTES]
