"""How a survey of the dead-letter topic is told, in lines and as JSON."""

from collections.abc import Iterator, Sequence
from typing import Any

from dispatcher.app.dead_letters import Survey
from dispatcher.core.dead_letters import NO_ANSWER, DeadLetter
from dispatcher.core.letter_counts import REST, CountedBy, CountRow
from dispatcher.core.masking import legible
from dispatcher.operations.times import rfc3339

_HEADS = {
    CountedBy.REASON: "reason",
    CountedBy.WORKSPACE: "workspace",
    CountedBy.SUBSCRIPTION: "webhook",
    CountedBy.TYPE: "event type",
    CountedBy.STATUS: "status code",
    CountedBy.HOUR: "hour (UTC)",
}
_BAR = 24
_WIDEST = 80


def survey_lines(survey: Survey, top: int) -> Iterator[str]:
    """Yield what is printed of a survey.

    Args:
        survey: What was found.
        top: As many rows of each count; of hours, the latest ones.
    """
    choice = survey.choice
    count = choice.counts.total
    letters = "letter" if count == 1 else "letters"
    yield f"{count:,} dead {letters} on {survey.topic}{'' if survey.handled_too else ' to be dealt with'}"
    left_out = [
        f"{number:,} {what}"
        for number, what in (
            (choice.superseded, "superseded by a later one of the same delivery"),
            (choice.handled, "replayed or purged before"),
        )
        if number
    ]
    if left_out:
        yield f"left out: {', '.join(left_out)}"
    if not count:
        return
    for kind in CountedBy:
        yield ""
        yield from _table(kind, choice.counts.by(kind), count, top)
    if survey.examples:
        yield ""
        yield "newest (dispatcher dead-letters show ID tells more):"
        for letter in survey.examples:
            yield f"  {rfc3339(letter.timestamp_ms)}  {_name(survey.topic, letter)}  {legible(letter.reason)}"


def survey_json(survey: Survey) -> dict[str, Any]:
    """Return a survey as a JSON value; every row that is counted apart is in it."""
    choice = survey.choice
    return {
        "topic": survey.topic,
        "count": choice.counts.total,
        "read": choice.read,
        "superseded": choice.superseded,
        "handled": choice.handled,
        "by": {kind.value: _rows_json(kind, choice.counts.by(kind)) for kind in CountedBy},
        "newest": [_example_json(survey.topic, letter) for letter in survey.examples],
    }


def place(topic: str, letter: DeadLetter) -> str:
    """Return where a letter stands, as `show` takes it."""
    return f"{topic}-{letter.partition}-{letter.offset}"


def _table(kind: CountedBy, rows: Sequence[CountRow], count: int, top: int) -> Iterator[str]:
    shown, others = (rows[-top:], rows[:-top]) if kind is CountedBy.HOUR else (rows[:top], rows[top:])
    most = max(row.count for row in shown)
    # What is summed up has no bar: it is no row to compare with.
    cells = [(_value_text(kind, row.value), row.count, max(1, round(_BAR * row.count / most))) for row in shown]
    rest = sum(row.count for row in others)
    if others and kind is CountedBy.HOUR:
        cells.insert(0, (f"{len(others)} hours before", rest, 0))
    elif others:
        cells.append((f"{len(others)} others", rest, 0))
    wide = max(len(text) for text in (_HEADS[kind], *(text for text, _, _ in cells)))
    digits = max(len(text) for text in ("count", *(f"{number:,}" for _, number, _ in cells)))
    yield f"{_HEADS[kind].ljust(wide)}  {'count'.rjust(digits)}"
    for text, number, bar in cells:
        yield f"{text.ljust(wide)}  {f'{number:,}'.rjust(digits)}  {number / count:>4.0%}  {'█' * bar}".rstrip()


def _value_text(kind: CountedBy, value: object) -> str:
    if value is REST:
        return "all others"
    if value is None:
        return "-"
    if kind is CountedBy.HOUR and isinstance(value, int):
        return rfc3339(value)[:13].replace("T", " ") + ":00"
    if kind is CountedBy.STATUS:
        return str(value) if value else NO_ANSWER
    text = legible(str(value))
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"


def _rows_json(kind: CountedBy, rows: Sequence[CountRow]) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    for row in rows:
        value = row.value
        if value is REST:
            made.append({"others": True, "count": row.count})
            continue
        if kind is CountedBy.HOUR and isinstance(value, int):
            value = rfc3339(value)
        elif kind is CountedBy.STATUS:
            value = value or NO_ANSWER
        made.append({"value": value, "count": row.count})
    return made


def _name(topic: str, letter: DeadLetter) -> str:
    return legible(letter.delivery_id) if letter.delivery_id else place(topic, letter)


def _example_json(topic: str, letter: DeadLetter) -> dict[str, Any]:
    return {
        "place": place(topic, letter),
        "at": rfc3339(letter.timestamp_ms),
        "reason": letter.reason,
        "delivery_id": letter.delivery_id,
        "subscription_id": letter.subscription_id,
        "workspace_id": letter.workspace_id,
        "type": letter.event_type,
        "status": letter.http_status or NO_ANSWER,
    }
