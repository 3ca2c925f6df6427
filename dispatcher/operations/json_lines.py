"""On which line of a JSON text a part of it stands."""

import json
from collections.abc import Sequence

_BLANKS = " \t\r\n"
_DECODER = json.JSONDecoder()


def line_of(text: str, path: Sequence[str | int]) -> int:
    """Return the line, from 1, where the value at a path begins.

    Args:
        text: A valid JSON text.
        path: Member names and array positions from the outside in; where the text ends before the path does, it is
            the line of the innermost value on the way.
    """
    at = _skip_blanks(text, 0)
    try:
        for step in path:
            inner = _member(text, at, step) if isinstance(step, str) else _item(text, at, step)
            if inner is None:
                break
            at = inner
    except RecursionError:
        pass  # nested beyond what can be stepped over: the line of the part around it
    return text.count("\n", 0, at) + 1


def _member(text: str, at: int, name: str) -> int | None:
    """Return where the value of an object's member begins; of duplicates the last, which is the one that counts."""
    found = None
    if text[at] != "{":
        return None
    at = _skip_blanks(text, at + 1)
    while text[at] == '"':
        key, at = _DECODER.raw_decode(text, at)
        at = _skip_blanks(text, _skip_blanks(text, at) + 1)
        if key == name:
            found = at
        at = _next(text, at)
    return found


def _item(text: str, at: int, position: int) -> int | None:
    if text[at] != "[":
        return None
    at = _skip_blanks(text, at + 1)
    for _ in range(position):
        if text[at] == "]":
            return None
        at = _next(text, at)
    return None if text[at] == "]" else at


def _next(text: str, at: int) -> int:
    """Step over a value and the comma behind it."""
    _, at = _DECODER.raw_decode(text, at)
    at = _skip_blanks(text, at)
    return _skip_blanks(text, at + 1) if text[at] == "," else at


def _skip_blanks(text: str, at: int) -> int:
    while text[at] in _BLANKS:
        at += 1
    return at
