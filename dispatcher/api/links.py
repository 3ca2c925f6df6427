"""How one call's answer leads to the next call: the links of the API's document.

Source: OpenAPI Specification 3.1.1, section 4.8.20 (Link Object).
"""

from collections.abc import Mapping
from typing import Any

_ID = "$response.body#/id"


def _to(operation: str, **parameters: str) -> dict[str, Any]:
    return {"operationId": operation, "parameters": parameters}


def _about(webhook: str) -> dict[str, Any]:
    """Lead to the calls about a webhook whose id stands there."""
    return {
        "get": _to("getWebhook", id=webhook),
        "update": _to("updateWebhook", id=webhook),
        "test": _to("testWebhook", id=webhook),
        "rotateSecret": _to("rotateSecret", id=webhook),
        "deliveries": _to("listDeliveries", id=webhook),
        "replay": _to("createReplay", id=webhook),
        "delete": _to("deleteWebhook", id=webhook),
    }


def _next(operation: str, **parameters: str) -> dict[str, Any]:
    return {"next": _to(operation, **parameters, cursor="$response.body#/next_cursor")}


# With the version that was answered, so that nobody else's change is overwritten.
_OF_THIS_VERSION = {
    "update": {
        "operationId": "updateWebhook",
        "parameters": {"path.id": _ID, "header.If-Match": "$response.header.ETag"},
    },
    "delete": {
        "operationId": "deleteWebhook",
        "parameters": {"path.id": _ID, "header.If-Match": "$response.header.ETag"},
    },
}
_OF_WEBHOOK = "$request.path.id"
_BACKFILL = {
    "backfill": {
        "operationId": "createReplay",
        "parameters": {"id": _OF_WEBHOOK},
        "requestBody": "$response.body#/backfill/body",
        "description": "Where `backfill` isn't null.",
    }
}
_FIRST_DELIVERY = {"id": _OF_WEBHOOK, "delivery_id": "$response.body#/data/0/id"}

LINKS: Mapping[str, Mapping[str, Any]] = {
    "createWebhook": _about(_ID),
    "listWebhooks": {"first": _to("getWebhook", id="$response.body#/data/0/id"), **_next("listWebhooks")},
    "getWebhook": _OF_THIS_VERSION,
    "updateWebhook": {**_OF_THIS_VERSION, **_BACKFILL},
    "testWebhook": {"deliveries": _to("listDeliveries", id=_OF_WEBHOOK)},
    "redeliver": {"delivery": _to("getDelivery", id=_OF_WEBHOOK, delivery_id=_ID)},
    "listDeliveries": {
        "first": _to("getDelivery", **_FIRST_DELIVERY),
        "redeliverFirst": _to("redeliver", **_FIRST_DELIVERY),
        **_next("listDeliveries", id=_OF_WEBHOOK),
    },
    "listDeadLetters": {
        "first": _to("getDeadLetter", delivery_id="$response.body#/data/0/id"),
        "redeliverFirst": _to(
            "redeliver", id="$response.body#/data/0/webhook_id", delivery_id="$response.body#/data/0/id"
        ),
        **_next("listDeadLetters"),
    },
    "getDeadLetter": {
        "delivery": _to("getDelivery", id="$response.body#/webhook_id", delivery_id=_ID),
        "redeliver": _to("redeliver", id="$response.body#/webhook_id", delivery_id=_ID),
    },
    "replayDeadLetters": {"get": _to("getReplay", id=_ID), "cancel": _to("cancelReplay", id=_ID)},
    "createReplay": {"get": _to("getReplay", id=_ID), "cancel": _to("cancelReplay", id=_ID)},
    "listReplays": {"first": _to("getReplay", id="$response.body#/data/0/id"), **_next("listReplays")},
    "listEventTypes": {"first": _to("getEventType", type="$response.body#/data/0/type"), **_next("listEventTypes")},
    "createApiKey": {"revoke": _to("revokeApiKey", id=_ID)},
    "listApiKeys": _next("listApiKeys"),
    "listAuditLog": _next("listAuditLog"),
}
"""Operation to the links of its successful answer."""
