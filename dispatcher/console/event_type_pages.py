"""The event catalogue: what can be sent, and what it looks like."""

from aiohttp import web

from dispatcher.console import webhook_form
from dispatcher.console.frame import Frame
from dispatcher.console.routes import Page, Visit
from dispatcher.console.words import written
from dispatcher.core.catalogue import Catalogue


class EventTypePages:
    """The pages of event types.

    Args:
        frame: What stands around them.
        catalogue: The event types.
    """

    def __init__(self, frame: Frame, catalogue: Catalogue) -> None:
        self._frame = frame
        self._catalogue = catalogue

    def pages(self) -> tuple[Page, ...]:
        """List them."""
        return (
            Page("GET", "/event-types", self.list),
            Page("GET", "/event-types/{type}", self.show),
        )

    async def list(self, request: web.Request, visit: Visit) -> web.Response:
        """List the event types by group; the search looks at name, title and description."""
        sought = request.query.get("q", "").strip().lower()[:200]
        groups = [
            (group, [each for each in entries if sought in f"{each.type} {each.title} {each.description}".lower()])
            for group, entries in webhook_form.groups(self._catalogue)
        ]
        values = {"groups": [(group, entries) for group, entries in groups if entries], "sought": sought}
        return self._frame.page(request, visit, "event_types.html", values)

    async def show(self, request: web.Request, visit: Visit) -> web.Response:
        """Show one event type: description, schema, sample."""
        entry = self._catalogue.get(request.match_info["type"])
        if entry is None:
            raise web.HTTPNotFound
        values = {"entry": entry, "sample": written(entry.sample), "schema": written(entry.schema)}
        return self._frame.page(request, visit, "event_type.html", values)
