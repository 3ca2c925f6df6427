"""How bodies and headers of dead letters, and of what endpoints answered, are shown; secrets are masked."""

import json
from collections.abc import Iterator
from typing import Any

from dispatcher.core.masking import MASK, is_secret_name, legible, legible_json, masked, masked_bytes

MAX_BODY_CHARS = 16_384
"""As much of a body is printed; `--json` has all of it."""

_MAX_DEPTH = 100


def body_lines(raw: bytes) -> Iterator[str]:
    """Yield a body: JSON laid out, anything else as text."""
    value, is_json = _parsed(raw)
    text = json.dumps(legible_json(value), indent=2, ensure_ascii=False) if is_json else decoded(raw)
    cut = len(text) > MAX_BODY_CHARS
    for line in legible(masked(text[:MAX_BODY_CHARS]), lines=True).split("\n"):
        yield f"  {line}"
    if cut:
        yield f"  … {len(text) - MAX_BODY_CHARS:,} more characters; --json prints them"


def body_json(raw: bytes) -> Any:
    """Return a body as a JSON value that says which of the two it is."""
    value, is_json = _parsed(raw)
    return {"json": legible_json(value)} if is_json else {"text": masked(decoded(raw))}


def _parsed(raw: bytes) -> tuple[Any, bool]:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return None, False
    return (None, False) if _is_deep(value) else (value, True)


def _is_deep(value: Any) -> bool:
    """Say whether a JSON value is nested so deeply that it is shown as plain text: laying it out would not end well."""
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [
            member
            for each in level
            if isinstance(each, dict | list)
            for member in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return False
    return True


def decoded(raw: bytes) -> str:
    """Return bytes as text, secrets masked."""
    return masked_bytes(raw).decode("utf-8", "replace")


def header_text(name: str, value: bytes | None) -> str:
    """Return a header's value, masked where its name or its look says that it is secret."""
    return MASK if is_secret_name(name) and value else masked((value or b"").decode("utf-8", "replace"))
