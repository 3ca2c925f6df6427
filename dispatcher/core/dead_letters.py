"""What one dead letter says, and which dead letters an operator asks for.

Most of a listing's time goes here: a letter's few columns are taken straight from its headers, and everything else is
read only when it is asked for (`DeadLetter.told`).
"""

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from dispatcher.core.errors import UndecodableError
from dispatcher.core.matching import is_type
from dispatcher.core.model import ReadHeaders, is_workspace_id
from dispatcher.core.records import (
    ATTEMPT,
    DELIVERY_ID,
    ERROR,
    FIRST_ATTEMPT_MS,
    HTTP_STATUS,
    NOT_BEFORE_MS,
    ORIGIN_KEY,
    ORIGIN_OFFSET,
    ORIGIN_PARTITION,
    ORIGIN_TIMESTAMP_MS,
    ORIGIN_TOPIC,
    PARKED_SINCE_MS,
    REASON,
    REPLAY_ID,
    SUBSCRIPTION_ID,
    WORKSPACE_ID,
    BadRecord,
    DeliveryRecord,
    decode_dead_letter,
)

UNREADABLE = "unreadable"
"""The reason under which a letter is shown whose own headers can't be read."""

NO_ANSWER = "none"
"""What `DeadLetterFilter.status` says for letters that no status code belongs to."""

HOUR_MS = 3_600_000

_STRUCTURED = b"application/cloudevents"
_NUMBERS = (ATTEMPT, NOT_BEFORE_MS, FIRST_ATTEMPT_MS, ORIGIN_PARTITION, ORIGIN_OFFSET, ORIGIN_TIMESTAMP_MS)
# The numbers above and the status code, each too short to be out of its range.
_PLAIN_NUMBERS = re.compile(rb"\d{1,6} \d{1,14} \d{1,14} \d{1,9} \d{1,18} \d{1,14} \d{1,3}")
_STATUS_DIGITS = 3
_IDENTITY_MASK = 2**64 - 1


@dataclass(slots=True)
class DeadLetter:
    """One record of the dead-letter topic.

    Attributes:
        partition: Where it stands on the dead-letter topic.
        offset: Likewise.
        timestamp_ms: When it became a dead letter, unix milliseconds.
        key: The record's key.
        value: The event's bytes; None where they are too large, or could not be read.
        headers: The record's headers.
        reason: Why it is one, one of `DeadLetterReason`'s values as a rule; `UNREADABLE` where that can't be read.
        delivery_id: `del_…`; None for a source record that is no event, and where it can't be read.
        subscription_id: `wh_…`; None likewise.
        workspace_id: The tenant; of a source record that is no event the one that it claims; None where none is known.
        http_status: The last attempt's status code; 0 where none came.
        event_type: What its value (or its `ce_type`) says; None where that was not looked at, or says nothing sound.
        problem: What is wrong with its headers; empty where nothing is.
    """

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: ReadHeaders
    reason: str
    delivery_id: str | None = None
    subscription_id: str | None = None
    workspace_id: str | None = None
    http_status: int = 0
    event_type: str | None = None
    problem: str = ""

    def told(self) -> DeliveryRecord | BadRecord:
        """Read everything that its headers say.

        Raises:
            UndecodableError: They can't be read; `problem` says why.
        """
        return decode_dead_letter(self.headers)

    @property
    def identity(self) -> int:
        """What a later dead letter of the same delivery, or of the same source record, has as well: 64 bits.

        Only good for comparisons within one process.
        """
        if self.delivery_id is not None:
            return identity_of(self.delivery_id)
        if self.problem:
            return hash((self.partition, self.offset)) & _IDENTITY_MASK
        named = dict(self.headers)
        coordinates = (ORIGIN_TOPIC, ORIGIN_PARTITION, ORIGIN_OFFSET, ORIGIN_TIMESTAMP_MS)
        return hash(tuple([named.get(name) for name in coordinates])) & _IDENTITY_MASK


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """Which dead letters are asked for; None asks for nothing in particular. Times are unix milliseconds.

    Attributes:
        workspace_id: The tenant; of a source record that is no event the one that it claims.
        subscription_id: `wh_…`.
        event_type: A type, or all below one: `user.*`.
        reason: One of `DeadLetterReason`'s values, or `UNREADABLE`.
        status: A status code (`503`), a class (`5xx`), or `NO_ANSWER`.
        since_ms: The first time that counts, of their becoming dead letters.
        until_ms: The first that doesn't.
    """

    workspace_id: str | None = None
    subscription_id: str | None = None
    event_type: str | None = None
    reason: str | None = None
    status: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None

    def wants(self, letter: DeadLetter) -> bool:
        """Say whether a letter is one of them."""
        return (
            self.wants_delivery(letter)
            and (self.reason is None or letter.reason == self.reason)
            and (self.status is None or letter.http_status in statuses(self.status))
            and (self.since_ms is None or letter.timestamp_ms >= self.since_ms)
            and (self.until_ms is None or letter.timestamp_ms < self.until_ms)
        )

    def wants_delivery(self, letter: DeadLetter) -> bool:
        """Say whether a letter is one of them, as far as all letters of one delivery have in common."""
        return (
            (self.subscription_id is None or letter.subscription_id == self.subscription_id)
            and (self.workspace_id is None or letter.workspace_id == self.workspace_id)
            and (self.event_type is None or _is_of_type(letter.event_type, self.event_type))
        )


