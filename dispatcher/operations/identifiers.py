"""Ids of things that are made here: a prefix that says what it is, and 128 random bits."""

import base64
from collections.abc import Callable

Draw = Callable[[int], bytes]
"""Returns that many random bytes, fit for secrets."""


def new_id(prefix: str, draw: Draw) -> str:
    """Return `prefix` followed by 26 lower-case base32 characters."""
    return prefix + base64.b32encode(draw(16)).decode("ascii").rstrip("=").lower()
