"""An example of each answer, for the API's document; a test holds them against the answers' schemas."""

from collections.abc import Mapping
from typing import Any

_WEBHOOK_ID = "wh_aagqbsjtmshber5whitc3iw66i"
_DELIVERY_ID = "del_7k2xq4m5n3p6r8t9v2w4y6za3b"
_REPLAY_ID = "rpl_0mkfc3v2g9b7t5q1"
_KEY_ID = "key_f4lj7g2oniici5jcbhgviehlxa"
_CREATED_AT = "2026-01-15T10:30:00Z"

_WEBHOOK: Mapping[str, Any] = {
    "id": _WEBHOOK_ID,
    "name": "Orders",
    "description": None,
    "url": "https://hooks.example.com/in",
    "method": "POST",
    "content_type": "application/json",
    "events": ["user.created", "team.*"],
    "status": "active",
    "disabled_reason": None,
    "disabled_at": None,
    "notification_type": "REST",
    "payload_format": "event",
    "max_attempts": 6,
    "headers": {"X-Team": "billing"},
    "api_key_set": False,
    "api_key_header": "X-API-Key",
    "client_certificate": None,
    "client_key_set": False,
    "timeout_seconds": 10,
    "rate_limit": None,
    "created_at": _CREATED_AT,
    "updated_at": _CREATED_AT,
}
_DELIVERY: Mapping[str, Any] = {
    "id": _DELIVERY_ID,
    "event_id": "evt_5fQ2mZx8sJ",
    "event_type": "user.created",
    "status": "delivered",
    "response_code": 200,
    "response_time_ms": 41.25,
    "attempts_made": 1,
    "created_at": _CREATED_AT,
    "updated_at": "2026-01-15T10:30:00.052Z",
    "next_attempt_at": None,
    "error": None,
    "reason": None,
    "test": False,
    "replay_id": None,
}
_FAILED: Mapping[str, Any] = {
    **_DELIVERY,
    "status": "failed",
    "response_code": 503,
    "attempts_made": 6,
    "updated_at": "2026-01-15T18:06:00.052Z",
    "error": "the endpoint answered 503",
    "reason": "attempts_exhausted",
}
_ATTEMPT: Mapping[str, Any] = {
    "attempt": 1,
    "at": "2026-01-15T10:30:00.052Z",
    "status": "delivered",
    "response_code": 200,
    "response_time_ms": 41.25,
    "response_body": "OK",
    "error": None,
    "replay_id": None,
}
_REPLAY: Mapping[str, Any] = {
    "id": _REPLAY_ID,
    "webhook_id": _WEBHOOK_ID,
    "status": "running",
    "source": "deliveries",
    "since": "2026-01-15T00:00:00Z",
    "until": "2026-01-16T00:00:00Z",
    "delivery_status": "failed",
    "dead_letters": None,
    "rate": None,
    "counts": {"selected": 120, "produced": 40, "gone": 0, "skipped": 1},
    "created_at": "2026-01-16T09:00:00Z",
    "updated_at": "2026-01-16T09:00:02Z",
    "finished_at": None,
    "error": None,
}
_KEY: Mapping[str, Any] = {
    "id": _KEY_ID,
    "name": "ci",
    "scopes": ["read", "write"],
    "created_at": _CREATED_AT,
    "last_used_at": None,
    "expires_at": None,
}
_EVENT_TYPE: Mapping[str, Any] = {
    "type": "user.deleted",
    "title": "User Deleted",
    "group": "Users",
    "description": "A user was deleted.",
    "schema": {"type": "object", "required": ["user"], "properties": {"user": {"type": "object"}}},
    "sample": {"user": {"id": "usr_8sJ2kLq0Vb"}},
}
_CHANGE: Mapping[str, Any] = {
    "id": "aud_3w7kq2m4n6p8r9t2v4x6z7b3c5",
    "at": _CREATED_AT,
    "actor": {"type": "api_key", "id": _KEY_ID, "name": "ci"},
    "action": "webhook.update",
    "target_id": _WEBHOOK_ID,
    "changes": [{"field": "max_attempts", "before": 6, "after": 3}],
}


