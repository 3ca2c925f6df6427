"""Times as a form's fields have them: without a zone, meant in UTC."""

import re

from dispatcher.operations.times import parse_rfc3339, rfc3339

_LOCAL = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,3})?)?")
_MINUTES_CHARS = 16


def as_rfc3339(text: str) -> str:
    """Return what a `datetime-local` field sent as RFC 3339; other text as it is, for its reader to judge."""
    if not _LOCAL.fullmatch(text):
        return text
    return f"{text}:00Z" if len(text) == _MINUTES_CHARS else f"{text}Z"


def as_local(text: str) -> str:
    """Return an RFC 3339 time as a `datetime-local` field can show it; other text as it is.

    A field that is given what it can't show is blank, and sends nothing.
    """
    try:
        return rfc3339(parse_rfc3339(text)).removesuffix("Z")
    except ValueError:
        return text
