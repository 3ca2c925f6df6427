"""A webhook's client certificate and its key: what is accepted, before either is stored.

The certificate is shown again and the key never is, so that nothing but certificates is kept of the one.
"""

import datetime as dt
from collections.abc import Mapping
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

MAX_CERTIFICATE_LENGTH: Final = 16_384
MAX_KEY_LENGTH: Final = 4_096
"""Enough for the largest key that is accepted, RSA with 4096 bits."""
MAX_CHAIN: Final = 8

CERTIFICATE_PATTERN: Final = "^[\\x00-\\x7f]*-----BEGIN CERTIFICATE-----[\\x00-\\x7f]*$"
KEY_PATTERN: Final = "^[\\x00-\\x7f]*-----BEGIN [A-Z ]*PRIVATE KEY-----[\\x00-\\x7f]*$"

CERTIFICATE_HINT: Final = (
    f"a PEM certificate, then those of the authorities between, at most {MAX_CERTIFICATE_LENGTH} characters"
)
KEY_HINT: Final = f"the certificate's private key as PEM without a pass phrase, at most {MAX_KEY_LENGTH} characters"

_RSA_BITS = range(2048, 4097)
_KEY_KINDS = "RSA with 2048 to 4096 bits, P-256, P-384, P-521 or Ed25519"
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)


def check_certificate(value: str) -> str:
    """Return the chain as PEM with nothing around it.

    Raises:
        ValueError: It is none, is too long, or its key is of a kind that can't be used; the text says what to send.
    """
    if "PRIVATE KEY" in value:
        raise ValueError("has a private key in it, and this field is shown: send the key in client_key alone")
    chain = _read_chain(value)
    _public_key(chain[0])
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain).decode("ascii")


def check_key(value: str) -> str:
    """Return the key as it was sent.

    Raises:
        ValueError: It is none, has a pass phrase, or is of a kind that can't be used.
    """
    _read_key(value)
    return value


def contradictions(sent: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, str]:
    """Say where a certificate comes without its key, or goes where no TLS is.

    Args:
        sent: What the caller sent.
        after: The webhook's fields as they would be.
    """
    given = [name for name in ("client_certificate", "client_key") if isinstance(sent.get(name), str)]
    if len(given) == 1:
        missing = "client_key" if given == ["client_certificate"] else "client_certificate"
        return {missing: f"is required: {given[0]} was sent, and the two are set together"}
    removed = any(name in sent and sent[name] is None for name in ("client_certificate", "client_key"))
    url = after.get("url")
    plain = isinstance(url, str) and url[:5].lower() == "http:"
    if plain and (given or (after.get("client_certificate") is not None and not removed)):
        return {
            "client_certificate" if given else "url": "a client certificate is shown in TLS only: use an https:// URL, "
            "or set client_certificate to null"
        }
    return {}


def pair_problems(certificate: str, key: str, now_ms: int) -> dict[str, str]:
    """Say what is wrong with a certificate and a key that are each in order by themselves.

    Args:
        certificate: What `check_certificate` returned.
        key: What `check_key` returned.
        now_ms: Unix milliseconds.

    Returns:
        Field to what is wrong with it; empty where they go together and the certificate is in force.
    """
    leaf = _read_chain(certificate)[0]
    if leaf.not_valid_after_utc <= dt.datetime.fromtimestamp(now_ms / 1000, dt.UTC):
        return {"client_certificate": f"expired on {leaf.not_valid_after_utc:%Y-%m-%d}; send one that is in force"}
    if _public_key(leaf) != _read_key(key):
        return {"client_key": "is not the key of client_certificate's first certificate; send the one that is"}
    return {}


def fingerprint(certificate: str | None) -> str | None:
    """Return what the audit log tells of a certificate: the leaf's SHA-256 fingerprint."""
    if certificate is None:
        return None
    try:
        return f"sha256:{_read_chain(certificate)[0].fingerprint(SHA256()).hex()}"
    except ValueError:
        return "unreadable"  # whoever wrote it, the webhook can still be changed


def _read_chain(value: str) -> list[x509.Certificate]:
    wrong = ValueError(f"send {CERTIFICATE_HINT}")
    if len(value) > MAX_CERTIFICATE_LENGTH or not value.isascii():
        raise wrong
    try:
        chain = x509.load_pem_x509_certificates(value.encode("ascii"))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise wrong from None
    if len(chain) > MAX_CHAIN:
        raise ValueError(f"has {len(chain)} certificates; send at most {MAX_CHAIN}, the leaf first")
    return chain


def _public_key(certificate: x509.Certificate) -> bytes:
    try:
        key = certificate.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    return _told(key, "its certificate's key")


def _read_key(value: str) -> bytes:
    """Return the public half of a key, encoded."""
    wrong = ValueError(f"send {KEY_HINT}")
    if len(value) > MAX_KEY_LENGTH or not value.isascii():
        raise wrong
    try:
        # Unchecked, as checking takes a stranger's key as long as it likes; a wrong one fails its own handshakes.
        key = load_pem_private_key(value.encode("ascii"), None, unsafe_skip_rsa_key_validation=True)
        public = key.public_key()
    except TypeError:
        raise ValueError("has a pass phrase; send it without: it is encrypted here") from None
    except (ValueError, AttributeError, UnsupportedAlgorithm):
        raise wrong from None
    return _told(public, "the key")


def _told(key: object, what: str) -> bytes:
    usable = (
        (isinstance(key, rsa.RSAPublicKey) and key.key_size in _RSA_BITS)
        or (isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES))
        or isinstance(key, ed25519.Ed25519PublicKey)
    )
    if not usable:
        raise ValueError(f"{what} is of a kind that can't be used; send {_KEY_KINDS}")
    assert isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey)  # noqa: S101 - seen above
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
