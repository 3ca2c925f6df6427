"""`ETag` and `If-Match`: two people who change the same webhook don't overwrite each other.

Source: RFC 9110 section 8.8.3 (ETag), 13.1.1 (If-Match, by strong comparison).
"""

import re
from collections.abc import Collection

from aiohttp import web

_TAG = re.compile(r'[ \t]*(W/)?"([\x21\x23-\x7e\x80-\U0010ffff]*)"[ \t]*(?:,|$)')
_REVISION = re.compile(r"[0-9]{1,18}")


def etag_of(revision: int) -> str:
    """Return the entity tag of a revision."""
    return f'"{revision}"'


def read_if_match(request: web.Request) -> Collection[int] | None:
    """Return the revisions that the caller's change is meant for; None: whichever it is.

    Weak tags never match, and what is no list of entity tags names no revision at all. It is not refused here: what
    is wrong with the request itself comes first.

    Source: RFC 9110 section 13.2.1 (when preconditions count).
    """
    sent = ",".join(request.headers.getall("If-Match", ())).strip()
    if "If-Match" not in request.headers or sent == "*":
        return None
    revisions: set[int] = set()
    end = 0
    while end < len(sent):
        match = _TAG.match(sent, end)
        if match is None:
            return frozenset()
        if not match[1] and _REVISION.fullmatch(match[2]):
            revisions.add(int(match[2]))
        end = match.end()
    return revisions
