"""Turn templates into pages: everything is escaped, and what every page shows is filled in here."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from aiohttp import web
from jinja2 import Environment, PackageLoader, StrictUndefined

from dispatcher.console import words
from dispatcher.console.assets import Assets
from dispatcher.console.routes import Visit

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Drawing:
    """Draws pages.

    Args:
        assets: Style sheet and script.
    """

    def __init__(self, assets: Assets) -> None:
        self._environment = Environment(
            loader=PackageLoader("dispatcher.console"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._environment.globals["assets"] = assets.urls
        self._environment.filters.update(words.FILTERS)

    def templates(self) -> list[str]:
        """Return the names of all templates."""
        return self._environment.list_templates()

    def page(
        self,
        request: web.Request,
        visit: Visit | None,
        template: str,
        values: Mapping[str, Any] | None = None,
        *,
        status: int = 200,
    ) -> web.Response:
        """Draw a page.

        Args:
            request: What is answered.
            visit: Who looks; None where nobody is signed in.
            template: A file under `templates/`.
            values: What the template shows.
            status: Of the response.
        """
        shown = {"visit": visit, "path": request.path, "query": dict(request.query), **(values or {})}
        text = self._environment.get_template(template).render(shown)
        return web.Response(
            status=status,
            # What can be no UTF-8 shall cost a character, not the page.
            body=text.encode("utf-8", "backslashreplace"),
            content_type="text/html",
            charset="utf-8",
            headers=SECURITY_HEADERS,
        )

    def problem(self, request: web.Request, visit: Visit | None, status: int, text: str) -> web.Response:
        """Draw the page that says why there is no other: what is wrong, and what to do."""
        known = structlog.contextvars.get_contextvars().get("request_id", "")
        values = {"status": status, "title": HTTPStatus(status).phrase, "text": text, "request_id": known}
        template = "problem_outside.html" if visit is None else "problem.html"
        return self.page(request, visit, template, values, status=status)
