"""Read a request's query string: known parameters only, each once."""

from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

from aiohttp import web

from dispatcher.api.routes import Parameter
from dispatcher.core.errors import InvalidInputError
from dispatcher.operations.wrong_fields import MAX_PROBLEMS, shown_path

DEFAULT_LIMIT = 50
MAX_LIMIT = 200

MAX_CURSOR_LENGTH = 512
CURSOR_PATTERN = "^(?:[A-Za-z0-9_-]{4}){3,127}(?:[A-Za-z0-9_-]{2,4})?$"
"""What the store's cursors look like: base64url, of as many bytes as a time and an id at least have."""

_LIMIT = Parameter(
    "limit",
    "how many rows a page has at most",
    {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
)
PAGING = (
    Parameter(
        "cursor",
        "next_cursor of the page before; left out for the first",
        {"type": "string", "pattern": CURSOR_PATTERN, "maxLength": MAX_CURSOR_LENGTH},
    ),
    _LIMIT,
)
"""What every listing that goes on takes."""

PAGING_BY_NAME = (
    Parameter(
        "cursor",
        "next_cursor of the page before; left out for the first",
        {"type": "string", "minLength": 1, "maxLength": MAX_CURSOR_LENGTH},
    ),
    _LIMIT,
)
"""What a listing takes that is ordered by name: any name is a place in it."""

SPAN = (
    Parameter("since", "only what is from this time on", {"type": "string", "format": "date-time"}),
    Parameter("until", "only what is before this time", {"type": "string", "format": "date-time"}),
)
"""What listings by time take."""

_PAGING = tuple(parameter.name for parameter in PAGING)

T = TypeVar("T")


def refuse_query(request: web.Request) -> None:
    """Let a request go on that has no query string; for calls that take none.

    Raises:
        InvalidInputError: It names every parameter.
    """
    if request.query_string:
        _, problems = _read(request, ())
        if problems:
            raise InvalidInputError(problems)


def read_page(request: web.Request) -> tuple[str | None, int]:
    """Return the cursor (None on the first page) and how many rows are wanted, for a listing without filters.

    Raises:
        InvalidInputError: It names every wrong parameter.
    """
    _, cursor, limit = read_listing(request, (), dict)
    return cursor, limit


def read_listing(
    request: web.Request, filters: Collection[str], read_filter: Callable[[Mapping[str, str]], T]
) -> tuple[T, str | None, int]:
    """Return the filter, the cursor (None on the first page) and how many rows are wanted.

    Args:
        request: The request.
        filters: Parameters that this call takes, besides those of paging.
        read_filter: Makes the filter of the parameters that were sent; raises `InvalidInputError`.

    Raises:
        InvalidInputError: It names every parameter that is unknown, comes twice or is wrong.
    """
    query, problems = _read(request, (*filters, *_PAGING))
    cursor, limit, wrong = _read_paging(query)
    problems = {**wrong, **problems}
    try:
        wanted = read_filter(query)
    except InvalidInputError as error:
        raise InvalidInputError({**error.fields, **problems}) from None
    if problems:
        raise InvalidInputError(problems)
    return wanted, cursor, limit


def read_filters(request: web.Request, filters: Collection[str], read_filter: Callable[[Mapping[str, str]], T]) -> T:
    """Return the filter of a call that isn't paged.

    Raises:
        InvalidInputError: It names every parameter that is unknown, comes twice or is wrong.
    """
    query, problems = _read(request, filters)
    try:
        wanted = read_filter(query)
    except InvalidInputError as error:
        raise InvalidInputError({**error.fields, **problems}) from None
    if problems:
        raise InvalidInputError(problems)
    return wanted


def _read(request: web.Request, takes: Collection[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the parameters of a query, each once, and what is wrong with their names."""
    problems: dict[str, str] = {}
    read: dict[str, str] = {}
    for name, value in request.query.items():
        if name not in takes:
            problems[shown_path([name])] = f"is no parameter here; this call takes {', '.join(takes) or 'none'}"
        elif name in read:
            problems[name] = "comes twice; send it once"
        read[name] = value
        if len(problems) >= MAX_PROBLEMS:
            break
    return read, problems


def _read_paging(query: Mapping[str, str]) -> tuple[str | None, int, dict[str, str]]:
    """Return cursor and limit, and what is wrong with them."""
    problems: dict[str, str] = {}
    text = query.get("limit", str(DEFAULT_LIMIT))
    fits = text.isascii() and text.isdigit() and len(text) <= len(str(MAX_LIMIT))
    limit = int(text) if fits else 0
    if not 1 <= limit <= MAX_LIMIT:
        problems["limit"] = f"send a whole number from 1 to {MAX_LIMIT}"
    cursor = query.get("cursor")
    if cursor is not None and not 0 < len(cursor) <= MAX_CURSOR_LENGTH:
        problems["cursor"] = "send next_cursor of the page before, or leave it out for the first page"
    return cursor, limit, problems
