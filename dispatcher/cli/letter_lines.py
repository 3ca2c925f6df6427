"""How one dead letter is told, in lines and as JSON; secrets are masked, and nothing in it moves a cursor."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dispatcher.app.dead_letter_view import ShownLetter, ShownRecord
from dispatcher.cli.letter_bodies import body_json, body_lines, decoded, header_text
from dispatcher.cli.survey_lines import place
from dispatcher.core.delivery_log import LoggedAttempt
from dispatcher.core.masking import legible, masked, masked_bytes
from dispatcher.core.model import DeadLetterReason
from dispatcher.core.record_faults import AROUND_BYTES
from dispatcher.core.records import BadRecord, DeliveryRecord
from dispatcher.operations.times import rfc3339

_ROW = 16
_WIDE = 14
_HINTS: Mapping[str, str] = {
    DeadLetterReason.ATTEMPTS_EXHAUSTED: "no attempt was answered with 2xx; replay it when the endpoint works again",
    DeadLetterReason.GONE: "the endpoint answered 410, so its webhook was disabled; its owner can set it active again",
    DeadLetterReason.CIRCUIT_OPEN: "its endpoint failed all along, and the last attempt waited too long for it",
    DeadLetterReason.EXPIRED: "its endpoint took less than came for it for 3 days; replay it slowly",
    DeadLetterReason.UNDECODABLE: "the source record is no event; its publisher has to mend that, see below",
    DeadLetterReason.UNKNOWN_TYPE: "the event catalogue doesn't know its type; add it, or have the publisher mend it",
    DeadLetterReason.SCHEMA: "its data is not as its type's schema says; the publisher has to mend that",
    DeadLetterReason.NO_WORKSPACE: "the event names no workspace, and there is no DISPATCHER_DEFAULT_WORKSPACE",
    DeadLetterReason.WORKSPACE_MISMATCH: "event and webhook are of different workspaces: somebody wrote to own topics",
    DeadLetterReason.TOO_LARGE: "the record is larger than DISPATCHER_MAX_EVENT_BYTES, or than its topic takes",
}


def letter_lines(shown: ShownLetter, now_ms: int) -> Iterator[str]:
    """Yield what is printed of a letter.

    Args:
        shown: It.
        now_ms: Unix milliseconds.
    """
    letter = shown.letter
    yield from _pairs(_facts(shown, now_ms))
    if shown.delivery is not None:
        yield ""
        yield from _attempts(shown.delivery.attempts)
    if shown.record is not None:
        yield ""
        yield from _record(shown.record)
    yield ""
    yield "headers of the record"
    yield from _pairs(
        [(f"  {_text(name)}", legible(header_text(name, value))) for name, value in letter.headers], wide=34
    )
    body = _body_of(shown)
    if body:
        yield ""
        yield f"body ({len(body):,} bytes)"
        yield from body_lines(body)
    yield ""
    command = replay_command(shown)
    if command is None:
        yield "it can't be replayed: its headers say nothing to go by"
    else:
        yield "to replay it"
        yield f"  {command}"
        yield f"  {_alike(shown)}"


def letter_json(shown: ShownLetter) -> dict[str, Any]:
    """Return a letter as a JSON value, secrets masked."""
    letter, told, record = shown.letter, shown.told, shown.record
    origin = None if told is None else told.origin
    body = _body_of(shown)
    return {
        "place": place(shown.topic, letter),
        "at": rfc3339(letter.timestamp_ms),
        "handled": shown.handled,
        "reason": letter.reason,
        "error": masked(letter.problem or ("" if told is None else told.error)),
        "workspace_id": letter.workspace_id,
        "type": letter.event_type,
        "origin": None
        if origin is None
        else {
            "topic": origin.topic,
            "partition": origin.partition,
            "offset": origin.offset,
            "at": _time(origin.timestamp_ms),
        },
        "delivery": None if not isinstance(told, DeliveryRecord) else _delivery_json(shown, told),
        "record": None if record is None else _record_json(record),
        "headers": [{"name": name, "value": header_text(name, value)} for name, value in letter.headers],
        "body": None if body is None else body_json(body),
        "replay": replay_command(shown),
    }


def replay_command(shown: ShownLetter) -> str | None:
    """Return the command that replays a letter, and with it those of its webhook and reason of the same millisecond."""
    letter = shown.letter
    if shown.told is None:
        return None
    words = ["dispatcher", "dead-letters", "replay"]
    if isinstance(shown.told, BadRecord):
        words += ["--as-event", "--reason", letter.reason]
    else:
        words += ["--subscription", shown.told.subscription_id, "--reason", letter.reason]
    words += ["--since", rfc3339(letter.timestamp_ms), "--until", rfc3339(letter.timestamp_ms + 1)]
    if shown.handled:
        words.append("--again")
    return shlex.join(legible(word) for word in words)


def _alike(shown: ShownLetter) -> str:
    """Say which other letters the command takes as well."""
    same = "reason" if isinstance(shown.told, BadRecord) else "webhook, reason"
    return f"(and with it other dead letters of the same {same} and millisecond; --dry-run counts them)"


def _facts(shown: ShownLetter, now_ms: int) -> Iterator[tuple[str, str]]:
    letter, told = shown.letter, shown.told
    yield "dead letter", f"{place(shown.topic, letter)}{'  (replayed or purged before)' if shown.handled else ''}"
    yield "since", f"{_time(letter.timestamp_ms)}  ({_ago(now_ms - letter.timestamp_ms)} ago)"
    hint = _HINTS.get(letter.reason)
    yield "reason", _text(letter.reason) + (f": {hint}" if hint else "")
    if letter.problem:
        yield "problem", f"its own headers can't be read: {_text(letter.problem)}"
    if letter.workspace_id is not None:
        yield "workspace", _text(letter.workspace_id)
    if letter.event_type is not None:
        yield "event type", _text(letter.event_type)
    if isinstance(told, DeliveryRecord):
        yield from _delivery_facts(shown, told)
    if told is not None:
        origin = told.origin
        yield "event", f"{_text(origin.topic)}-{origin.partition}-{origin.offset}  {_time(origin.timestamp_ms)}"
        yield "error", _text(told.error) or "-"


def _delivery_facts(shown: ShownLetter, told: DeliveryRecord) -> Iterator[tuple[str, str]]:
    delivery, webhook = shown.delivery, shown.webhook
    now = "not in the delivery log (any more)" if delivery is None else f"{delivery.status.value} in the delivery log"
    yield "delivery", f"{_text(told.delivery_id)}  ({now})"
    if delivery is not None:
        yield "event id", _text(delivery.event_id)
    yield "attempts", str(told.attempt) + (f"  in replay {_text(told.replay_id)}" if told.replay_id else "")
    about = "deleted" if webhook is None else f"{webhook.subscription.status}, {_url(webhook.url)}"
    yield "webhook", f"{_text(told.subscription_id)}  ({about})"
    yield "last answer", str(told.http_status) if told.http_status else "none"


def _attempts(attempts: Sequence[LoggedAttempt]) -> Iterator[str]:
    yield "attempts, from the delivery log"
    heads = ("  run", "no.", "ended at", "took", "status", "error")
    rows = [
        (
            f"  {_text(each.run) or 'first'}",
            str(each.attempt),
            _time(each.at_ms),
            f"{each.duration_ms:,.0f} ms",
            str(each.response_code or "-"),
            _text(each.error) or "-",
        )
        for each in attempts
    ]
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    for row in (heads, *rows):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    answered = next((each for each in reversed(attempts) if each.response_body), None)
    if answered is not None:
        yield ""
        yield f"what the endpoint said to attempt {answered.attempt}"
        yield from body_lines(answered.response_body)


def _record(record: ShownRecord) -> Iterator[str]:
    yield "the source record"
    size = "" if record.size_bytes is None else f", {record.size_bytes:,} bytes"
    yield f"  {'is on its topic' + size if record.kept else 'is on its topic no more'}"
    if record.problem:
        yield f"  can't be read: {_text(record.problem)}"
    elif record.fault is not None:
        yield f"  is no event: {_text(record.fault.message)}"
        if record.fault.byte is not None:
            yield f"  it goes wrong at byte {record.fault.byte:,} (from 0)"
            if record.value is not None:
                yield from _excerpt(record.value, record.fault.byte)
    elif record.kept:
        yield "  is an event by today's settings: replay it"


def _excerpt(value: bytes, byte: int) -> Iterator[str]:
    """Yield the bytes around one, in rows, with a mark below it."""
    value = masked_bytes(value)
    first = max(0, byte - AROUND_BYTES) // _ROW * _ROW
    for start in range(first, min(len(value), byte + AROUND_BYTES + 1), _ROW):
        row = value[start : start + _ROW]
        digits = " ".join(f"{each:02x}" for each in row).ljust(_ROW * 3 - 1)
        letters = "".join(chr(each) if 0x20 <= each < 0x7F else "." for each in row)  # noqa: PLR2004 - printable ASCII
        yield f"    {start:08x}  {digits}  {letters}"
        if start <= byte < start + _ROW:
            column = byte - start
            yield f"    {' ' * 10}{' ' * (column * 3)}^^{' ' * (_ROW * 3 - 1 - column * 3)}{' ' * column}^"
    if byte >= len(value):
        yield f"    {len(value):08x}  (the end)"


def _body_of(shown: ShownLetter) -> bytes | None:
    if shown.letter.value is not None:
        return shown.letter.value
    return None if shown.record is None else shown.record.value


def _delivery_json(shown: ShownLetter, told: DeliveryRecord) -> dict[str, Any]:
    delivery, webhook = shown.delivery, shown.webhook
    return {
        "id": told.delivery_id,
        "subscription_id": told.subscription_id,
        "webhook_status": None if webhook is None else webhook.subscription.status,
        "webhook_url": None if webhook is None else _url(webhook.url),
        "attempts_made": told.attempt,
        "replay_id": told.replay_id or None,
        "response_code": told.http_status or None,
        "status": None if delivery is None else delivery.status.value,
        "event_id": None if delivery is None else delivery.event_id,
        "attempts": [] if delivery is None else [_attempt_json(each) for each in delivery.attempts],
    }


def _attempt_json(attempt: LoggedAttempt) -> dict[str, Any]:
    return {
        "replay_id": attempt.run or None,
        "attempt": attempt.attempt,
        "at": _time(attempt.at_ms),
        "status": attempt.status.value,
        "duration_ms": attempt.duration_ms,
        "response_code": attempt.response_code or None,
        "error": masked(attempt.error),
        "response_body": masked(decoded(attempt.response_body)),
    }


def _record_json(record: ShownRecord) -> dict[str, Any]:
    fault = record.fault
    return {
        "kept": record.kept,
        "size_bytes": record.size_bytes,
        "problem": record.problem or None,
        "fault": None if fault is None else {"message": masked(fault.message), "byte": fault.byte},
    }


def _pairs(pairs: Any, *, wide: int = _WIDE) -> Iterator[str]:
    for name, text in pairs:
        yield f"{name.ljust(wide)}{'' if len(name) < wide else '  '}{text}"


def _text(text: str) -> str:
    return legible(masked(text))


def _url(url: str) -> str:
    """Return a webhook's URL without its query, where some put tokens."""
    before, mark, _ = url.partition("?")
    return legible(before + ("?***" if mark else ""))


def _time(at_ms: int) -> str:
    return rfc3339(at_ms) if at_ms >= 0 else "-"


def _ago(ms: int) -> str:
    seconds = max(ms, 0) // 1000
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
