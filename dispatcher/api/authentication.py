"""Who calls, and whether the key allows it.

Source: RFC 6750 section 2.1 (bearer tokens).
"""

from aiohttp import web
from aiohttp.typedefs import Handler

from dispatcher.api.request_ids import note_caller
from dispatcher.api.routes import AuthenticatedHandler
from dispatcher.core.errors import UnauthorizedError
from dispatcher.operations.api_keys import ApiKeys, allows
from dispatcher.operations.authentication import identify
from dispatcher.operations.rate_limits import RateLimits


def secured(keys: ApiKeys, limits: RateLimits, scope: str, handler: AuthenticatedHandler) -> Handler:
    """Let a handler see only requests whose API key has a scope, at a rate that is allowed.

    The handler is called with the request and the key. Other requests end in `UnauthorizedError` or a problem,
    before a byte of their body is read.
    """

    async def serve(request: web.Request) -> web.StreamResponse:
        key = await identify(keys, limits, _bearer(request), request.remote or "")
        note_caller(request, key.id)
        limits.take_request(key)
        if not allows(key, scope):
            raise UnauthorizedError(f"this API key lacks the scope {scope}; use one that has it", forbidden=True)
        return await handler(request, key)

    return serve


def _bearer(request: web.Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise UnauthorizedError("send an API key in the header Authorization: Bearer <api key>")
    return token.strip()
