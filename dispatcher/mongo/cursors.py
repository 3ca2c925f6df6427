"""Cursors of listings: where a page ended, opaque to the caller.

A listing is newest first by time and id. The cursor holds the last row's two, so that the next page is the same
however many rows were added in front of it.
"""

import base64
import binascii
import re
import struct
from typing import Any

from bson.datetime_ms import DatetimeMS

from dispatcher.core.errors import InvalidInputError

_TIME = struct.Struct(">q")
_ALPHABET = re.compile(r"[A-Za-z0-9_-]+")


def encode_cursor(created_at_ms: int, row_id: str) -> str:
    """Return the cursor of the page that ends with this row."""
    return base64.urlsafe_b64encode(_TIME.pack(created_at_ms) + row_id.encode()).rstrip(b"=").decode()


def decode_cursor(cursor: str) -> tuple[int, str]:
    """Return the time (unix milliseconds) and the id that a cursor holds.

    Raises:
        InvalidInputError: It is none of ours.
    """
    row_id = ""
    created_at_ms = 0
    try:
        # The decoder takes the usual alphabet of base64 beside the one for URLs.
        known = cursor if _ALPHABET.fullmatch(cursor) else ""
        raw = base64.urlsafe_b64decode(known + "=" * (-len(known) % 4))
        (created_at_ms,) = _TIME.unpack_from(raw)
        # Ids are ASCII; other bytes are merely where another caller's made-up page begins.
        row_id = raw[_TIME.size :].decode("utf-8", "replace")
    except (binascii.Error, struct.error):
        pass
    if not row_id:
        raise InvalidInputError({"cursor": "not a cursor of this listing; pass next_cursor back unchanged"})
    return created_at_ms, row_id


def after(cursor: str, *, time_field: str) -> dict[str, Any]:
    """Return the condition that the rows behind a cursor meet.

    Raises:
        InvalidInputError: The cursor is none of ours.
    """
    created_at_ms, row_id = decode_cursor(cursor)
    at = DatetimeMS(created_at_ms)
    # The first condition bounds the index scan; the second keeps rows of the same millisecond apart.
    return {
        "$and": [
            {time_field: {"$lte": at}},
            {"$or": [{time_field: {"$lt": at}}, {"_id": {"$lt": row_id}}]},
        ]
    }
