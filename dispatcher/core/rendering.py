"""From an event and a subscription to a request on the wire.

What is the same for every delivery of a subscription is put together once, in a `RequestTemplate`.
"""

import hashlib
import re

from dispatcher.core.echoes import EchoMask, shortest_of
from dispatcher.core.errors import InvalidUrlError, SealError
from dispatcher.core.exchange import ClientCertificate, Request, Response, SendFailure
from dispatcher.core.model import Event, PayloadFormat, Subscription
from dispatcher.core.payload import CLOUDEVENTS_CONTENT_TYPE, body_of
from dispatcher.core.sealing import Keyring, SealPurpose, binding
from dispatcher.core.signing import SigningKey, signatures

_ENDS_A_LINE = re.compile("[\r\n\0]")


class RequestTemplate:
    """What every request of one subscription has in common, with its secrets opened.

    Args:
        subscription: The revision to send for.
        keyring: Opens its secrets.
        user_agent: The User-Agent header's value.

    Raises:
        InvalidUrlError: The stored URL can't be used.
        SealError: A secret can't be opened with the configured keys, or there is none to sign with.
        ValueError: What is stored would not be one header line each, or isn't Latin-1. The API lets nothing of the
            kind in; this holds whatever wrote the document.
    """

    __slots__ = (
        "_client",
        "_content_type",
        "_echoes",
        "_format",
        "_head",
        "_keyring",
        "_keys",
        "_shortest_secret",
        "_timeout",
        "_url",
        "_workspace_id",
        "subscription",
    )

    def __init__(self, subscription: Subscription, keyring: Keyring, user_agent: str) -> None:
        if subscription.url is None:
            raise InvalidUrlError("the subscription's URL can't be used; set a valid one")
        if all(secret.expires_at_ms is not None for secret in subscription.secrets):
            raise SealError("the webhook has no signing secret in force; rotate its secret")
        self.subscription = subscription
        self._url = subscription.url
        self._workspace_id = subscription.workspace_id
        self._format = subscription.payload_format
        self._content_type = subscription.content_type
        self._timeout = float(subscription.timeout_seconds)
        self._keyring = keyring
        secrets, api_key = self._opened_secrets(), self._opened_api_key()
        self._keys = [
            (SigningKey(secret), sealed.expires_at_ms)
            for secret, sealed in zip(secrets, subscription.secrets, strict=True)
        ]
        self._client = _client_certificate(subscription, keyring)
        self._head = self._static_head(api_key, user_agent)
        self._shortest_secret = shortest_of([*secrets, api_key or ""])
        self._echoes: EchoMask | None = None

    def __repr__(self) -> str:
        return f"RequestTemplate({self.subscription.id})"

    def _opened_secrets(self) -> list[str]:
        subscription = self.subscription
        aad = binding(subscription.workspace_id, subscription.id, SealPurpose.SIGNING_SECRET)
        return [self._keyring.open(secret.sealed, aad=aad).decode() for secret in subscription.secrets]

    def _opened_api_key(self) -> str | None:
        subscription = self.subscription
        if subscription.api_key is None:
            return None
        aad = binding(subscription.workspace_id, subscription.id, SealPurpose.API_KEY)
        return self._keyring.open(subscription.api_key, aad=aad).decode()

    def _static_head(self, api_key: str | None, user_agent: str) -> bytes:
        subscription = self.subscription
        cloudevents = self._format == PayloadFormat.CLOUDEVENTS
        lines = [
            f"{subscription.method} {self._url.target} HTTP/1.1",
            f"Host: {self._url.host_header}",
            f"User-Agent: {user_agent}",
            "Accept: */*",
            "Accept-Encoding: identity",
            f"Content-Type: {CLOUDEVENTS_CONTENT_TYPE if cloudevents else self._content_type}",
            f"X-Webhook-Id: {subscription.id}",
            *(f"{name}: {value}" for name, value in subscription.headers),
        ]
        if api_key is not None:
            bearer = "Bearer " if subscription.api_key_header.lower() == "authorization" else ""
            lines.append(f"{subscription.api_key_header}: {bearer}{api_key}")
        if any(_ENDS_A_LINE.search(line) for line in lines):
            raise ValueError("a line break or NUL stands in what is to be a header")
        return "\r\n".join((*lines, "X-Webhook-Event: ")).encode("latin-1")

    def without_secrets(self, body: bytes) -> bytes:
        """Return what is kept of an answer's body with `***` where its endpoint echoes one of the webhook's secrets.

        A short body costs a comparison; the secrets are opened again for the first that could hold one.
        """
        if len(body) < self._shortest_secret:
            return body
        if self._echoes is None:
            self._echoes = EchoMask([*self._opened_secrets(), self._opened_api_key() or ""])
        return self._echoes.masked(body)

    def render(
        self, event: Event, delivery_id: str, attempt: int, now_ms: int, traceparent: str | None = None
    ) -> Request:
        """Return the request of one attempt, signed now.

        Args:
            event: The event; its workspace was checked to be the subscription's.
            delivery_id: `del_…`.
            attempt: Number of this attempt, from 1.
            now_ms: Unix milliseconds: `webhook-timestamp`, and which overlapping secrets still sign.
            traceparent: Sent in place of the event's own; None: that one is, where it has one.
        """
        body = body_of(event, self._format, self._content_type)
        keys = [key for key, expires_at_ms in self._keys if expires_at_ms is None or now_ms < expires_at_ms]
        if len(keys) < len(self._keys):
            # What has ended is not kept, opened, for as long as the webhook doesn't change.
            self._keys = [(key, until_ms) for key, until_ms in self._keys if key in keys]
        delivery = delivery_id.encode()
        timestamp = b"%d" % (now_ms // 1000)
        digest, standard = signatures(keys, delivery, timestamp, body)
        traceparent = traceparent or event.traceparent
        trace = b"" if traceparent is None else b"\r\ntraceparent: " + traceparent.encode()
        head = (
            b"%b%b\r\nX-Webhook-Signature: sha256=%b\r\nX-Signature-256: sha256=%b\r\nX-Signature: %b\r\n"
            b"webhook-id: %b\r\nwebhook-timestamp: %b\r\nwebhook-signature: %b\r\n"
            b"X-Webhook-Attempt: %d%b\r\nContent-Length: %d\r\n\r\n"
        ) % (
            self._head,
            event.type.encode(),
            digest,
            digest,
            digest,
            delivery,
            timestamp,
            standard,
            attempt,
            trace,
            len(body),
        )
        return Request(self._url, head, body, self._timeout, self._workspace_id, self._client)


def _client_certificate(subscription: Subscription, keyring: Keyring) -> ClientCertificate | None:
    https = subscription.url is not None and subscription.url.scheme == "https"
    if not https or subscription.client_certificate is None or subscription.client_key is None:
        return None
    # Not the certificate alone: a workspace that knows another one's must not meet its connections.
    owner = binding(subscription.workspace_id, subscription.id, SealPurpose.CLIENT_KEY)
    certificate = subscription.client_certificate.encode()
    key = keyring.open(subscription.client_key, aad=owner)
    return ClientCertificate(hashlib.sha256(owner + certificate).hexdigest(), certificate, key)


def unsendable(error: Exception) -> Response:
    """Make a failed attempt of what can't be rendered: one broken webhook must not stop the others.

    Args:
        error: An `InvalidUrlError`, a `SealError`, or a `ValueError`; the last one's text may quote a secret, and is
            not shown.
    """
    failure = SendFailure.INVALID_URL if isinstance(error, InvalidUrlError) else SendFailure.ABORTED
    problem = str(error)
    if isinstance(error, ValueError):
        problem = "the webhook's headers or secrets hold what can't be sent; save them again"
    return Response(0, failure, problem, None, b"", 0.0)
