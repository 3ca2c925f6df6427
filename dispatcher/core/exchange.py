"""One HTTP exchange as the core sees it: what is sent, and what came back."""

from dataclasses import dataclass, field
from enum import StrEnum

from dispatcher.core.urls import EndpointUrl

KEPT_BODY_BYTES = 4096
"""How much of a response body is kept for the delivery log."""


class SendFailure(StrEnum):
    """Why no complete response headers came."""

    TIMEOUT = "timeout"
    """The deadline passed."""
    DNS = "dns"
    """The name could not be resolved."""
    FORBIDDEN_ADDRESS = "forbidden_address"
    """The guard refused an address or a port."""
    CONNECT = "connect"
    """Refused, unreachable or reset while connecting."""
    TLS = "tls"
    """Handshake or verification failed."""
    CLOSED = "closed"
    """The connection was closed before the response headers were complete."""
    PROTOCOL = "protocol"
    """What came is no HTTP/1.x response, or its headers are too large."""
    INVALID_URL = "invalid_url"
    """The subscription's URL can't be sent to."""
    CIRCUIT_OPEN = "circuit_open"
    """Nothing was sent: the circuit breaker is open."""
    ABORTED = "aborted"
    """The sender was told to stop before an answer came."""


@dataclass(frozen=True, slots=True, eq=False)
class ClientCertificate:
    """What a request shows of itself in the TLS handshake, where its endpoint asks.

    Attributes:
        id: Tells apart whose certificate it is: two requests have the same where workspace, webhook and certificate
            are the same, and only they may share a connection.
        certificate: PEM, the chain from the leaf up.
        key: PEM, the leaf's private key without a pass phrase.
    """

    id: str
    certificate: bytes
    key: bytes = field(repr=False)


@dataclass(slots=True)
class Request:
    """A rendered request, ready for the wire.

    Attributes:
        url: Where to connect; also the pool's key.
        head: Request line and headers up to and with the blank line, Content-Length included.
        body: The body's bytes.
        timeout_seconds: From the start of the name look-up to the complete response headers.
        workspace_id: Whose request it is: bounds the name look-ups of one workspace at a time.
        client: The client certificate of an https request; None: it shows none.
    """

    url: EndpointUrl
    head: bytes = field(repr=False)
    body: bytes = field(repr=False)
    timeout_seconds: float
    workspace_id: str
    client: ClientCertificate | None = None


@dataclass(slots=True)
class Response:
    """What came of one request.

    Attributes:
        status: Status code, 0 where no complete response headers came.
        failure: Why not; None where they came.
        detail: The failure in words, safe to show to the subscriber; at most 256 characters.
        retry_after: The Retry-After header's value as received, or None.
        body: The first `KEPT_BODY_BYTES` of the response body.
        duration_ms: From the start to the complete response headers, or to the failure.
    """

    status: int
    failure: SendFailure | None
    detail: str
    retry_after: str | None
    body: bytes
    duration_ms: float
