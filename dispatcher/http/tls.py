"""TLS to endpoints: the context, and its errors in words."""

import ssl
from pathlib import Path

_WORDS = {
    "WRONG_VERSION_NUMBER": "the endpoint doesn't speak TLS on this port",
    "UNSUPPORTED_PROTOCOL": "the endpoint offers no TLS version from 1.2 up",
    "TLSV1_ALERT_PROTOCOL_VERSION": "the endpoint offers no TLS version from 1.2 up",
    "NO_PROTOCOLS_AVAILABLE": "the endpoint offers no TLS version from 1.2 up",
    "UNEXPECTED_EOF_WHILE_READING": "the endpoint closed the connection during the TLS handshake",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "the endpoint refused the TLS handshake",
    "TLSV1_UNRECOGNIZED_NAME": "the endpoint has no certificate for this name",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the endpoint wants a client certificate: set client_certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "the endpoint doesn't know the authority of the client certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the endpoint refused the client certificate",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "the endpoint refused the client certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the endpoint refused the client certificate: it has expired",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "the endpoint refused the client certificate: it was revoked",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the endpoint refused the client certificate",
    "TLSV1_ALERT_ACCESS_DENIED": "the endpoint refused the client certificate",
}


def make_context(ca_bundle: Path | None = None) -> ssl.SSLContext:
    """Make the context of every connection: TLS 1.2 or later, verified, with the host's name checked.

    Nothing that a subscription says reaches this: there is no switch that turns any of it off.

    Args:
        ca_bundle: PEM file of authorities to trust beside the system's.

    Returns:
        A client context.

    Raises:
        OSError: The bundle can't be read, or holds no certificate (ssl.SSLError).

    Source: RFC 9110 section 4.3.4 (no common names), RFC 8996 (no TLS below 1.2).
    """
    context = make_strict_context()
    context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if ca_bundle is not None:
        context.load_verify_locations(cafile=ca_bundle)
    return context


def make_strict_context() -> ssl.SSLContext:
    """Make a context that verifies and trusts nobody yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A name counts where it is an alternative name; the subject's common name says nothing of a host.
    context.hostname_checks_common_name = False
    context.set_alpn_protocols(["http/1.1"])
    return context


def explain_tls_error(error: Exception) -> str:
    """Say in words why a handshake failed.

    Args:
        error: What the handshake raised.

    Returns:
        A sentence without addresses, such as "certificate has expired".
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not accepted: {error.verify_message or error.reason}"
    if isinstance(error, ssl.SSLError):
        reason = error.reason or ""
        return (
            _WORDS.get(reason) or f"the TLS handshake failed: {reason.lower().replace('_', ' ') or 'no reason given'}"
        )
    return "the endpoint closed the connection during the TLS handshake"
