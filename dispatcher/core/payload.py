"""The request body in each payload format.

The bytes are what `JSON.stringify(JSON.parse(body))` gives: the event's parts are in that form already
(`dispatcher.core.json_form`), and the members around them are written here.

Source: CloudEvents 1.0.2 JSON event format, section 3.
"""

import re
from json.encoder import encode_basestring
from urllib.parse import quote_plus

from dispatcher.core.model import Event, PayloadFormat

FORM = "application/x-www-form-urlencoded"
CLOUDEVENTS_CONTENT_TYPE = "application/cloudevents+json"

_SURROGATE = re.compile("[\ud800-\udfff]")
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


def _event(event: Event) -> bytes:
    return b'{"id":%b,"type":%b,"created_at":%b,"data":%b}' % (
        _text(event.id),
        _text(event.type),
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
            _text(event.created_at),
            extensions,
            event.data_json,
        )
    )


_RENDERERS = {
    PayloadFormat.EVENT.value: _event,
    PayloadFormat.CONTEXT.value: _context,
    PayloadFormat.CLOUDEVENTS.value: _cloudevents,
}
