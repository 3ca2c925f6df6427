"""Each request has an id: the caller's, where it is a plain one, else one made here; the log shows it on each line."""

import asyncio
import re
import secrets

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

REQUEST_ID_HEADER = "X-Request-Id"

_ID = web.RequestKey("id", str)
_CALLER = web.RequestKey("caller", str)
_FAILED = 400
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_ANYBODYS = frozenset({401, 429})
"""What callers without a key, or in a hurry, can make as many of as they like."""
_MAX_SHOWN_PATH = 256
_HEADERS = {"Server": "dispatcher", "X-Content-Type-Options": "nosniff"}
_log = structlog.get_logger(__name__)
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
    """Send the request's id with every answer, and put it on the lines that are logged meanwhile."""
    with structlog.contextvars.bound_contextvars(request_id=request_id_of(request)):
        response = await handler(request)
    response.headers[REQUEST_ID_HEADER] = request_id_of(request)
    for name, value in _HEADERS.items():
        response.headers[name] = value
    return response


def note_caller(request: web.BaseRequest, key_id: str) -> None:
    """Remember whose request this is, for its line in the log."""
    request[_CALLER] = key_id


@web.middleware
async def log_request(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Write a line about each request: at level info where it changed something or failed, else at debug.

    The query string stays out of it: it may hold what its sender took for harmless.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    response = await handler(request)
    line = {
        "method": request.method,
        "path": request.path[:_MAX_SHOWN_PATH],
        "status": response.status,
        "duration_ms": round((loop.time() - began) * 1000, 1),
        "api_key": request.get(_CALLER),
    }
    read = request.method in _READING and response.status < _FAILED
    write = _log.debug if read or response.status in _ANYBODYS else _log.info
    write("request", **line)
    return response
