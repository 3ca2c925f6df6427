"""Times as a form's fields have them: without a zone, meant in UTC."""

import re

_LOCAL = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(?::[0-9]{2})?")
_MINUTES_CHARS = 16


def as_rfc3339(text: str) -> str:
    """Return what a `datetime-local` field sent as RFC 3339; other text as it is, for its reader to judge."""
    if not _LOCAL.fullmatch(text):
        return text
    return f"{text}:00Z" if len(text) == _MINUTES_CHARS else f"{text}Z"
