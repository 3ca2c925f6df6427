"""Each request has an id: the caller's, where it is a plain one, else one made here."""

import re
import secrets

from aiohttp import web
from aiohttp.typedefs import Handler

REQUEST_ID_HEADER = "X-Request-Id"

_ID = web.RequestKey("id", str)
_PLAIN = re.compile(r"[A-Za-z0-9._-]{1,128}")


def request_id_of(request: web.BaseRequest) -> str:
    """Return the request's id, settling it at the first call."""
    known = request.get(_ID)
    if known is None:
        given = request.headers.get(REQUEST_ID_HEADER, "")
        known = given if _PLAIN.fullmatch(given) else "req_" + secrets.token_hex(12)
        request[_ID] = known
    return known


@web.middleware
async def add_request_id(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Send the request's id with every answer."""
    response = await handler(request)
    response.headers[REQUEST_ID_HEADER] = request_id_of(request)
    return response
