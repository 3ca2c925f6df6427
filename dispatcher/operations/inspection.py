"""Show what was sent: an attempt's request, made again without its secrets.

Requests are not stored. Headers are rebuilt from the webhook as it is today, with `********` where a secret, or what a
secret makes, would stand: none is opened for it. The body is read again from the event's record.
"""

import asyncio
from dataclasses import dataclass, replace

from dispatcher.core.decoding import decode, rfc3339
from dispatcher.core.delivery_log import LoggedAttempt, LoggedDelivery
from dispatcher.core.errors import InvalidUrlError, SealError, UnavailableError, UndecodableError
from dispatcher.core.model import Event, Origin, SealedSecret, Subscription, Webhook
from dispatcher.core.rendering import RequestTemplate
from dispatcher.core.sealing import KEY_BYTES, NONCE_BYTES, Keyring, SealPurpose, binding
from dispatcher.ports import RecordLookup

MASK = "********"
READ_SECONDS = 4.0
MAX_BODY_BYTES = 64 * 1024
"""As much of a body is shown."""

_STAND_IN = Keyring([bytes(KEY_BYTES)])
_NO_NONCE = bytes(NONCE_BYTES)
_PREFIXED = frozenset({"x-webhook-signature", "x-signature-256"})


@dataclass(frozen=True, slots=True)
class ShownRequest:
    """A request as it was, as far as that can be said today.

    Attributes:
        line: Method and URL.
        headers: Name and value, in the order of the request; empty where the webhook can't be rendered today.
        body: Its first `MAX_BODY_BYTES`; None where it can't be read again.
        size: Of the whole body.
        missing: Why there is no body, in a sentence; empty where there is one.
    """

    line: str
    headers: tuple[tuple[str, str], ...]
    body: bytes | None
    size: int
    missing: str


class Inspections:
    """Rebuilds requests; what it is given is what the caller's workspace sees.

    Args:
        records: Reads events again.
        user_agent: The User-Agent header's value.
    """

    def __init__(self, records: RecordLookup, user_agent: str) -> None:
        self._records = records
        self._user_agent = user_agent

    async def request(self, webhook: Webhook, delivery: LoggedDelivery, attempt: LoggedAttempt) -> ShownRequest:
        """Return an attempt's request.

        Args:
            webhook: As it is today.
            delivery: One of its deliveries.
            attempt: One of its attempts.
        """
        event, missing = await self._event(delivery)
        known = event is not None
        line = f"{webhook.subscription.method} {webhook.url}"
        began_ms = attempt.at_ms - round(attempt.duration_ms)
        try:
            template = RequestTemplate(_masked(webhook.subscription), _STAND_IN, self._user_agent)
            request = template.render(event or _unknown(delivery), delivery.delivery_id, attempt.attempt, began_ms)
        except (InvalidUrlError, SealError, ValueError):
            return ShownRequest(line, (), None, 0, missing or "The webhook can't be sent as it is today: edit it.")
        headers = _shown(request.head, webhook.subscription, began_ms, with_length=known)
        body = request.body[:MAX_BODY_BYTES] if known else None
        return ShownRequest(line, headers, body, len(request.body) if known else 0, missing)

    async def _event(self, delivery: LoggedDelivery) -> tuple[Event | None, str]:
        """Read an event again; None and why, where that can't be."""
        at = delivery.origin
        if delivery.test:
            return None, "A test event is on no topic, so its body can't be read again; it held the type's sample."
        try:
            async with asyncio.timeout(READ_SECONDS):
                found = await self._records.read(at.topic, at.partition, at.offset)
        except (UnavailableError, TimeoutError):
            return None, "Kafka can't be reached now, so the body can't be read again. Reload the page in a while."
        if found is None:
            return None, f"The body has expired: topic {at.topic} has dropped its record."
        origin = Origin(at.topic, at.partition, at.offset, found.timestamp, found.key)
        try:
            event = decode(found.value, found.headers, origin, delivery.workspace_id)
        except UndecodableError:
            return None, _replaced(at)
        logged = (delivery.event_id, delivery.source, delivery.workspace_id)
        return (event, "") if (event.id, event.source, event.workspace_id) == logged else (None, _replaced(at))


def _replaced(at: Origin) -> str:
    return f"The body has expired: another record stands in its place on topic {at.topic}."


def _masked(subscription: Subscription) -> Subscription:
    """Return a subscription whose secrets are masks, sealed by a key that everybody knows."""
    workspace_id, webhook_id = subscription.workspace_id, subscription.id
    secret = _sealed_mask(binding(workspace_id, webhook_id, SealPurpose.SIGNING_SECRET))
    api_key = _sealed_mask(binding(workspace_id, webhook_id, SealPurpose.API_KEY))
    return replace(
        subscription,
        secrets=(SealedSecret(secret),),
        api_key=None if subscription.api_key is None else api_key,
        client_certificate=None,
        client_key=None,
    )


def _sealed_mask(aad: bytes) -> bytes:
    return _STAND_IN.seal(MASK.encode(), nonce=_NO_NONCE, aad=aad)


def _unknown(delivery: LoggedDelivery) -> Event:
    """Stand for an event whose record is gone: enough for the headers."""
    created_at = rfc3339(delivery.created_at_ms)
    known = (delivery.event_id, delivery.event_type, created_at, delivery.workspace_id, delivery.source)
    return Event(*known, b"null", None, None, delivery.origin, b"")


def _shown(head: bytes, subscription: Subscription, at_ms: int, *, with_length: bool) -> tuple[tuple[str, str], ...]:
    """Read the headers of a request's head; signatures are masked, one for each secret that signed then."""
    signing = [each for each in subscription.secrets if each.expires_at_ms is None or at_ms < each.expires_at_ms]
    headers = []
    for line in head.decode("latin-1").split("\r\n")[1:-2]:
        name, _, value = line.partition(": ")
        lower = name.lower()
        if lower in _PREFIXED:
            headers.append((name, f"sha256={MASK}"))
        elif lower == "x-signature":
            headers.append((name, MASK))
        elif lower == "webhook-signature":
            headers.append((name, " ".join([f"v1,{MASK}"] * max(1, len(signing)))))
        elif lower != "content-length" or with_length:
            headers.append((name, value))
    return tuple(headers)
