"""The calls about the event catalogue."""

from aiohttp import web

from dispatcher.api.admin_answers import EventTypeAnswer, EventTypesAnswer, event_type_answer
from dispatcher.api.answers import json_answer
from dispatcher.api.queries import PAGING_BY_NAME, read_page
from dispatcher.api.routes import Route
from dispatcher.core.catalogue import Catalogue
from dispatcher.core.errors import NotFoundError
from dispatcher.ports import ApiKey


class CatalogueCalls:
    """Show the event types that are known."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def routes(self) -> tuple[Route, ...]:
        """List the calls."""
        return (
            Route(
                "GET",
                "/event-types",
                "read",
                self.page,
                operation="listEventTypes",
                query=PAGING_BY_NAME,
                answer=EventTypesAnswer,
            ),
            Route("GET", "/event-types/{type}", "read", self.get, operation="getEventType", answer=EventTypeAnswer),
        )

    async def page(self, request: web.Request, _: ApiKey) -> web.Response:
        """List the event types of the catalogue, by name."""
        cursor, limit = read_page(request)
        types = self._catalogue.types
        names = sorted(types if cursor is None else (name for name in types if name > cursor))
        data = [event_type_answer(types[name]) for name in names[:limit]]
        return json_answer(EventTypesAnswer(data=data, next_cursor=names[limit - 1] if len(names) > limit else None))

    async def get(self, request: web.Request, _: ApiKey) -> web.Response:
        """Show an event type: title, description, JSON Schema of its data, and a sample."""
        entry = self._catalogue.get(request.match_info["type"])
        if entry is None:
            raise NotFoundError("the event catalogue has no such type; GET /v1/event-types lists those it has")
        return json_answer(event_type_answer(entry))
