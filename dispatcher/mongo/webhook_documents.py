"""A webhook as MongoDB stores it: the only place that knows its field names.

Fields that this version doesn't know are left alone, in reading and in writing, so that two versions can share one
collection while they are being exchanged.
"""

import sys
from collections.abc import Mapping
from typing import Any

from bson.datetime_ms import DatetimeMS

from dispatcher.core.errors import DispatcherError, InvalidUrlError
from dispatcher.core.model import PayloadFormat, SealedSecret, Status, Subscription, Webhook
from dispatcher.core.urls import EndpointUrl, parse_endpoint_url

SCHEMA_VERSION = 1

_STATUSES = {status.value: status.value for status in Status}
_FORMATS = {wanted.value: wanted.value for wanted in PayloadFormat}

# What a Subscription needs: the index is loaded without the rest.
SUBSCRIPTION_FIELDS = dict.fromkeys(
    (
        "v",
        "workspace_id",
        "url",
        "events",
        "secrets",
        "method",
        "content_type",
        "status",
        "payload_format",
        "max_attempts",
        "headers",
        "api_key",
        "api_key_header",
        "client_certificate",
        "client_key",
        "timeout_seconds",
        "rate_limit",
        "revision",
        "endpoint_revision",
    ),
    1,
)


class BrokenWebhookError(DispatcherError):
    """A stored webhook can't be read: a field is missing or of another type, or a later version wrote it."""


def document_of(webhook: Webhook) -> dict[str, Any]:
    """Return the document of a webhook, `_id` included."""
    subscription = webhook.subscription
    return {
        "_id": subscription.id,
        "v": SCHEMA_VERSION,
        "workspace_id": subscription.workspace_id,
        "revision": subscription.revision,
        "endpoint_revision": subscription.endpoint_revision,
        "name": webhook.name,
        "description": webhook.description,
        "url": webhook.url,
        "method": subscription.method,
        "content_type": subscription.content_type,
        "events": list(subscription.events),
        "status": str(subscription.status),
        "disabled_reason": webhook.disabled_reason,
        "disabled_at": _date(webhook.disabled_at_ms),
        "secrets": [
            {"sealed": secret.sealed, "expires_at": _date(secret.expires_at_ms)} for secret in subscription.secrets
        ],
        "api_key": subscription.api_key,
        "api_key_header": subscription.api_key_header,
        "client_certificate": subscription.client_certificate,
        "client_key": subscription.client_key,
        "notification_type": webhook.notification_type,
        "payload_format": str(subscription.payload_format),
        "max_attempts": subscription.max_attempts,
        "headers": [list(header) for header in subscription.headers],
        "timeout_seconds": subscription.timeout_seconds,
        "rate_limit": subscription.rate_limit,
        "created_at": DatetimeMS(webhook.created_at_ms),
        "updated_at": DatetimeMS(webhook.updated_at_ms),
    }


def webhook_of(stored: Mapping[str, Any]) -> Webhook:
    """Read a stored webhook.

    Raises:
        BrokenWebhookError: It can't be read.
    """
    subscription = subscription_of(stored)
    try:
        return Webhook(
            subscription=subscription,
            url=stored["url"],
            name=stored.get("name"),
            description=stored.get("description"),
            created_at_ms=int(stored["created_at"]),
            updated_at_ms=int(stored["updated_at"]),
            disabled_reason=stored.get("disabled_reason"),
            disabled_at_ms=_milliseconds(stored.get("disabled_at")),
            notification_type=stored.get("notification_type", "REST"),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _broken(stored, error) from error


class SubscriptionReader:
    """Reads stored webhooks as subscriptions, sharing what repeats: a million of them must fit in memory.

    It remembers the tuples of patterns that it met lately; strings of few values are interned.
    """

    def __init__(self) -> None:
        self._events: dict[tuple[str, ...], tuple[str, ...]] = {}

    def read(self, stored: Mapping[str, Any]) -> Subscription:
        """Read a stored webhook of which at least `SUBSCRIPTION_FIELDS` were fetched.

        Raises:
            BrokenWebhookError: It can't be read.
        """
        try:
            return self._read(stored)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise _broken(stored, error) from error

    def _read(self, stored: Mapping[str, Any]) -> Subscription:
        if stored.get("v", SCHEMA_VERSION) > SCHEMA_VERSION:
            raise ValueError("a later version of the dispatcher wrote it")
        rate_limit, api_key = stored.get("rate_limit"), stored.get("api_key")
        certificate, client_key = stored.get("client_certificate"), stored.get("client_key")
        return Subscription(
            id=_text(stored["_id"]),
            workspace_id=sys.intern(stored["workspace_id"]),
            url=_endpoint(stored["url"]),
            events=self._shared_events(stored["events"]),
            secrets=tuple(
                SealedSecret(bytes(secret["sealed"]), _milliseconds(secret.get("expires_at")))
                for secret in stored["secrets"]
            ),
            method=sys.intern(stored.get("method", "POST")),
            content_type=sys.intern(stored.get("content_type", "application/json")),
            status=_STATUSES[stored["status"]],
            payload_format=_FORMATS[stored.get("payload_format", "event")],
            max_attempts=int(stored.get("max_attempts", 6)),
            headers=tuple((sys.intern(name), _text(value)) for name, value in stored.get("headers") or ()),
            api_key=None if api_key is None else bytes(api_key),
            api_key_header=sys.intern(stored.get("api_key_header", "X-API-Key")),
            client_certificate=None if certificate is None else _text(certificate),
            client_key=None if client_key is None else bytes(client_key),
            timeout_seconds=int(stored.get("timeout_seconds", 10)),
            rate_limit=None if rate_limit is None else float(rate_limit),
            revision=int(stored["revision"]),
            endpoint_revision=int(stored.get("endpoint_revision", 1)),
        )

    def _shared_events(self, stored: list[str]) -> tuple[str, ...]:
        events = tuple(sys.intern(pattern) for pattern in stored)
        if len(self._events) > 100_000:  # noqa: PLR2004 - a bound on memory, no more
            self._events.clear()
        return self._events.setdefault(events, events)


def subscription_of(stored: Mapping[str, Any]) -> Subscription:
    """Read one stored webhook as a subscription.

    Raises:
        BrokenWebhookError: It can't be read.
    """
    return SubscriptionReader().read(stored)


def _endpoint(url: str) -> EndpointUrl | None:
    """Take a stored URL apart; None where it can't be used any more, which fails its deliveries and nothing else."""
    try:
        parsed = parse_endpoint_url(url)
    except InvalidUrlError:
        return None
    host = sys.intern(parsed.host)
    host_header = host if parsed.host_header == host else parsed.host_header
    return EndpointUrl(sys.intern(parsed.scheme), host, parsed.port, parsed.target, host_header)


def _broken(stored: Mapping[str, Any], error: Exception) -> BrokenWebhookError:
    # The error's text may quote a value of the document: its type is enough.
    problem = f"no field {error}" if isinstance(error, KeyError) else type(error).__name__
    return BrokenWebhookError(f"webhook {stored.get('_id')!r} can't be read ({problem}): mend its document")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("text expected")
    return value


def _date(milliseconds: int | None) -> DatetimeMS | None:
    return None if milliseconds is None else DatetimeMS(milliseconds)


def _milliseconds(date: DatetimeMS | None) -> int | None:
    return None if date is None else int(date)
