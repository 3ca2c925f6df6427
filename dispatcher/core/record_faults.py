"""What is wrong with a source record that is no event, and at which byte."""

import re
from dataclasses import dataclass

from dispatcher.core.errors import UndecodableError
from dispatcher.core.json_form import MAX_NESTING, parse

AROUND_BYTES = 24
"""So many bytes are shown before and after the one where it goes wrong."""

_TOKEN = re.compile(
    rb'"(?:[^"\\]|\\.)*+"|[{}\[\],:]|-?Infinity|NaN|-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|[^\s"{}\[\],:]+',
    re.DOTALL,
)
_AT_BYTE = re.compile(r" at byte ([0-9]+)\Z")
_CONSTANTS = (b"NaN", b"Infinity", b"-Infinity")
# How a message begins that is about a member of the outermost object.
_ABOUT = (
    ("type ", "type"),
    ("id ", "id"),
    ("context ", "context"),
    ("created_at ", "created_at"),
    ("created_at ", "time"),
    ("workspace_id ", "workspace_id"),
    ("workspace_id ", "workspaceid"),
    ("specversion ", "specversion"),
    ("source ", "source"),
    ("data_base64 ", "data_base64"),
    ("the CloudEvent has both ", "data_base64"),
    ("the CloudEvent's data ", "datacontenttype"),
)


@dataclass(frozen=True, slots=True)
class RecordFault:
    """What is wrong with a record's value.

    Attributes:
        message: In words.
        byte: Where, from 0; None where it isn't in one place (something is missing), or not in the value.
    """

    message: str
    byte: int | None


def fault_of(value: bytes | None, error: UndecodableError) -> RecordFault:
    """Find the byte that an error of `dispatcher.core.decoding.decode` is about.

    Args:
        value: What was decoded.
        error: What that raised.
    """
    message = str(error)
    if not value:
        return RecordFault(message, None)
    told = _AT_BYTE.search(message)
    if told is not None:
        return RecordFault(message, int(told[1]) if _is_no_json(value) else None)  # else of what data_base64 holds
    return RecordFault(message, _searched(value, message))


def _searched(value: bytes, message: str) -> int | None:
    if "nested deeper" in message:
        return _too_deep(value)
    if "beyond a double" in message or "which is no JSON" in message:
        return _bad_number(value)
    if "but no object" in message:
        return len(value) - len(value.lstrip())
    for beginning, name in _ABOUT:
        if message.startswith(beginning) and (at := _member(value, name.encode())) is not None:
            return at
    return None


def _too_deep(value: bytes) -> int | None:
    depth = 0
    for token in _TOKEN.finditer(value):
        if token[0] in b"{[":
            depth += 1
            if depth > MAX_NESTING:
                return token.start()
        elif token[0] in b"}]":
            depth -= 1
    return None


def _bad_number(value: bytes) -> int | None:
    for token in _TOKEN.finditer(value):
        text = token[0]
        if text in _CONSTANTS or (text[:1] in b"-0123456789" and _is_beyond(text)):
            return token.start()
    return None


def _is_beyond(digits: bytes) -> bool:
    try:
        return float(digits) in (float("inf"), float("-inf"))
    except ValueError:
        return False


def _member(value: bytes, name: bytes) -> int | None:
    """Return where a member's value in the outermost object begins; of two of one name the last, as in decoding."""
    depth, found = 0, None
    quoted = b'"%b"' % name
    before: tuple[bytes, ...] = (b"", b"")
    for token in _TOKEN.finditer(value):
        text = token[0]
        if depth == 1 and before == (quoted, b":"):
            found = token.start()
        if text in b"{[":
            depth += 1
        elif text in b"}]":
            depth -= 1
        before = (before[1], text)
    return found


def _is_no_json(value: bytes) -> bool:
    try:
        parse(value)
    except UndecodableError:
        return True
    return False
