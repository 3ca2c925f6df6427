"""Read a request's JSON object, strictly and within bounds.

Source: RFC 8259; RFC 7493 (I-JSON) for duplicate names, lone surrogates and numbers beyond a double.
"""

import asyncio
import json
from typing import Any

import orjson
from aiohttp import web
from aiohttp.web_exceptions import HTTPException
from aiohttp.web_protocol import RequestPayloadError

from dispatcher.api.problems import ProblemError
from dispatcher.core.errors import InvalidInputError
from dispatcher.operations.wrong_fields import shown_path

MAX_BODY_BYTES = 64 * 1024
READ_TIMEOUT_SECONDS = 20

_BODY = web.RequestKey("body", bytes)
_MEDIA_TYPES = ("application/json", "application/merge-patch+json")


class _DuplicateError(ValueError):
    """A name comes twice in one object."""


async def read_object(request: web.Request) -> dict[str, Any]:
    """Read the body as one JSON object.

    Raises:
        ProblemError: 400 malformed, 408 too slow, 413 too large, 415 another media type.
        InvalidInputError: It is JSON and no object, or has a name twice.
    """
    if request.content_type not in _MEDIA_TYPES:
        raise ProblemError(
            415, "send the body as JSON, with Content-Type: application/json", {"Accept": _MEDIA_TYPES[0]}
        )
    if (request.charset or "utf-8").lower() not in ("utf-8", "utf8"):
        raise ProblemError(415, "send the body in UTF-8")
    return parse_object(await read_body(request))


async def read_optional_object(request: web.Request) -> dict[str, Any]:
    """Read the body as one JSON object; no body at all stands for an empty one. Raises what `read_object` does."""
    return await read_object(request) if await read_body(request) else {}


def parse_object(body: bytes) -> dict[str, Any]:
    """Parse one JSON object.

    Raises:
        ProblemError: 400, it is malformed.
        InvalidInputError: It is JSON and no object, or has a name twice.
    """
    try:
        # The first refuses what is no JSON in the strict sense, the second keeps digits and sees duplicates.
        orjson.loads(body)
        value = json.loads(body, object_pairs_hook=_unique)
    except _DuplicateError as error:
        raise InvalidInputError({str(error): "comes twice in one object; send it once"}) from None
    except RecursionError:
        raise ProblemError(400, "the body is nested too deeply; no field here takes more than two levels") from None
    except ValueError as error:
        # orjson's text names the place and never quotes the body.
        raise ProblemError(400, f"the body is no valid JSON ({error}); send one JSON object") from None
    if not isinstance(value, dict):
        raise InvalidInputError({"": 'the body must be a JSON object, such as {"url": …}'})
    return value


async def read_body(request: web.Request) -> bytes:
    """Read the body to its end, within bounds of size and time; a second call returns the same bytes.

    Raises:
        ProblemError: 400 broken transfer, 408 too slow, 413 too large.
    """
    known = request.get(_BODY)
    if known is None:
        known = request[_BODY] = await _read(request)
    return known


async def _read(request: web.Request) -> bytes:
    too_large = ProblemError(413, f"the body is larger than {MAX_BODY_BYTES} bytes; send less")
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(READ_TIMEOUT_SECONDS):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise too_large
    except TimeoutError:
        raise ProblemError(408, f"the body took longer than {READ_TIMEOUT_SECONDS} seconds; send it again") from None
    except (RequestPayloadError, HTTPException, ConnectionError):
        raise ProblemError(400, "the body's transfer or content coding is broken; send it again") from None
    return bytes(body)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _DuplicateError(shown_path([name]))
            seen.add(name)
    return value