def _page(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"data": [row], "next_cursor": None}


EXAMPLES: Mapping[str, Any] = {
    "WebhookAnswer": _WEBHOOK,
    "ChangedWebhookAnswer": {
        **_WEBHOOK,
        "warnings": [],
        "backfill": {
            "since": "2026-01-14T22:00:00Z",
            "until": "2026-01-15T10:30:05Z",
            "path": f"/v1/webhooks/{_WEBHOOK_ID}/replay",
            "body": {"since": "2026-01-14T22:00:00Z", "until": "2026-01-15T10:30:05Z", "source": "events"},
        },
    },
    "CreatedWebhookAnswer": {
        **_WEBHOOK,
        "warnings": [
            {"field": "events.1", "message": "matches no type of the event catalogue yet; check its spelling"}
        ],
        "secret": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
    },
    "WebhookPageAnswer": _page(_WEBHOOK),
    "EventTestAnswer": {
        "id": "evt_test_2m4n6p8r9t2v4x6z7b3c5d7f9h",
        "status": "delivered",
        "response_code": 200,
        "response_body": "OK",
    },
    "RotatedSecretAnswer": {
        "id": _WEBHOOK_ID,
        "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "overlap_ends_at": "2026-01-16T10:30:00Z",
        "warnings": [],
    },
    "RedeliveryAnswer": {"id": _DELIVERY_ID, "status": "pending", "replay_id": _REPLAY_ID},
    "DeliveryPageAnswer": _page(_DELIVERY),
    "DeliveryDetailAnswer": {**_DELIVERY, "attempts": [_ATTEMPT]},
    "DeadLetterPageAnswer": _page({**_FAILED, "webhook_id": _WEBHOOK_ID}),
    "DeadLetterSummaryAnswer": {
        "total": 120,
        "complete": True,
        "by_reason": [{"value": "attempts_exhausted", "count": 117}, {"value": "gone", "count": 3}],
        "by_subscription": [{"value": _WEBHOOK_ID, "count": 120}],
        "by_type": [{"value": "user.created", "count": 120}],
        "by_response_code": [
            {"value": "503", "count": 90},
            {"value": "none", "count": 27},
            {"value": "410", "count": 3},
        ],
        "by_hour": [{"value": "2026-01-15T11:00:00Z", "count": 80}, {"value": "2026-01-15T10:00:00Z", "count": 40}],
    },
    "DeadLetterDetailAnswer": {
        **_FAILED,
        "attempts": [
            {
                **_ATTEMPT,
                "attempt": 6,
                "status": "failed",
                "response_code": 503,
                "response_body": "down for maintenance",
                "error": "the endpoint answered 503",
            }
        ],
        "webhook_id": _WEBHOOK_ID,
        "handled_at": None,
    },
    "PurgeAnswer": {"handled": 120, "more": False},
    "ReplayAnswer": _REPLAY,
    "ReplayPageAnswer": _page(_REPLAY),
    "EventTypeAnswer": _EVENT_TYPE,
    "EventTypesAnswer": _page(_EVENT_TYPE),
    "ApiKeyPageAnswer": _page(_KEY),
    "CreatedApiKeyAnswer": {**_KEY, "key": "whk_6m2p4r8t9v3x5z7b"},
    "AuditPageAnswer": _page(_CHANGE),
}
"""Name of an answer's model to an example."""

PROBLEM: Mapping[str, Any] = {
    "type": "about:blank",
    "title": "Unprocessable Entity",
    "status": 422,
    "detail": "1 field is wrong; errors says what to send instead",
    "request_id": "req_7f5dad16599c13502ef50f6d",
    "errors": [{"field": "max_attempts", "problem": "send a whole number from 1 to 20; the first attempt counts"}],
}
"""A refusal that names a wrong field."""
