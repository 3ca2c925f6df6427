"""The form of a webhook: what stands in its fields, and what its fields ask of the operation."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from multidict import MultiMapping

from dispatcher.console.words import exactly
from dispatcher.core.catalogue import Catalogue, EventType
from dispatcher.core.model import Webhook
from dispatcher.operations.webhooks import Warned

METHODS = ("POST", "PUT", "PATCH")
CONTENT_TYPES = ("application/json", "application/x-www-form-urlencoded")
PAYLOAD_FORMATS = (
    ("event", "event: id, type, created_at, data"),
    ("context", "context: event_time, event_type, current_context, data"),
    ("cloudevents", "cloudevents: CloudEvents 1.0 JSON"),
)
API_KEY_HEADERS = (("X-API-Key", "X-API-Key: <key>"), ("Authorization", "Authorization: Bearer <key>"))
ALL_EVENTS = "*"

_TEXTS = ("name", "url", "method", "content_type", "max_attempts", "status", "description", "notification_type")
_MORE = ("api_key_header", "payload_format", "timeout_seconds", "rate_limit")
_WHOLE = frozenset({"max_attempts", "timeout_seconds"})
_REQUIRED = {
    "name": "give it a name that tells it from the others",
    "url": "send an absolute https:// URL",
}
_SEPARATORS = re.compile(r"[\s,]+")
_REVISION = re.compile(r"[0-9]{1,15}")
_WHOLE_NUMBER = re.compile(r"[0-9]{1,9}")
_NUMBER = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")


@dataclass(frozen=True, slots=True)
class FormState:
    """What the form shows.

    Attributes:
        values: Field name to what stands in it.
        events: The event types that are ticked, `*` among them where all are wanted.
        problems: Field name to what is wrong with it.
        revision: Of the webhook that is edited, as it was read; empty for a new one.
        overtaken: Somebody else changed the webhook meanwhile.
        conflicts: Where that differs from what was typed: field, what stands there now, what was typed here.
    """

    values: Mapping[str, str]
    events: frozenset[str]
    problems: Mapping[str, str] = field(default_factory=dict)
    revision: str = ""
    conflicts: Sequence[tuple[str, str, str]] = ()
    overtaken: bool = False


def blank() -> FormState:
    """Return the form of a new webhook."""
    values = {
        "method": "POST",
        "content_type": "application/json",
        "max_attempts": "6",
        "status": "active",
        "api_key_header": "X-API-Key",
        "payload_format": "event",
        "timeout_seconds": "10",
    }
    return FormState(values, frozenset())


def of_webhook(webhook: Webhook, catalogue: Catalogue) -> FormState:
    """Return the form of a webhook as it is; secret and API key are never shown."""
    subscription = webhook.subscription
    values = {
        "name": webhook.name or "",
        "url": webhook.url,
        "method": subscription.method,
        "content_type": subscription.content_type,
        "max_attempts": str(subscription.max_attempts),
        "status": subscription.status,
        "description": webhook.description or "",
        "api_key_header": subscription.api_key_header,
        "payload_format": subscription.payload_format,
        "timeout_seconds": str(subscription.timeout_seconds),
        "rate_limit": "" if subscription.rate_limit is None else exactly(subscription.rate_limit),
        "headers": "\n".join(f"{name}: {value}" for name, value in subscription.headers),
        "other_events": " ".join(each for each in subscription.events if not _is_box(each, catalogue)),
    }
    return FormState(values, frozenset(subscription.events), revision=str(subscription.revision))


def typed(form: MultiMapping[str], problems: Mapping[str, str] | None = None) -> FormState:
    """Return the form as somebody typed it; what is secret is not sent back."""
    values = {name: value for name, value in form.items() if name not in {"secret", "api_key", "events"}}
    return FormState(values, frozenset(form.getall("events", ())), problems or {}, form.get("revision", ""))


def input_of(form: MultiMapping[str], before: Webhook | None = None) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what the operation is asked for, and what is wrong already.

    Args:
        form: As it was sent.
        before: The webhook that is edited; None for a new one.
    """
    sent = {name: _value(name, form.get(name, "").strip()) for name in (*_TEXTS, *_MORE)}
    problems = {name: words for name, words in _REQUIRED.items() if sent[name] is None}
    if sent["payload_format"] == "cloudevents" and sent["content_type"] == "application/json":
        sent["content_type"] = None
    sent |= {name: form[name].strip() for name in ("secret", "api_key") if form.get(name)}
    if form.get("remove_api_key"):
        sent["api_key"] = None
    sent["events"] = chosen_events(form)
    sent["headers"], wrong = _headers(form.get("headers", ""), before)
    return sent, problems | ({"headers": wrong} if wrong else {})


