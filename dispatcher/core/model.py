"""The words of the product as types: event, subscription, origin, tier."""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache

from dispatcher.core.urls import EndpointUrl

RecordHeaders = tuple[tuple[str, bytes], ...]
ReadHeaders = tuple[tuple[str, bytes | None], ...]
"""As Kafka hands them out: anybody may have written null."""

WORKSPACE_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
"""A well-formed workspace id."""


@lru_cache(4096)
def is_workspace_id(text: str) -> bool:
    """Say whether a text is a well-formed workspace id."""
    return WORKSPACE_ID.fullmatch(text) is not None


class Status(StrEnum):
    """A subscription's status: the first two are the owner's to set, the third is the dispatcher's."""

    ACTIVE = "active"
    INACTIVE = "inactive"
    DISABLED = "disabled"


class PayloadFormat(StrEnum):
    """What the request body looks like."""

    EVENT = "event"
    CONTEXT = "context"
    CLOUDEVENTS = "cloudevents"


class DeadLetterReason(StrEnum):
    """Why a delivery, or a whole record, ended in the dead-letter topic."""

    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    GONE = "gone"
    CIRCUIT_OPEN = "circuit_open"
    EXPIRED = "expired"
    UNDECODABLE = "undecodable"
    UNKNOWN_TYPE = "unknown_type"
    SCHEMA = "schema"
    NO_WORKSPACE = "no_workspace"
    WORKSPACE_MISMATCH = "workspace_mismatch"
    TOO_LARGE = "too_large"


@dataclass(frozen=True, slots=True)
class RetryTier:
    """One delay of the schedule, with one delay topic.

    Attributes:
        name: Canonical (`1m`, `500ms`): the last part of its topic's name.
        delay_ms: How long a delivery waits in it.
    """

    name: str
    delay_ms: int


@dataclass(slots=True)
class Origin:
    """Where an event was first read: its coordinates on the source topic."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None = None

    @property
    def coordinates(self) -> tuple[str, int, int]:
        """Topic, partition and offset."""
        return self.topic, self.partition, self.offset


@dataclass(slots=True, eq=False)
class Event:
    """A domain event, decoded.

    Attributes:
        id: `evt_…`, verbatim where the publisher gave one.
        type: Well-formed event type.
        created_at: RFC 3339, verbatim where the publisher gave one.
        workspace_id: The tenant.
        source: CloudEvents `source`, else empty; part of the delivery id.
        data_json: The `data` member as JSON in the canonical form of `dispatcher.core.json_form`.
        context_json: The `context` member likewise, or None.
        traceparent: A valid W3C trace context header value, or None.
        origin: Its first coordinates.
        value: The record's original bytes: what retry records carry.
        headers: The record's original headers that retry records carry on (`ce_*`, content type, traceparent).
        extensions_json: Further CloudEvents attributes as the inside of a JSON object (`"a":1,"b":2`), or empty.
        bodies: Rendered bodies by format: a cache that `dispatcher.core.payload` fills.
    """

    id: str
    type: str
    created_at: str
    workspace_id: str
    source: str
    data_json: bytes
    context_json: bytes | None
    traceparent: str | None
    origin: Origin
    value: bytes
    headers: RecordHeaders = ()
    extensions_json: bytes = b""
    bodies: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SealedSecret:
    """One signing secret, sealed, and until when it signs.

    Attributes:
        sealed: What `dispatcher.core.sealing.seal` made of it.
        expires_at_ms: Unix milliseconds after which it no longer signs; None: it is the current one.
    """

    sealed: bytes
    expires_at_ms: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Subscription:
    """What delivering needs to know of a webhook; the index holds one for each.

    Attributes:
        id: `wh_…`.
        workspace_id: The tenant.
        url: Where to send, taken apart; None where the stored URL can't be used any more.
        events: Patterns: exact types, `prefix.*`, `*`.
        secrets: The current one first, then those that still overlap.
        api_key: Sealed, or None.
        client_certificate: PEM of the certificate chain for mutual TLS, or None.
        client_key: Its key, sealed; None exactly where there is no certificate.
        headers: Static extra headers.
        revision: Counts up with each change of the webhook.
        endpoint_revision: The revision in which its owner last changed URL or status: how its endpoint fared before
            that counts no more.
    """

    id: str
    workspace_id: str
    url: EndpointUrl | None
    events: tuple[str, ...]
    secrets: tuple[SealedSecret, ...]
    method: str = "POST"
    content_type: str = "application/json"
    status: str = "active"
    payload_format: str = "event"
    max_attempts: int = 6
    headers: tuple[tuple[str, str], ...] = ()
    api_key: bytes | None = None
    api_key_header: str = "X-API-Key"
    client_certificate: str | None = None
    client_key: bytes | None = field(default=None, repr=False)
    timeout_seconds: int = 10
    rate_limit: float | None = None
    revision: int = 1
    endpoint_revision: int = 1


@dataclass(frozen=True, slots=True)
class Webhook:
    """A subscription with everything that its owner sees: what the API and the console show.

    Times are aware UTC as RFC 3339 text with `Z` is made at the edge; here they are unix milliseconds.
    """

    subscription: Subscription
    url: str
    name: str | None
    description: str | None
    created_at_ms: int
    updated_at_ms: int
    disabled_reason: str | None = None
    disabled_at_ms: int | None = None
    notification_type: str = "REST"
