"""The calls about webhooks themselves."""

from aiohttp import web

from dispatcher.api.answers import (
    ChangedWebhookAnswer,
    CreatedWebhookAnswer,
    WebhookAnswer,
    WebhookPageAnswer,
    changed_webhook_answer,
    created_webhook_answer,
    json_answer,
    webhook_answer,
)
from dispatcher.api.bodies import read_object
from dispatcher.api.preconditions import etag_of, read_if_match
from dispatcher.api.queries import PAGING, read_page
from dispatcher.api.routes import Route
from dispatcher.operations.audit import actor_of
from dispatcher.operations.webhook_fields import NewWebhook, WebhookChange
from dispatcher.operations.webhooks import Webhooks
from dispatcher.ports import ApiKey


class WebhookCalls:
    """Create, list, show, change and delete webhooks."""

    def __init__(self, webhooks: Webhooks) -> None:
        self._webhooks = webhooks

    def routes(self) -> tuple[Route, ...]:
        """List the calls."""
        return (
            Route(
                "POST",
                "/webhooks",
                "write",
                self.create,
                operation="createWebhook",
                body=NewWebhook,
                answer=CreatedWebhookAnswer,
                status=201,
                etag=True,
                location=True,
            ),
            Route(
                "GET",
                "/webhooks",
                "read",
                self.page,
                operation="listWebhooks",
                query=PAGING,
                answer=WebhookPageAnswer,
            ),
            Route(
                "GET",
                "/webhooks/{id}",
                "read",
                self.get,
                operation="getWebhook",
                answer=WebhookAnswer,
                etag=True,
            ),
            Route(
                "PATCH",
                "/webhooks/{id}",
                "write",
                self.update,
                operation="updateWebhook",
                body=WebhookChange,
                answer=ChangedWebhookAnswer,
                etag=True,
                if_match=True,
            ),
            Route(
                "DELETE",
                "/webhooks/{id}",
                "write",
                self.delete,
                operation="deleteWebhook",
                status=204,
                if_match=True,
            ),
        )

    async def create(self, request: web.Request, caller: ApiKey) -> web.Response:
        """Create a webhook; the answer is the only one that shows its secret."""
        created = await self._webhooks.create(caller.workspace_id, await read_object(request), by=actor_of(caller))
        subscription = created.webhook.subscription
        return json_answer(
            created_webhook_answer(created),
            status=201,
            location=f"{request.path}/{subscription.id}",
            etag=etag_of(subscription.revision),
        )

    async def page(self, request: web.Request, caller: ApiKey) -> web.Response:
        """List webhooks, newest first."""
        cursor, limit = read_page(request)
        page = await self._webhooks.page(caller.workspace_id, cursor, limit)
        data = [webhook_answer(webhook) for webhook in page.rows]
        return json_answer(WebhookPageAnswer(data=data, next_cursor=page.next_cursor))

    async def get(self, request: web.Request, caller: ApiKey) -> web.Response:
        """Show a webhook."""
        webhook = await self._webhooks.get(caller.workspace_id, request.match_info["id"])
        return json_answer(webhook_answer(webhook), etag=etag_of(webhook.subscription.revision))

    async def update(self, request: web.Request, caller: ApiKey) -> web.Response:
        """Change the fields that were sent, as a JSON merge patch; null goes back to the default.

        Where it makes a webhook active again that the dispatcher had disabled, `backfill` says what it missed and how
        to have that sent. A URL with another scheme, host or port is taken only together with `api_key` (the key again,
        or null) where the webhook has one: a stored key is not sent to another address.
        """
        only = read_if_match(request)
        sent = await read_object(request)
        changed = await self._webhooks.update(
            caller.workspace_id, request.match_info["id"], sent, only=only, by=actor_of(caller)
        )
        etag = etag_of(changed.webhook.subscription.revision)
        return json_answer(changed_webhook_answer(changed, request.path), etag=etag)

    async def delete(self, request: web.Request, caller: ApiKey) -> web.Response:
        """Delete a webhook; deliveries that still wait for it are skipped."""
        only = read_if_match(request)
        await self._webhooks.delete(caller.workspace_id, request.match_info["id"], only=only, by=actor_of(caller))
        return web.Response(status=204)
