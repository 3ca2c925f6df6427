"""The header codec of the own topics: what one delivery needs to know beside its event's bytes.

Names and values are ASCII. A record that is produced anew gets its own headers replaced, never appended. They
count only on own topics: on a source topic anybody could have written them.
"""

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass
from urllib.parse import quote_from_bytes, unquote_to_bytes

from dispatcher.core.errors import UndecodableError
from dispatcher.core.model import Origin, ReadHeaders, RecordHeaders

PREFIX = "dispatcher-"
DELIVERY_ID = "dispatcher-delivery-id"
SUBSCRIPTION_ID = "dispatcher-subscription-id"
WORKSPACE_ID = "dispatcher-workspace-id"
ATTEMPT = "dispatcher-attempt"
NOT_BEFORE_MS = "dispatcher-not-before-ms"
FIRST_ATTEMPT_MS = "dispatcher-first-attempt-ms"
PARKED_SINCE_MS = "dispatcher-parked-since-ms"
ORIGIN_TOPIC = "dispatcher-origin-topic"
ORIGIN_PARTITION = "dispatcher-origin-partition"
ORIGIN_OFFSET = "dispatcher-origin-offset"
ORIGIN_TIMESTAMP_MS = "dispatcher-origin-timestamp-ms"
ORIGIN_KEY = "dispatcher-origin-key"
REASON = "dispatcher-reason"
HTTP_STATUS = "dispatcher-http-status"
ERROR = "dispatcher-error"
REPLAY_ID = "dispatcher-replay-id"

TRACEPARENT = "traceparent"

MAX_ERROR_BYTES = 256

_KEPT = frozenset({"content-type", TRACEPARENT})
_MAX_MS = 253_402_300_799_999  # the last millisecond of year 9999
_MAX_INT32 = 2**31 - 1
_MAX_INT64 = 2**63 - 1
_MAX_ATTEMPT = 1_000_000
_MAX_STATUS = 999
_MAX_DIGITS = 20
# Printable ASCII without the percent sign, which marks what had to be escaped.
_UNESCAPED = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")

_Headers = dict[str, bytes]


@dataclass(slots=True)
class DeliveryRecord:
    """One delivery as a record of an own topic carries it. Times are unix milliseconds.

    Attributes:
        delivery_id: `del_…`.
        subscription_id: `wh_…`; also the record's key.
        workspace_id: The tenant.
        attempt: Attempts made; the next is one more.
        not_before_ms: When the next attempt is due; 0: at once.
        first_attempt_ms: When the first attempt was made; 0 where none was.
        parked_since_ms: Since when it waits for room, kept once set; None where it never did.
        origin: Where the event was first read.
        reason: Why it is where it is: a dead letter's reason, or the caller's word; empty where there is none.
        http_status: The last attempt's status code, 0 where none came.
        error: What went wrong last, in words; cut to `MAX_ERROR_BYTES` of printable ASCII.
        replay_id: The replay that it belongs to; empty for the first way through.
    """

    delivery_id: str
    subscription_id: str
    workspace_id: str
    attempt: int
    not_before_ms: int
    first_attempt_ms: int
    parked_since_ms: int | None
    origin: Origin
    reason: str = ""
    http_status: int = 0
    error: str = ""
    replay_id: str = ""

    @property
    def key(self) -> bytes:
        """The record's key: deliveries of one subscription share a partition."""
        return self.subscription_id.encode()


@dataclass(slots=True)
class BadRecord:
    """A source record that is no event, as its dead letter tells of it.

    Attributes:
        origin: Where it stands.
        reason: One of `DeadLetterReason`'s values.
        error: What is wrong, in words.
    """

    origin: Origin
    reason: str
    error: str


def kept_headers(headers: ReadHeaders) -> RecordHeaders:
    """Return the headers that every later record of an event carries on: `ce_*`, content-type and traceparent.

    Args:
        headers: A record's headers; values that Kafka holds as null are left out.
    """
    return tuple(
        [
            (name, value)
            for name, value in headers
            if (name.startswith("ce_") or name.lower() in _KEPT) and value is not None
        ]
    )


