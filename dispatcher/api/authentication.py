"""Who calls, and whether the key allows it.

Source: RFC 6750 section 2.1 (bearer tokens).
"""

from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Handler

from dispatcher.core.errors import UnauthorizedError
from dispatcher.operations.api_keys import ApiKeys, allows
from dispatcher.ports import ApiKey

AuthenticatedHandler = Callable[[web.Request, ApiKey], Awaitable[web.StreamResponse]]
"""Serves a request of a caller who is known, in the workspace of the caller's key."""


def secured(keys: ApiKeys, scope: str, handler: AuthenticatedHandler) -> Handler:
    """Let a handler see only requests whose API key has a scope.

    The handler is called with the request and the key. Other requests end in `UnauthorizedError`, before a byte
    of their body is read.
    """

    async def serve(request: web.Request) -> web.StreamResponse:
        key = await keys.authenticate(_bearer(request))
        if not allows(key, scope):
            raise UnauthorizedError(f"this API key lacks the scope {scope}; use one that has it", forbidden=True)
        return await handler(request, key)

    return serve


def _bearer(request: web.Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise UnauthorizedError("send an API key in the header Authorization: Bearer <api key>")
    return token.strip()
