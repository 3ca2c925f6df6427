"""How values are written on pages: times, durations, numbers, statuses."""

import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from markupsafe import Markup

from dispatcher.console.form_times import as_local
from dispatcher.core.catalogue import EventType
from dispatcher.operations.times import rfc3339

_SECOND_MS = 1000
_UNITS = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"))

# A sign beside each word: nobody has to tell colours apart.
_BADGES = {
    "active": ("good", "●"),
    "inactive": ("idle", "○"),
    "disabled": ("bad", "■"),
    "delivered": ("good", "✓"),
    "done": ("good", "✓"),
    "retrying": ("warn", "↻"),
    "running": ("info", "▸"),
    "pending": ("info", "…"),
    "failed": ("bad", "✕"),
    "skipped": ("idle", "⤼"),
    "cancelled": ("idle", "—"),
    "circuit_open": ("warn", "⌁"),
}


def time(at_ms: int | None) -> Markup:
    """Write a time in UTC; the script shows it in the reader's zone."""
    if at_ms is None:
        return Markup('<span class="muted">—</span>')
    text = rfc3339(at_ms)
    shown = text[:19].replace("T", " ")
    return Markup('<time datetime="{}" title="{} UTC">{} UTC</time>').format(text, shown, shown)


def countdown(at_ms: int) -> Markup:
    """Write a time that is still to come; the script counts down to it."""
    text = rfc3339(at_ms)
    shown = text[:19].replace("T", " ")
    return Markup('<time datetime="{}" title="{} UTC" data-countdown>{} UTC</time>').format(text, shown, shown)


def duration(ms: float | None) -> str:
    """Write a short time, with its unit."""
    if ms is None:
        return "—"
    if ms < 1:
        return f"{ms:.2f} ms"
    if ms < _SECOND_MS:
        return f"{ms:.0f} ms" if ms >= 10 else f"{ms:.1f} ms"  # noqa: PLR2004 - two digits are enough
    return f"{ms / 1000:.2f} s"


def span(ms: int) -> str:
    """Write a long time by its two greatest units: `1h 30m`."""
    if ms < _SECOND_MS:
        return f"{ms}ms"
    parts, left = [], ms
    for size, unit in _UNITS:
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])


def number(value: float) -> str:
    """Write a number with thousands apart."""
    return f"{value:,.0f}".replace(",", "\u202f") if value == int(value) else f"{value:,.1f}".replace(",", "\u202f")


def exactly(value: float) -> str:
    """Write a number with all its digits, as a field takes it: `0.5`, `1234.567`, `1000`."""
    return str(int(value)) if value == int(value) else f"{Decimal(repr(value)):f}"


def badge(status: str) -> Markup:
    """Write a status as a badge: sign, word and colour."""
    tone, sign = _BADGES.get(status, ("idle", "·"))
    text = status.replace("_", " ")
    return Markup('<span class="badge {}"><span aria-hidden="true">{}</span> {}</span>').format(tone, sign, text)


def response_code(code: int) -> Markup:
    """Write a status code; none came where it is 0."""
    if not code:
        return Markup('<span class="muted">none</span>')
    tone = "good" if 200 <= code < 300 else "bad"  # noqa: PLR2004 - the class of success
    return Markup('<span class="code {}">{}</span>').format(tone, code)


def readable(body: bytes) -> str:
    """Return a body as text; what is no UTF-8 is replaced."""
    return body.decode("utf-8", "replace")


def written(value: object) -> str:
    """Write a JSON value so that it reads well; what can be no UTF-8, as half a surrogate pair, stays escaped.

    Raises:
        ValueError: A number has too many digits.
        RecursionError: It is too deep.
    """
    # Python's escape of such a half is JSON's as well.
    return json.dumps(value, indent=2, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()


def reason(text: str) -> str:
    """Write a reason of the delivery log in words."""
    return text.replace("_", " ")


def event_title(event_type: str, types: Mapping[str, EventType]) -> str:
    """Return what people call an event type; one that the catalogue doesn't hold goes by its name."""
    entry = types.get(event_type)
    return event_type if entry is None else entry.title


def short(text: str) -> str:
    """Cut an id so that a table stays narrow."""
    return text if len(text) <= 14 else f"{text[:12]}…"  # noqa: PLR2004 - prefix and eight characters


def plural(count: int, word: str) -> str:
    """Write a count and its word."""
    return f"{count} {word}" if count == 1 else f"{number(count)} {word}s"


FILTERS: dict[str, Callable[..., Any]] = {
    "time": time,
    "countdown": countdown,
    "duration": duration,
    "span": span,
    "number": number,
    "exactly": exactly,
    "badge": badge,
    "response_code": response_code,
    "readable": readable,
    "reason": reason,
    "event_title": event_title,
    "short": short,
    "plural": plural,
    "as_local": as_local,
}
