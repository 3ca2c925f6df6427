"""Pages of a listing, in URLs: a cursor and the filters beside it."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from dispatcher.ports import Page

ROWS = 50
_MAX_CURSOR_CHARS = 512
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]+")


def cursor_of(request: web.Request) -> str | None:
    """Return the cursor of a URL; None on the first page."""
    return request.query.get("cursor", "")[:_MAX_CURSOR_CHARS] or None


def filters_of(request: web.Request, names: tuple[str, ...], *, longest: int = 200) -> dict[str, str]:
    """Return those filters of a URL that say something; control characters, which nothing contains, are blanks."""
    texts = {name: _CONTROLS.sub(" ", request.query.get(name, "")).strip()[:longest] for name in names}
    return {name: text for name, text in texts.items() if text}


def links(request: web.Request, page: Page[Any], filters: Mapping[str, str]) -> dict[str, str]:
    """Return where the pager leads: `first` where this isn't the first page, `next` where there is one; else empty."""
    first = f"{request.path}?{urlencode(filters)}" if filters else request.path
    following = f"{request.path}?{urlencode({**filters, 'cursor': page.next_cursor})}" if page.next_cursor else ""
    return {"first": first if cursor_of(request) else "", "next": following}
