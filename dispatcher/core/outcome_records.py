"""Records of the outcomes topic: operational events, and one for each finished delivery. Values are JSON objects.

The schemas in `schemas/records/` are their contract.
"""

import json
from typing import Any

from dispatcher.core.decoding import rfc3339
from dispatcher.core.delivery_log import LogEntry
from dispatcher.core.endpoint_health import FailingEndpoint

DELIVERY_FINISHED = "delivery.finished"
WEBHOOK_FAILING = "webhook.failing"
WEBHOOK_DISABLED = "webhook.disabled"


def delivery_finished(entry: LogEntry, attempts_made: int) -> bytes:
    """Write the record of a delivery that came to its end.

    Args:
        entry: Its last step; the status is a terminal one.
        attempts_made: Steps of its schedule that are used up.
    """
    return _written(
        {
            "type": DELIVERY_FINISHED,
            "at": rfc3339(entry.at_ms),
            "workspace_id": entry.workspace_id,
            "webhook_id": entry.subscription_id,
            "delivery_id": entry.delivery_id,
            "event_id": entry.event_id,
            "event_type": entry.event_type,
            "status": entry.status.value,
            "reason": entry.reason or None,
            "attempts": attempts_made,
            "response_code": entry.response_code or None,
            "replay_id": entry.run or None,
        }
    )


def webhook_failing(endpoint: FailingEndpoint, at_ms: int, period_ms: int) -> bytes:
    """Write the event that half of the time is over after which a failing webhook is disabled.

    Args:
        endpoint: What is known of it.
        at_ms: When that was noticed, unix milliseconds.
        period_ms: How long it may fail.
    """
    since_ms = endpoint.failing_since_ms
    return _written(
        {
            "type": WEBHOOK_FAILING,
            # The same when it is written again after a crash.
            "id": f"{endpoint.webhook_id}:{WEBHOOK_FAILING}:{since_ms}",
            "at": rfc3339(at_ms),
            "workspace_id": endpoint.workspace_id,
            "webhook_id": endpoint.webhook_id,
            "failing_since": rfc3339(since_ms),
            "disabled_from": rfc3339(since_ms + period_ms),
        }
    )


def webhook_disabled(endpoint: FailingEndpoint, reason: str, at_ms: int) -> bytes:
    """Write the event that the dispatcher has disabled a webhook.

    Args:
        endpoint: What is known of it.
        reason: `failing` or `gone`.
        at_ms: When it was disabled, unix milliseconds.
    """
    return _written(
        {
            "type": WEBHOOK_DISABLED,
            "id": f"{endpoint.webhook_id}:{WEBHOOK_DISABLED}:{at_ms}",
            "at": rfc3339(at_ms),
            "workspace_id": endpoint.workspace_id,
            "webhook_id": endpoint.webhook_id,
            "reason": reason,
            "failing_since": rfc3339(endpoint.failing_since_ms),
        }
    )


def _written(value: dict[str, Any]) -> bytes:
    # ASCII: an event id may hold a lone surrogate, which UTF-8 can't carry.
    return json.dumps(value, separators=(",", ":")).encode("ascii")
