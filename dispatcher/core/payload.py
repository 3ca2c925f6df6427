"""The request body in each payload format.

The bytes are what `JSON.stringify(JSON.parse(body))` gives: the event's parts are in that form already
(`dispatcher.core.json_form`), and the members around them are written here.

Source: CloudEvents 1.0.2 section 3, its JSON event format section 3; RFC 3339 section 5.6.
"""

import re
from functools import lru_cache
from json.encoder import encode_basestring
from urllib.parse import quote_plus

from dispatcher.core.decoding import rfc3339
from dispatcher.core.model import Event, PayloadFormat

FORM = "application/x-www-form-urlencoded"
CLOUDEVENTS_CONTENT_TYPE = "application/cloudevents+json"

_SURROGATE = re.compile(r"[\ud800-\udfff]")
_RFC_3339 = re.compile(
    r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    r"[Tt]([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]+)?"
    r"([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
)
_MAX_MS = 253_402_300_799_999  # the last millisecond of year 9999
_MAX_ARRAY_INDEX = 2**32 - 2
_INDEX_MEMBER = re.compile(rb'"(0|[1-9][0-9]{0,9})":(?:"(?:[^"\\]|\\.)*"|[^",]*),')


def body_of(event: Event, payload_format: str, content_type: str) -> bytes:
    """Return the body of an event, rendered once for all subscriptions that want it in this form.

    Args:
        event: The event.
        payload_format: One of `PayloadFormat`.
        content_type: The subscription's; form encoding puts the JSON into a `payload` field.
    """
    form = content_type == FORM and payload_format != PayloadFormat.CLOUDEVENTS
    key = f"{payload_format} form" if form else payload_format
    body = event.bodies.get(key)
    if body is None:
        body = _RENDERERS[payload_format](event)
        if form:
            body = b"payload=" + quote_plus(body).encode()
        event.bodies[key] = body
    return body


def _text(value: str) -> bytes:
    quoted = encode_basestring(value)
    if quoted.isascii():
        return quoted.encode()
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted).encode()


_type_text = lru_cache(4096)(_text)  # types come again and again


def _event(event: Event) -> bytes:
    return b'{"id":%b,"type":%b,"created_at":%b,"data":%b}' % (
        _text(event.id),
        _type_text(event.type),
        _text(event.created_at),
        event.data_json,
    )


def _context(event: Event) -> bytes:
    return b'{"event_time":%b,"event_type":%b,"current_context":%b,"data":%b}' % (
        _text(event.created_at),
        _text(event.type),
        b"null" if event.context_json is None else event.context_json,
        event.data_json,
    )


def _cloudevents(event: Event) -> bytes:
    # A publisher's plain envelope names no source; the workspace is the one thing that tells publishers apart.
    source = event.source or f"/workspaces/{event.workspace_id}"
    extensions = event.extensions_json or b'"workspaceid":%b' % _text(event.workspace_id)
    first = b""
    # JavaScript writes members that are named by an array index in front of all others, and an attribute may be
    # named so. Among the extensions those stand in front already, and `workspaceid` behind them.
    while (member := _INDEX_MEMBER.match(extensions)) and int(member[1]) <= _MAX_ARRAY_INDEX:
        first += member[0]
        extensions = extensions[member.end() :]
    return (
        b'{%b"specversion":"1.0","id":%b,"source":%b,"type":%b,"time":%b,"datacontenttype":"application/json",%b,"data":%b}'
        % (
            first,
            _text(event.id),
            _text(source),
            _text(event.type),
            _text(_time(event)),
            extensions,
            event.data_json,
        )
    )


def _time(event: Event) -> str:
    # Receivers refuse a whole CloudEvent over a time that isn't RFC 3339, and read one without as made just now.
    if _RFC_3339.fullmatch(event.created_at):
        return event.created_at
    return rfc3339(min(max(event.origin.timestamp_ms, 0), _MAX_MS))


_RENDERERS = {
    PayloadFormat.EVENT.value: _event,
    PayloadFormat.CONTEXT.value: _context,
    PayloadFormat.CLOUDEVENTS.value: _cloudevents,
}