def revision_of(form: MultiMapping[str]) -> tuple[int, ...] | None:
    """Return the revision that a form was drawn for, as operations take it; None where it names none."""
    revision = form.get("revision", "")
    return (int(revision),) if _REVISION.fullmatch(revision) else None


def _value(name: str, text: str) -> Any:
    """Read a field; a number that is none goes on as text, for the operation to say what it wants."""
    if name in _WHOLE and _WHOLE_NUMBER.fullmatch(text):
        return int(text)
    if name == "rate_limit" and _NUMBER.fullmatch(text.replace(",", ".")):
        return float(text.replace(",", "."))
    return text or None


def chosen_events(form: MultiMapping[str]) -> list[str]:
    """Return the patterns that are ticked or typed; all events make the others needless."""
    ticked = list(form.getall("events", ()))
    if ALL_EVENTS in ticked:
        return [ALL_EVENTS]
    others = [each for each in _SEPARATORS.split(form.get("other_events", "")) if each]
    return list(dict.fromkeys([*ticked, *others]))


def field_problems(fields: Mapping[str, str]) -> dict[str, str]:
    """Put an operation's problems beside the form's fields: `events.0` belongs to `other_events`."""
    problems: dict[str, str] = {}
    for path, problem in fields.items():
        name, _, inside = path.partition(".")
        shown = f"{inside}: {problem}" if inside and name == "headers" else problem
        problems.setdefault("other_events" if name == "events" else name, shown)
    return problems


def with_warnings(text: str, warnings: Sequence[Warned], webhook: Webhook) -> str:
    """Return a sentence on what was done, and what is odd about it, by names that stand on the page."""
    return " ".join((text, *(f"Look at {_named(warned.field, webhook)}: {warned.message}." for warned in warnings)))


def _named(path: str, webhook: Webhook) -> str:
    """Name a field as its form does; of an event pattern, the pattern."""
    name, _, inside = path.partition(".")
    if name == "events" and inside.isdigit() and int(inside) < len(webhook.subscription.events):
        return f"the event type {webhook.subscription.events[int(inside)]}"
    return f"the {name.replace('_', ' ')}"


def standing(webhook: Webhook) -> dict[str, Any]:
    """Return what an edit could change, as an operation's input has it; secret and API key aside."""
    subscription = webhook.subscription
    return {
        "name": webhook.name,
        "url": webhook.url,
        "method": subscription.method,
        "content_type": subscription.content_type,
        "max_attempts": subscription.max_attempts,
        "status": str(subscription.status),
        "description": webhook.description or None,
        "events": list(subscription.events),
        "payload_format": str(subscription.payload_format),
        "timeout_seconds": subscription.timeout_seconds,
        "rate_limit": subscription.rate_limit,
        "api_key_header": subscription.api_key_header,
        "headers": dict(subscription.headers),
        "notification_type": webhook.notification_type,
    }


def changed(sent: Mapping[str, Any], before: Webhook) -> dict[str, Any]:
    """Return what of an input differs from the webhook as it is: what is only kept isn't checked again.

    So a webhook that the dispatcher disabled stays as it is, unless somebody chooses another status.
    """
    now = standing(before)
    return {name: value for name, value in sent.items() if name not in now or not _same(name, value, now[name])}


def conflicts(mine: Mapping[str, Any], theirs: Webhook) -> list[tuple[str, str, str]]:
    """Say where a webhook, as somebody else changed it, differs from what was typed here."""
    now = standing(theirs)
    return [
        (name.replace("_", " "), _shown(now[name]), _shown(mine[name]))
        for name in now
        if name in mine and name != "headers" and not _same(name, mine[name], now[name])
    ]


def groups(catalogue: Catalogue) -> list[tuple[str, list[EventType]]]:
    """Return the catalogue's entries under their headings, both in alphabetical order."""
    found: dict[str, list[EventType]] = {}
    for entry in catalogue.types.values():
        found.setdefault(entry.group, []).append(entry)
    return sorted(found.items())


def _is_box(pattern: str, catalogue: Catalogue) -> bool:
    return pattern == ALL_EVENTS or pattern in catalogue.types


def _same(name: str, sent: Any, now: Any) -> bool:
    if name == "events":
        return sorted(sent) == sorted(now)
    if name == "content_type" and sent is None:
        return True
    return bool(sent == now)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, sorted(value)))
    return "" if value is None else str(value)


def _headers(text: str, before: Webhook | None) -> tuple[dict[str, str | None], str]:
    """Read headers as lines; of an edited webhook, those that are not there any more are taken away."""
    kept = before.subscription.headers if before is not None else ()
    headers: dict[str, str | None] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if not line.strip():
            continue
        if not colon:
            return {}, "write one header a line: a name, a colon, a value"
        headers[name.strip()] = value.strip()
    present = {name.lower() for name in headers}
    return {**{name: None for name, _ in kept if name.lower() not in present}, **headers}, ""
