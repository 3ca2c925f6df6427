"""Pages of a listing, in URLs: a cursor and the filters beside it."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from dispatcher.ports import Page

ROWS = 50
_MAX_CURSOR_CHARS = 512


def cursor_of(request: web.Request) -> str | None:
    """Return the cursor of a URL; None on the first page."""
    return request.query.get("cursor", "")[:_MAX_CURSOR_CHARS] or None


def filters_of(request: web.Request, names: tuple[str, ...], *, longest: int = 200) -> dict[str, str]:
    """Return those filters of a URL that say something."""
    return {name: text for name in names if (text := request.query.get(name, "").strip()[:longest])}


def links(request: web.Request, page: Page[Any], filters: Mapping[str, str]) -> dict[str, str]:
    """Return where the pager leads: `first` where this isn't the first page, `next` where there is one; else empty."""
    first = f"{request.path}?{urlencode(filters)}" if filters else request.path
    following = f"{request.path}?{urlencode({**filters, 'cursor': page.next_cursor})}" if page.next_cursor else ""
    return {"first": first if cursor_of(request) else "", "next": following}
