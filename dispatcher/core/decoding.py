"""From a record's bytes to an event.

Accepted are the plain JSON envelope, and CloudEvents 1.0 in binary mode (`ce_*` headers) and structured mode.

Source: CloudEvents 1.0.2 section 3, its Kafka protocol binding section 3, its JSON event format section 3.
"""

import base64
import binascii
import datetime as dt
import re
from collections.abc import Callable
from typing import Any

from dispatcher.core.errors import UndecodableError
from dispatcher.core.json_form import Document, dump, parse
from dispatcher.core.matching import is_type
from dispatcher.core.model import DeadLetterReason, Event, Origin, ReadHeaders, RecordHeaders, is_workspace_id
from dispatcher.core.records import kept_headers

CheckData = Callable[[str, Any], None]
"""Told the type of an event and its `data`, parsed; raises UndecodableError to refuse it."""

_ID = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,256}")
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_SOURCE = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,2048}")
_STRUCTURED = "application/cloudevents"
_JSON_TYPES = frozenset({"application/json", "text/json"})
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_CORE_ATTRIBUTES = frozenset({"id", "type", "source", "time", "specversion", "data", "data_base64", "datacontenttype"})
_ATTRIBUTE = re.compile(r"[a-z0-9]{1,64}")


def decode(
    value: bytes | None,
    headers: ReadHeaders,
    origin: Origin,
    default_workspace: str | None,
    check_data: CheckData | None = None,
) -> Event:
    """Decode a record of a source topic, or an own record that carries such a record's value and headers on.

    Args:
        value: The record's value.
        headers: Its headers; `dispatcher-*` ones mean nothing here.
        origin: Coordinates on the source topic: what a missing id or time is made from.
        default_workspace: Workspace of events that name none; None refuses them.
        check_data: Called last, with what is otherwise an event; None checks nothing.

    Raises:
        UndecodableError: It is no event, or `check_data` refuses it; carries the dead letter's reason and says what
            is wrong, with the byte where that is known.
    """
    kept: RecordHeaders = ()
    structured = False
    if headers:
        kept = kept_headers(headers)
        named = {name.lower(): header for name, header in kept}
        structured = _media_type(named.get("content-type", b"")).startswith(_STRUCTURED)
        # The binding's rule: the content type alone tells structured mode, whatever else the headers say.
        if not structured and "ce_specversion" in named:
            return _binary(value or b"", named, kept, origin, default_workspace, check_data)
    if not value:
        raise UndecodableError("the record has no value" if value is None else "the record's value is empty")
    document = parse(value)
    fields = document.value
    if type(fields) is not dict:
        raise UndecodableError('the value is JSON, but no object; write {"type": …, "data": {…}}')
    if structured or "specversion" in fields:
        return _structured(document, kept, value, origin, default_workspace, check_data)
    context = fields.get("context")
    if context is not None and type(context) is not dict:
        raise UndecodableError("context is neither an object nor null")
    data = fields.get("data")
    event = Event(
        _event_id(fields.get("id"), origin),
        _event_type(fields.get("type")),
        _created_at(fields.get("created_at"), origin),
        _workspace(fields.get("workspace_id"), default_workspace),
        "",
        document.dump(data),
        None if context is None else document.dump(context),
        _traceparent(kept, None),
        origin,
        value,
        kept,
    )
    if check_data is not None:
        check_data(event.type, data)
    return event


def rfc3339(unix_ms: int) -> str:
    """Return unix milliseconds as RFC 3339 UTC with `Z`, with milliseconds only where they aren't zero."""
    try:
        at = _EPOCH + dt.timedelta(milliseconds=unix_ms)
    except OverflowError:
        raise UndecodableError("the record's timestamp is no time") from None
    text = at.isoformat(timespec="milliseconds" if unix_ms % 1000 else "seconds")
    return text.removesuffix("+00:00") + "Z"


def _binary(
    value: bytes,
    named: dict[str, bytes],
    kept: RecordHeaders,
    origin: Origin,
    default_workspace: str | None,
    check_data: CheckData | None,
) -> Event:
    if not _is_json(_media_type(named.get("content-type", b"application/json"))):
        raise UndecodableError("the CloudEvent's data must be JSON; set the content-type header to application/json")
    attributes: dict[str, Any] = {}
    for name, raw in named.items():
        if name.startswith("ce_"):
            try:
                attributes[name[3:]] = raw.decode()
            except UnicodeDecodeError:
                raise UndecodableError(f"the header {name} is not UTF-8") from None
    # An event may be without data; in structured mode it then lacks the member, which is null as well.
    document = parse(value) if value else Document(None, plain=True)
    event = _cloud_event(attributes, document.dump(document.value), kept, value, origin, default_workspace)
    if check_data is not None:
        check_data(event.type, document.value)
    return event