def identity_of(delivery_id: str) -> int:
    """Return the identity of the letters of a delivery."""
    return hash(delivery_id) & _IDENTITY_MASK


@lru_cache(64)
def statuses(text: str) -> range:
    """Return the status codes that a filter's text stands for; 0 is no answer.

    Raises:
        ValueError: It is none; the text says what to write instead.
    """
    if text == NO_ANSWER:
        return range(1)
    if len(text) == _STATUS_DIGITS and text.isascii() and "1" <= text[0] <= "9":
        if text.isdigit():
            return range(int(text), int(text) + 1)
        if text[1:].lower() == "xx":
            return range(int(text[0]) * 100, int(text[0]) * 100 + 100)
    raise ValueError(f"write a status code such as 503, a class such as 5xx, or {NO_ANSWER}")


def read_letter(
    partition: int,
    offset: int,
    timestamp_ms: int,
    key: bytes | None,
    value: bytes | None,
    headers: ReadHeaders,
    *,
    with_types: bool = True,
) -> DeadLetter:
    """Read one record of the dead-letter topic; one that is no dead letter is told of as `UNREADABLE`.

    Args:
        partition: Where it stands.
        offset: Likewise.
        timestamp_ms: The record's.
        key: Likewise.
        value: Likewise.
        headers: Likewise; null values count as missing.
        with_types: Whether the event's type is wanted (and, of a source record that is no event, the workspace that
            it claims): the value is parsed for it.
    """
    named = dict(headers)
    letter = DeadLetter(partition, offset, timestamp_ms, key, value, headers, UNREADABLE)
    try:
        if not _read_plainly(letter, named):
            _read_exactly(letter)
    except UndecodableError as error:
        letter.problem = str(error)
        return letter
    if with_types:
        letter.event_type, claimed = _looked_into(named, value)
        if letter.delivery_id is None:
            letter.workspace_id = claimed
    return letter


def _read_plainly(letter: DeadLetter, named: dict[str, Any]) -> bool:
    """Read the headers of a delivery as almost all are written; says whether they are.

    Whatever it takes, `decode_dead_letter` takes as well, and reads the same from it.
    """
    try:
        numbers = [named[name] for name in _NUMBERS]
        numbers.append(named.get(HTTP_STATUS, b"0"))
        if _PLAIN_NUMBERS.fullmatch(b" ".join(numbers)) is None or not named.get(ERROR, b"").isascii():
            return False
        if PARKED_SINCE_MS in named or ORIGIN_KEY in named:
            return False
        if REPLAY_ID in named:
            _plain_text(named[REPLAY_ID])
        _plain_text(named[ORIGIN_TOPIC])
        letter.delivery_id = _plain_text.__wrapped__(named[DELIVERY_ID])  # no two are alike: not worth remembering
        letter.subscription_id = _plain_text(named[SUBSCRIPTION_ID])
        letter.workspace_id = _plain_text(named[WORKSPACE_ID])
        letter.reason = _plain_text(named[REASON])
    except (KeyError, ValueError, TypeError, AttributeError):  # a header is missing, null, or needs a closer look
        letter.delivery_id = letter.subscription_id = letter.workspace_id = None
        return False
    letter.http_status = int(numbers[-1])
    return True


def _read_exactly(letter: DeadLetter) -> None:
    told = decode_dead_letter(letter.headers)
    if isinstance(told, DeliveryRecord):
        letter.delivery_id = told.delivery_id
        letter.subscription_id = told.subscription_id
        letter.workspace_id = told.workspace_id
        letter.http_status = told.http_status
        if not told.reason:
            letter.delivery_id = letter.subscription_id = letter.workspace_id = None
            raise UndecodableError(f"header {REASON} is missing")
    letter.reason = told.reason


@lru_cache(4096)
def _plain_text(raw: bytes) -> str:
    """Return a header's text; raises ValueError where it has to be unescaped or refused."""
    text = raw.decode("ascii")
    if not text or "%" in text:
        raise ValueError
    return text


def _looked_into(named: dict[str, Any], value: bytes | None) -> tuple[str | None, str | None]:
    """Return the event type and the workspace that a record's event claims; None for what isn't sound."""
    if "ce_specversion" in named and not _is_structured(named):
        return _sound(_text_or_none(named.get("ce_type"))), _sound_workspace(_text_or_none(named.get("ce_workspaceid")))
    fields = _parsed(value)
    if type(fields) is not dict:
        return None, None
    workspace = fields.get("workspaceid" if "specversion" in fields else "workspace_id")
    return _sound(fields.get("type")), _sound_workspace(workspace)


def _is_structured(named: dict[str, Any]) -> bool:
    return any(
        name.lower() == "content-type" and (raw or b"").lower().startswith(_STRUCTURED) for name, raw in named.items()
    )


def _parsed(value: bytes | None) -> Any:
    if not value:
        return None
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        pass  # a lone surrogate, or no JSON at all
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


def _text_or_none(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode("utf-8", "replace")


def _sound(event_type: Any) -> str | None:
    return event_type if type(event_type) is str and _is_type(event_type) else None


def _sound_workspace(workspace: Any) -> str | None:
    return workspace if type(workspace) is str and is_workspace_id(workspace) else None


_is_type = lru_cache(4096)(is_type)


def _is_of_type(event_type: str | None, wanted: str) -> bool:
    if event_type is None:
        return False
    return event_type == wanted or (wanted.endswith(".*") and event_type.startswith(wanted[:-1]))
