"""The calls: read what was sent, ask the operation, show what it returns."""

from dataclasses import dataclass

from aiohttp import web

from dispatcher.api.answers import (
    DeliveryPageAnswer,
    WebhookPageAnswer,
    changed_webhook_answer,
    created_webhook_answer,
    delivery_answer,
    delivery_detail_answer,
    json_answer,
    webhook_answer,
)
from dispatcher.api.authentication import AuthenticatedHandler
from dispatcher.api.bodies import read_object
from dispatcher.api.queries import read_paging, read_query
from dispatcher.operations.deliveries import FILTERS, Deliveries, read_filter
from dispatcher.operations.webhooks import Webhooks
from dispatcher.ports import ApiKey


@dataclass(frozen=True, slots=True)
class Route:
    """One call: method, path under the version's prefix, and the scope that its caller's key must have."""

    method: str
    path: str
    scope: str
    handler: AuthenticatedHandler


class WebhookCalls:
    """The calls about webhooks themselves."""

    def __init__(self, webhooks: Webhooks) -> None:
        self._webhooks = webhooks

    def routes(self) -> tuple[Route, ...]:
        """List the calls."""
        return (
            Route("POST", "/webhooks", "write", self.create),
            Route("GET", "/webhooks", "read", self.page),
            Route("GET", "/webhooks/{id}", "read", self.get),
            Route("PATCH", "/webhooks/{id}", "write", self.update),
            Route("DELETE", "/webhooks/{id}", "write", self.delete),
        )

    async def create(self, request: web.Request, caller: ApiKey) -> web.Response:
        """Create a webhook; the answer is the only one that shows its secret."""
        created = await self._webhooks.create(caller.workspace_id, await read_object(request))
        location = f"{request.path}/{created.webhook.subscription.id}"
        return json_answer(created_webhook_answer(created), status=201, location=location)

    async def page(self, request: web.Request, caller: ApiKey) -> web.Response:
        """List webhooks, newest first."""
        cursor, limit = read_paging(read_query(request))
        page = await self._webhooks.page(caller.workspace_id, cursor, limit)
        data = [webhook_answer(webhook) for webhook in page.rows]
        return json_answer(WebhookPageAnswer(data=data, next_cursor=page.next_cursor))

    async def get(self, request: web.Request, caller: ApiKey) -> web.Response:
        """Show a webhook."""
        return json_answer(webhook_answer(await self._webhooks.get(caller.workspace_id, request.match_info["id"])))

    async def update(self, request: web.Request, caller: ApiKey) -> web.Response:
        """Change the fields that were sent."""
        sent = await read_object(request)
        changed = await self._webhooks.update(caller.workspace_id, request.match_info["id"], sent)
        return json_answer(changed_webhook_answer(changed.webhook, changed.warnings))

    async def delete(self, request: web.Request, caller: ApiKey) -> web.Response:
        """Delete a webhook."""
        await self._webhooks.delete(caller.workspace_id, request.match_info["id"])
        return web.Response(status=204)


class DeliveryCalls:
    """The calls about a webhook's deliveries."""

    def __init__(self, deliveries: Deliveries) -> None:
        self._deliveries = deliveries

    def routes(self) -> tuple[Route, ...]:
        """List the calls."""
        return (
            Route("GET", "/webhooks/{id}/deliveries", "read", self.page),
            Route("GET", "/webhooks/{id}/deliveries/{delivery_id}", "read", self.get),
        )

    async def page(self, request: web.Request, caller: ApiKey) -> web.Response:
        """List a webhook's deliveries, newest first."""
        query = read_query(request, FILTERS)
        cursor, limit = read_paging(query)
        page = await self._deliveries.page(
            caller.workspace_id, request.match_info["id"], read_filter(query), cursor, limit
        )
        data = [delivery_answer(delivery) for delivery in page.rows]
        return json_answer(DeliveryPageAnswer(data=data, next_cursor=page.next_cursor))

    async def get(self, request: web.Request, caller: ApiKey) -> web.Response:
        """Show a delivery with its attempts."""
        matched = request.match_info
        delivery = await self._deliveries.get(caller.workspace_id, matched["id"], matched["delivery_id"])
        return json_answer(delivery_detail_answer(delivery))