def _structured(
    document: Document,
    kept: RecordHeaders,
    value: bytes,
    origin: Origin,
    default_workspace: str | None,
    check_data: CheckData | None,
) -> Event:
    fields = document.value
    content_type = fields.get("datacontenttype")
    if content_type is not None and not (
        type(content_type) is str and _is_json(_media_type(content_type.encode("ascii", "replace")))
    ):
        raise UndecodableError("the CloudEvent's data must be JSON; set datacontenttype to application/json")
    encoded = fields.get("data_base64")
    if encoded is not None and "data" in fields:
        raise UndecodableError("the CloudEvent has both data and data_base64; send one of them")
    if encoded is None:
        data = fields.get("data")
        data_json = document.dump(data)
    else:
        try:
            inner = parse(base64.b64decode(encoded, validate=True))
        except (binascii.Error, TypeError, ValueError):
            raise UndecodableError("data_base64 is no base64") from None
        data = inner.value
        data_json = inner.dump(data)
    event = _cloud_event(fields, data_json, kept, value, origin, default_workspace)
    if check_data is not None:
        check_data(event.type, data)
    return event


def _cloud_event(
    attributes: dict[str, Any],
    data_json: bytes,
    kept: RecordHeaders,
    value: bytes,
    origin: Origin,
    default_workspace: str | None,
) -> Event:
    if attributes.get("specversion") != "1.0":
        raise UndecodableError("specversion is not 1.0, the only CloudEvents version accepted")
    source = attributes.get("source")
    if type(source) is not str or not _SOURCE.fullmatch(source):
        raise UndecodableError("source is no string of 1 to 2048 characters without control characters")
    workspace = _workspace(attributes.get("workspaceid"), default_workspace)
    extensions = {
        name: attribute
        for name, attribute in attributes.items()
        if name not in _CORE_ATTRIBUTES and _ATTRIBUTE.fullmatch(name) and type(attribute) in (str, int, bool)
    }
    extensions["workspaceid"] = workspace
    return Event(
        _event_id(attributes.get("id"), origin),
        _event_type(attributes.get("type")),
        _created_at(attributes.get("time"), origin),
        workspace,
        source,
        data_json,
        None,
        _traceparent(kept, attributes.get("traceparent")),
        origin,
        value,
        kept,
        dump(extensions)[1:-1],
    )


def _event_id(given: Any, origin: Origin) -> str:
    if given is None:
        return f"evt_{origin.topic}-{origin.partition}-{origin.offset}-{origin.timestamp_ms}"
    if type(given) is not str or not _ID.fullmatch(given):
        raise UndecodableError("id is no string of 1 to 256 characters without control characters")
    return given


def _event_type(given: Any) -> str:
    if given is None:
        raise UndecodableError("the event has no type")
    if type(given) is not str or not is_type(given):
        raise UndecodableError("type is not well-formed: letters, digits, '.', '_' and '-', at most 128 characters")
    return given


def _created_at(given: Any, origin: Origin) -> str:
    if given is None:
        return rfc3339(origin.timestamp_ms)
    if type(given) is not str or not _ID.fullmatch(given):
        raise UndecodableError("created_at (time in a CloudEvent) is no string; write it as 2026-01-15T10:30:00Z")
    return given


def _workspace(given: Any, default_workspace: str | None) -> str:
    if given is None:
        if default_workspace is None:
            raise UndecodableError(
                "the event names no workspace; write it as workspace_id, in a CloudEvent as workspaceid",
                reason=DeadLetterReason.NO_WORKSPACE,
            )
        return default_workspace
    if type(given) is not str or not is_workspace_id(given):
        raise UndecodableError(
            "workspace_id (workspaceid) is not well-formed: letters, digits, '.', '_', '-', at most 64 characters"
        )
    return given


def _traceparent(headers: RecordHeaders, attribute: Any) -> str | None:
    for name, value in headers:
        if name.lower() == "traceparent":
            text = value.decode("ascii", "replace")
            if _TRACEPARENT.fullmatch(text):
                return text
    return attribute if type(attribute) is str and _TRACEPARENT.fullmatch(attribute) else None


def _media_type(content_type: bytes) -> str:
    return content_type.partition(b";")[0].strip().lower().decode("ascii", "replace")


def _is_json(media_type: str) -> bool:
    return media_type in _JSON_TYPES or media_type.endswith("+json")
