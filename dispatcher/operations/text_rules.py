"""Which characters text fields take; as rules, and as the patterns that the API's document shows.

The patterns are written so that Python and JavaScript read them alike.
"""

import re

LINE_PATTERN = "^[^\\u0000-\\u001f\\u007f-\\u009f\\u2028\\u2029]*$"
"""One line of text without control characters."""

TEXT_PATTERN = "^[^\\u0000-\\u0008\\u000b\\u000c\\u000e-\\u001f\\u007f-\\u009f]*$"
"""Text without control characters, line breaks and tabs apart."""

TOKEN_PATTERN = "^[!-~]*$"  # noqa: S105 - a pattern, no secret
"""Printable ASCII without spaces."""

_LINE = re.compile(LINE_PATTERN[1:-1])
_TEXT = re.compile(TEXT_PATTERN[1:-1])
_TOKEN = re.compile(TOKEN_PATTERN[1:-1])


def is_line(value: str) -> bool:
    """Say whether this is one line of text without control characters."""
    return _LINE.fullmatch(value) is not None


def check_line(value: str) -> str:
    """Return one line of text as it is.

    Raises:
        ValueError: It has a line break or another control character; the text says what to send.
    """
    if not is_line(value):
        raise ValueError("send one line of text without control characters")
    return value


def check_text(value: str) -> str:
    """Return text as it is.

    Raises:
        ValueError: It has a control character other than line breaks and tabs; the text says what to send.
    """
    if not _TEXT.fullmatch(value):
        raise ValueError("send text without control characters (line breaks are fine)")
    return value


def is_token(value: str) -> bool:
    """Say whether these are printable ASCII characters without spaces."""
    return _TOKEN.fullmatch(value) is not None
