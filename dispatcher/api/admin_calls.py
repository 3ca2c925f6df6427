"""The calls of a workspace's admin: its API keys, and who changed what."""

from aiohttp import web

from dispatcher.api.admin_answers import (
    ApiKeyPageAnswer,
    AuditPageAnswer,
    CreatedApiKeyAnswer,
    api_key_answer,
    audit_entry_answer,
    created_api_key_answer,
)
from dispatcher.api.answers import json_answer
from dispatcher.api.bodies import read_object
from dispatcher.api.queries import PAGING, SPAN, read_listing, read_page
from dispatcher.api.routes import Parameter, Route
from dispatcher.operations.api_key_fields import NewApiKey
from dispatcher.operations.api_keys import ApiKeys
from dispatcher.operations.audit import ACTIONS, FILTERS, MAX_ID_LENGTH, Audit, actor_of, read_audit_filter
from dispatcher.ports import ApiKey

_ACTION = Parameter("action", "only changes of this kind", {"type": "string", "enum": list(ACTIONS)})
_TARGET = Parameter(
    "target",
    "only changes of the webhook, delivery, replay or API key with this id",
    {"type": "string", "minLength": 1, "maxLength": MAX_ID_LENGTH},
)


class ApiKeyCalls:
    """Create, list and revoke the API keys of the caller's workspace."""

    def __init__(self, keys: ApiKeys) -> None:
        self._keys = keys

    def routes(self) -> tuple[Route, ...]:
        """List the calls."""
        return (
            Route(
                "GET",
                "/api-keys",
                "admin",
                self.page,
                operation="listApiKeys",
                query=PAGING,
                answer=ApiKeyPageAnswer,
            ),
            Route(
                "POST",
                "/api-keys",
                "admin",
                self.create,
                operation="createApiKey",
                body=NewApiKey,
                answer=CreatedApiKeyAnswer,
                status=201,
            ),
            Route(
                "DELETE",
                "/api-keys/{id}",
                "admin",
                self.revoke,
                operation="revokeApiKey",
                status=204,
                problems=(409,),
            ),
        )

    async def page(self, request: web.Request, caller: ApiKey) -> web.Response:
        """List the workspace's API keys without their secret part, newest first."""
        cursor, limit = read_page(request)
        page = await self._keys.page(caller.workspace_id, cursor, limit)
        data = [api_key_answer(key) for key in page.rows]
        return json_answer(ApiKeyPageAnswer(data=data, next_cursor=page.next_cursor))

    async def create(self, request: web.Request, caller: ApiKey) -> web.Response:
        """Create an API key of the caller's workspace; the answer is the only one that shows it."""
        created = await self._keys.create_from(caller.workspace_id, await read_object(request), by=actor_of(caller))
        return json_answer(created_api_key_answer(created), status=201)

    async def revoke(self, request: web.Request, caller: ApiKey) -> web.Response:
        """Revoke an API key of the workspace, not the one that calls; it is refused within a second."""
        await self._keys.revoke(caller.workspace_id, request.match_info["id"], by=actor_of(caller))
        return web.Response(status=204)


class AuditCalls:
    """Show who changed what."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit

    def routes(self) -> tuple[Route, ...]:
        """List the calls."""
        return (
            Route(
                "GET",
                "/audit-log",
                "admin",
                self.page,
                operation="listAuditLog",
                query=(_ACTION, _TARGET, *SPAN, *PAGING),
                answer=AuditPageAnswer,
            ),
        )

    async def page(self, request: web.Request, caller: ApiKey) -> web.Response:
        """List who changed what in the workspace, and when, newest first."""
        wanted, cursor, limit = read_listing(request, FILTERS, read_audit_filter)
        page = await self._audit.page(caller.workspace_id, wanted, cursor, limit)
        data = [audit_entry_answer(entry) for entry in page.rows]
        return json_answer(AuditPageAnswer(data=data, next_cursor=page.next_cursor))
