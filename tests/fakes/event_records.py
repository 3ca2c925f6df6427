"""Records of source topics as publishers write them: plain, and CloudEvents in both modes."""

import json
from dataclasses import fields

from dispatcher.core.decoding import decode
from dispatcher.core.model import Event, Origin

ORIGIN = Origin("events", 3, 42, 1_768_473_000_123, b"user-7")
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ENVELOPE = {
    "id": "evt_1",
    "type": "user.created",
    "created_at": "2026-01-15T10:30:00Z",
    "workspace_id": "acme",
    "data": {"name": "Zoë"},
}
CLOUD_EVENT = {
    "specversion": "1.0",
    "id": "A-1",
    "source": "/users",
    "type": "user.created",
    "time": "2026-01-15T10:30:00Z",
    "workspaceid": "acme",
    "datacontenttype": "application/json",
    "data": {"name": "Zoë"},
}
BINARY_HEADERS = (
    ("ce_specversion", b"1.0"),
    ("ce_id", b"A-1"),
    ("ce_source", b"/users"),
    ("ce_type", b"user.created"),
    ("ce_time", b"2026-01-15T10:30:00Z"),
    ("ce_workspaceid", b"acme"),
    ("content-type", b"application/json; charset=utf-8"),
)
STRUCTURED = (("content-type", b"application/cloudevents+json; charset=UTF-8"),)


def raw(base: dict, **changes: object) -> bytes:
    """Write an envelope with some members changed; `...` leaves one out."""
    return json.dumps({k: v for k, v in {**base, **changes}.items() if v is not ...}, ensure_ascii=False).encode()


def plain(headers=(), default=None, **changes) -> Event:
    return decode(raw(ENVELOPE, **changes), headers, ORIGIN, default)


def structured(headers=STRUCTURED, default=None, **changes) -> Event:
    return decode(raw(CLOUD_EVENT, **changes), headers, ORIGIN, default)


def binary(value=b'{"name":"Zo\xc3\xab"}', default=None, **changes: bytes | None) -> Event:
    """Decode a binary-mode event with some headers changed; None leaves one out."""
    named = dict(BINARY_HEADERS)
    for name, header in changes.items():
        key = "content-type" if name == "content_type" else f"ce_{name}"
        named.pop(key, None)
        if header is not None:
            named[key] = header
    return decode(value, tuple(named.items()), ORIGIN, default)


def parts(event: Event) -> dict:
    return {field.name: getattr(event, field.name) for field in fields(Event)}
