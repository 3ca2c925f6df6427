"""`ETag` and `If-Match`: two people who change the same webhook don't overwrite each other.

Source: RFC 9110 section 8.8.3 (ETag), 13.1.1 (If-Match, by strong comparison).
"""

import re
from collections.abc import Collection

from aiohttp import web

from dispatcher.api.problems import ProblemError

_TAG = re.compile(r'[ \t]*(W/)?"([\x21\x23-\x7e\x80-\U0010ffff]*)"[ \t]*(?:,|$)')
_REVISION = re.compile(r"[0-9]{1,18}")


def etag_of(revision: int) -> str:
    """Return the entity tag of a revision."""
    return f'"{revision}"'


def read_if_match(request: web.Request) -> Collection[int] | None:
    """Return the revisions that the caller's change is meant for; None: whichever it is.

    Raises:
        ProblemError: 412, the header is no list of entity tags, or has weak ones, which never match.
    """
    sent = ",".join(request.headers.getall("If-Match", ())).strip()
    if "If-Match" not in request.headers or sent == "*":
        return None
    revisions: set[int] = set()
    end = 0
    while end < len(sent):
        match = _TAG.match(sent, end)
        if match is None:
            raise ProblemError(412, 'If-Match is no list of entity tags; send the ETag of an answer, such as "3", or *')
        if match[1]:
            raise ProblemError(412, "If-Match has a weak entity tag, which never matches; send the ETag as it came")
        if _REVISION.fullmatch(match[2]):
            revisions.add(int(match[2]))
        end = match.end()
    return revisions