def with_traceparent(headers: RecordHeaders, traceparent: str) -> RecordHeaders:
    """Return an event's headers with this trace context, in place of whatever they had."""
    others = [header for header in headers if header[0].lower() != TRACEPARENT]
    return (*others, (TRACEPARENT, traceparent.encode()))


def encode_headers(record: DeliveryRecord, kept: ReadHeaders) -> RecordHeaders:
    """Write a delivery as headers, in front of what is kept of the event's own.

    Args:
        record: The delivery.
        kept: Headers of the record before; own ones among them are dropped, as is everything that
            `kept_headers` doesn't keep.
    """
    origin = record.origin
    headers = [
        (DELIVERY_ID, _text(record.delivery_id)),
        (SUBSCRIPTION_ID, _text(record.subscription_id)),
        (WORKSPACE_ID, _text(record.workspace_id)),
        (ATTEMPT, b"%d" % record.attempt),
        (NOT_BEFORE_MS, b"%d" % record.not_before_ms),
        (FIRST_ATTEMPT_MS, b"%d" % record.first_attempt_ms),
        (ORIGIN_TOPIC, _text(origin.topic)),
        (ORIGIN_PARTITION, b"%d" % origin.partition),
        (ORIGIN_OFFSET, b"%d" % origin.offset),
        (ORIGIN_TIMESTAMP_MS, b"%d" % origin.timestamp_ms),
    ]
    if record.parked_since_ms is not None:
        headers.append((PARKED_SINCE_MS, b"%d" % record.parked_since_ms))
    if origin.key is not None:
        headers.append((ORIGIN_KEY, b64encode(origin.key)))
    if record.reason:
        headers.append((REASON, _text(record.reason)))
    if record.http_status:
        headers.append((HTTP_STATUS, b"%d" % record.http_status))
    if record.error:
        headers.append((ERROR, error_bytes(record.error)))
    if record.replay_id:
        headers.append((REPLAY_ID, _text(record.replay_id)))
    headers.extend(kept_headers(kept))
    return tuple(headers)


def decode_headers(headers: ReadHeaders) -> DeliveryRecord:
    """Read a delivery from the headers of a record of an own topic.

    A due time further off than its tier is read as it stands: the caller knows the tier and clamps it.

    Raises:
        UndecodableError: A header is missing, is no number, or is out of range; the text names it.
    """
    found = _own(headers)
    return DeliveryRecord(
        delivery_id=_read_text(found, DELIVERY_ID),
        subscription_id=_read_text(found, SUBSCRIPTION_ID),
        workspace_id=_read_text(found, WORKSPACE_ID),
        attempt=_read_int(found, ATTEMPT, _MAX_ATTEMPT),
        not_before_ms=_read_int(found, NOT_BEFORE_MS, _MAX_MS),
        first_attempt_ms=_read_int(found, FIRST_ATTEMPT_MS, _MAX_MS),
        parked_since_ms=_read_int(found, PARKED_SINCE_MS, _MAX_MS) if PARKED_SINCE_MS in found else None,
        origin=_origin(found),
        reason=_read_text(found, REASON) if REASON in found else "",
        http_status=_read_int(found, HTTP_STATUS, _MAX_STATUS) if HTTP_STATUS in found else 0,
        error=_read_text(found, ERROR, escaped=False) if ERROR in found else "",
        replay_id=_read_text(found, REPLAY_ID) if REPLAY_ID in found else "",
    )


def due_ms(headers: ReadHeaders) -> int:
    """Return when a record is due, unix milliseconds; 0 where its headers don't say, as it is then looked at now."""
    for name, value in headers:
        if name == NOT_BEFORE_MS:
            return int(value) if value is not None and value.isdigit() and len(value) <= _MAX_DIGITS else 0
    return 0


