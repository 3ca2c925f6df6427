"""Read a request's query string: known parameters only, each once."""

from collections.abc import Collection

from aiohttp import web

from dispatcher.api.routes import Parameter
from dispatcher.core.errors import InvalidInputError
from dispatcher.operations.wrong_fields import MAX_PROBLEMS, shown_path

DEFAULT_LIMIT = 50
MAX_LIMIT = 200

MAX_CURSOR_LENGTH = 512

PAGING = (
    Parameter(
        "cursor",
        "next_cursor of the page before; left out for the first",
        {"type": "string", "minLength": 1, "maxLength": MAX_CURSOR_LENGTH},
    ),
    Parameter(
        "limit",
        "how many rows a page has at most",
        {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
    ),
)
"""What every listing that goes on takes."""

SPAN = (
    Parameter("since", "only what is from this time on", {"type": "string", "format": "date-time"}),
    Parameter("until", "only what is before this time", {"type": "string", "format": "date-time"}),
)
"""What listings by time take."""

_PAGING = tuple(parameter.name for parameter in PAGING)


def read_query(request: web.Request, known: Collection[str] = ()) -> dict[str, str]:
    """Return the query's parameters.

    Args:
        request: The request.
        known: Parameters that this call takes, besides those of paging.

    Raises:
        InvalidInputError: It names every parameter that is unknown or comes twice.
    """
    takes = (*known, *_PAGING)
    problems: dict[str, str] = {}
    read: dict[str, str] = {}
    for name, value in request.query.items():
        if name not in takes:
            problems[shown_path([name])] = f"is no parameter here; this call takes {', '.join(takes)}"
        elif name in read:
            problems[name] = "comes twice; send it once"
        read[name] = value
        if len(problems) >= MAX_PROBLEMS:
            break
    if problems:
        raise InvalidInputError(problems)
    return read


def read_paging(query: dict[str, str]) -> tuple[str | None, int]:
    """Return the cursor (None on the first page) and how many rows are wanted.

    Raises:
        InvalidInputError: The limit is no number from 1 to `MAX_LIMIT`, or the cursor is none of ours.
    """
    problems: dict[str, str] = {}
    limit = query.get("limit", str(DEFAULT_LIMIT))
    if not (limit.isascii() and limit.isdigit() and len(limit) <= len(str(MAX_LIMIT)) and 1 <= int(limit) <= MAX_LIMIT):
        problems["limit"] = f"send a whole number from 1 to {MAX_LIMIT}"
    cursor = query.get("cursor")
    if cursor is not None and not 0 < len(cursor) <= MAX_CURSOR_LENGTH:
        problems["cursor"] = "send next_cursor of the page before, or leave it out for the first page"
    if problems:
        raise InvalidInputError(problems)
    return cursor, int(limit)
