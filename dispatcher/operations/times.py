"""Times as callers write and read them: RFC 3339 text outside, unix milliseconds inside.

Source: RFC 3339 section 5.6.
"""

import datetime as dt
import re
from collections.abc import Mapping

_RFC3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}:[0-9]{2}:[0-9]{2})(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MS = dt.timedelta(milliseconds=1)


def rfc3339(at_ms: int) -> str:
    """Write a time as RFC 3339 UTC with `Z`; milliseconds only where there are any."""
    at = _EPOCH + at_ms * _MS
    return at.isoformat(timespec="milliseconds" if at_ms % 1000 else "seconds").removesuffix("+00:00") + "Z"


def parse_rfc3339(text: str) -> int:
    """Read an RFC 3339 time.

    Returns:
        Unix milliseconds; what is finer is cut off.

    Raises:
        ValueError: It is none; the text says what to send instead.
    """
    match = _RFC3339.fullmatch(text)
    try:
        if match is None:
            raise ValueError  # noqa: TRY301 - one message for every way to be wrong
        day, time, fraction, zone = match.groups(default="")
        zone = "+00:00" if zone in "Zz" else zone
        milliseconds = (fraction[1:] + "000")[:3]
        return (dt.datetime.fromisoformat(f"{day}T{time}.{milliseconds}{zone}") - _EPOCH) // _MS
    except (ValueError, OverflowError):
        raise ValueError(
            "send an RFC 3339 time with its zone, such as 2026-01-15T10:30:00Z (in a URL, write + as %2B)"
        ) from None


def read_span(sent: Mapping[str, str]) -> tuple[tuple[int | None, int | None], dict[str, str]]:
    """Read `since` and `until` as callers send them, in a URL or a form.

    Returns:
        Both as unix milliseconds, None where one is missing or wrong; and what is wrong, by name.
    """
    problems: dict[str, str] = {}
    times: dict[str, int | None] = {"since": None, "until": None}
    for name in times:
        if name in sent:
            try:
                times[name] = parse_rfc3339(sent[name])
            except ValueError as error:
                problems[name] = str(error)
    since_ms, until_ms = times["since"], times["until"]
    if since_ms is not None and until_ms is not None and since_ms > until_ms:
        problems["until"] = "is before since; send a later time"
    return (since_ms, until_ms), problems