def bad_record_headers(origin: Origin, reason: str, error: str) -> RecordHeaders:
    """Write the headers of the dead letter of a source record that is no event.

    The letter's value is the record's raw bytes, or None where they are too large: the headers point to them.
    Its key is the record's own.

    Args:
        origin: The record's coordinates; its key is left to the letter's own key.
        reason: One of `DeadLetterReason`'s values.
        error: What is wrong, in words.
    """
    return (
        (ORIGIN_TOPIC, _text(origin.topic)),
        (ORIGIN_PARTITION, b"%d" % origin.partition),
        (ORIGIN_OFFSET, b"%d" % origin.offset),
        (ORIGIN_TIMESTAMP_MS, b"%d" % origin.timestamp_ms),
        (REASON, _text(reason)),
        (ERROR, error_bytes(error)),
    )


def decode_dead_letter(headers: ReadHeaders) -> DeliveryRecord | BadRecord:
    """Read a dead letter: a delivery that ended, or a source record that never became one.

    Raises:
        UndecodableError: It is neither.
    """
    found = _own(headers)
    if DELIVERY_ID in found:
        return decode_headers(headers)
    return BadRecord(
        origin=_origin(found), reason=_read_text(found, REASON), error=_read_text(found, ERROR, escaped=False)
    )


def error_bytes(error: str) -> bytes:
    """Cut an error's text to `MAX_ERROR_BYTES` of printable ASCII; what isn't is escaped or blanked."""
    if not (error.isascii() and error.isprintable()):
        escaped = error[:MAX_ERROR_BYTES].encode("ascii", "backslashreplace").decode("ascii")
        error = "".join([char if char.isprintable() else " " for char in escaped])
    return error[:MAX_ERROR_BYTES].encode("ascii")


def _text(value: str) -> bytes:
    if value.isascii() and value.isprintable() and "%" not in value:
        return value.encode("ascii")
    return quote_from_bytes(value.encode("utf-8", "surrogatepass"), safe=_UNESCAPED).encode("ascii")


def _own(headers: ReadHeaders) -> _Headers:
    return {name: value for name, value in headers if value is not None and name.startswith(PREFIX)}


def _origin(found: _Headers) -> Origin:
    key = found.get(ORIGIN_KEY)
    try:
        decoded = None if key is None else b64decode(key, validate=True)
    except Base64Error as error:
        raise UndecodableError(f"header {ORIGIN_KEY} is no base64") from error
    return Origin(
        topic=_read_text(found, ORIGIN_TOPIC),
        partition=_read_int(found, ORIGIN_PARTITION, _MAX_INT32),
        offset=_read_int(found, ORIGIN_OFFSET, _MAX_INT64),
        timestamp_ms=_read_int(found, ORIGIN_TIMESTAMP_MS, _MAX_MS, least=-1),
        key=decoded,
    )


def _read_text(found: _Headers, name: str, *, escaped: bool = True) -> str:
    value = found.get(name)
    if value is None:
        raise UndecodableError(f"header {name} is missing")
    try:
        text = value.decode("ascii")
        if escaped and "%" in text:
            text = unquote_to_bytes(text).decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise UndecodableError(f"header {name} is no text") from error
    if not text and name != ERROR:
        raise UndecodableError(f"header {name} is empty")
    return text


def _read_int(found: _Headers, name: str, most: int, *, least: int = 0) -> int:
    value = found.get(name)
    if value is None:
        raise UndecodableError(f"header {name} is missing")
    digits = value[1:] if value[:1] == b"-" else value
    # int() takes underscores, blanks and any length: narrower here.
    if not digits.isdigit() or len(digits) > _MAX_DIGITS:
        raise UndecodableError(f"header {name} is no whole number")
    number = int(value)
    if not least <= number <= most:
        raise UndecodableError(f"header {name} is out of range")
    return number
