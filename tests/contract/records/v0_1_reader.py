"""What version 0.1 of the dispatcher needs of stored things, written down once and never changed with the code.

It stands for a worker of that version that is still running during an upgrade, or runs again after a rollback. It asks
for what that version can't do without, in the form that it can read; whatever else there is, it doesn't look at.
"""

import base64
import json
import re
from typing import Any
from urllib.parse import unquote_to_bytes

_NUMBERS = ("attempt", "not-before-ms", "first-attempt-ms")
_TEXTS = ("delivery-id", "subscription-id", "workspace-id")
_DELIVERY_STATUSES = frozenset({"pending", "retrying", "delivered", "failed", "skipped"})
_JOB_STATUSES = frozenset({"pending", "running", "done", "cancelled", "failed"})
_JOB_SOURCES = frozenset({"deliveries", "events", "dead_letters"})


class UnreadableError(Exception):
    """Version 0.1 can't read this; the text says what it misses."""


def read_delivery(headers: list[tuple[str, bytes]]) -> dict[str, Any]:
    """Read a record of a retry, overflow or replay topic, or the dead letter of a delivery."""
    own = _own(headers)
    found: dict[str, Any] = {name.replace("-", "_"): _text(own, name) for name in _TEXTS}
    found |= {name.replace("-", "_"): _number(own, name) for name in _NUMBERS}
    found["parked_since_ms"] = _number(own, "parked-since-ms") if "parked-since-ms" in own else None
    found["origin"] = _origin(own)
    found["reason"] = _text(own, "reason") if "reason" in own else ""
    found["http_status"] = _number(own, "http-status") if "http-status" in own else 0
    found["error"] = own.get("error", b"").decode("ascii")
    found["replay_id"] = _text(own, "replay-id") if "replay-id" in own else ""
    return found


def read_dead_letter(headers: list[tuple[str, bytes]]) -> dict[str, Any]:
    """Read a dead letter in either of its forms."""
    own = _own(headers)
    if "delivery-id" in own:
        return read_delivery(headers)
    return {"origin": _origin(own), "reason": _text(own, "reason"), "error": own["error"].decode("ascii")}


def read_outcome(value: bytes) -> dict[str, Any]:
    """Read a record of the outcomes topic, as a consumer of another team does."""
    found = json.loads(value)
    needed = {
        "delivery.finished": ("delivery_id", "event_id", "event_type", "status", "reason", "attempts", "response_code",
                              "replay_id"),
        "webhook.failing": ("id", "failing_since", "disabled_from"),
        "webhook.disabled": ("id", "reason", "failing_since"),
    }  # fmt: skip
    for name in ("at", "workspace_id", "webhook_id", *needed[found["type"]]):
        if name not in found:
            raise UnreadableError(f"no member {name}")
    return found


def read_note(note: str) -> tuple[bool, int | None]:
    """Read what stands beside a commit: whether records may be done in part, and up to where they were taken up."""
    state, _, taken_up = note.partition(" ")
    return state == "open", int(taken_up) if re.fullmatch("[0-9]+", taken_up) else None


def read_webhook(stored: dict[str, Any]) -> dict[str, Any]:
    """Read a webhook's document, with what stands in for a field that isn't there."""
    if stored.get("v", 1) > 1:
        raise UnreadableError("a later version of the dispatcher wrote it")
    if stored["status"] not in {"active", "inactive", "disabled"}:
        raise UnreadableError("an unknown status")
    if stored.get("payload_format", "event") not in {"event", "context", "cloudevents"}:
        raise UnreadableError("an unknown payload format")
    return {
        "id": stored["_id"],
        "workspace_id": stored["workspace_id"],
        "url": stored["url"],
        "events": list(stored["events"]),
        "secrets": [bytes(secret["sealed"]) for secret in stored["secrets"]],
        "status": stored["status"],
        "method": stored.get("method", "POST"),
        "max_attempts": int(stored.get("max_attempts", 6)),
        "headers": [(name, value) for name, value in stored.get("headers") or ()],
        "timeout_seconds": int(stored.get("timeout_seconds", 10)),
        "revision": int(stored["revision"]),
        "created_at": int(stored["created_at"]),
        "updated_at": int(stored["updated_at"]),
    }


def read_logged(stored: dict[str, Any]) -> dict[str, Any]:
    """Read a document of the delivery log."""
    if stored["st"] not in _DELIVERY_STATUSES:
        raise UnreadableError("an unknown status")
    # MongoDB compares these as wholes: the order of their fields is part of the format, up to the last that is known.
    for found, known in ((stored["g"], "ts t p o y x"), *((step, "r k n at s d c e x nx b") for step in stored["a"])):
        if list(found)[: len(known.split())] != known.split():
            raise UnreadableError(f"fields {' '.join(found)} instead of {known}")
    return {
        "id": stored["_id"],
        "workspace_id": stored["w"],
        "subscription_id": stored["s"],
        "event_id": stored["e"],
        "source": stored["o"],
        "state": (stored["r"], stored["m"], stored["st"]),
        "times": (int(stored["c"]), int(stored["u"])),
        "steps": [
            (step["r"], step["n"], step["s"], int(step["at"]), step["c"], step["e"], bytes(step["b"]))
            for step in stored["a"]
        ],
    }


def read_job(stored: dict[str, Any]) -> dict[str, Any]:
    """Read a replay job's document."""
    if stored["status"] not in _JOB_STATUSES or stored.get("source", "deliveries") not in _JOB_SOURCES:
        raise UnreadableError("an unknown status or source")
    return {
        "id": stored["_id"],
        "workspace_id": stored["workspace_id"],
        "subscription_id": stored["subscription_id"],
        "span": (int(stored["since"]), int(stored["until"])),
        "counts": (stored["produced"], stored["gone"], stored["skipped"]),
        "in_hand": list(stored["in_hand"]),
        "spans": [tuple(span) for span in stored.get("spans", ())],
    }


def read_failing(stored: dict[str, Any]) -> dict[str, Any]:
    """Read a failing endpoint's document."""
    if stored["trouble"] not in {"failing", "gone"}:
        raise UnreadableError("an unknown trouble")
    return {
        "webhook_id": stored["webhook_id"],
        "workspace_id": stored["workspace_id"],
        "endpoint_revision": stored["endpoint_revision"],
        "times": (int(stored["failing_since"]), int(stored["last_failure_at"])),
        "warned": stored["warned"],
    }


def _own(headers: list[tuple[str, bytes]]) -> dict[str, bytes]:
    return {name.removeprefix("dispatcher-"): value for name, value in headers if name.startswith("dispatcher-")}


def _text(own: dict[str, bytes], name: str) -> str:
    if not own.get(name):
        raise UnreadableError(f"no header {name}")
    return unquote_to_bytes(own[name]).decode("utf-8", "surrogatepass")


def _number(own: dict[str, bytes], name: str) -> int:
    if not re.fullmatch(rb"-?[0-9]{1,20}", own.get(name, b"")):
        raise UnreadableError(f"no number in header {name}")
    return int(own[name])


def _origin(own: dict[str, bytes]) -> dict[str, Any]:
    key = own.get("origin-key")
    return {
        "topic": _text(own, "origin-topic"),
        "partition": _number(own, "origin-partition"),
        "offset": _number(own, "origin-offset"),
        "timestamp_ms": _number(own, "origin-timestamp-ms"),
        "key": None if key is None else base64.b64decode(key, validate=True).decode("utf-8", "surrogateescape"),
    }
