"""`Idempotency-Key`: a POST that is sent twice is done once.

Source: draft-ietf-httpapi-idempotency-key-header.
"""

import re

from aiohttp import web

from dispatcher.api.bodies import read_body
from dispatcher.api.problems import ProblemError, answer_problems
from dispatcher.api.routes import AuthenticatedHandler
from dispatcher.core.errors import InvalidInputError
from dispatcher.operations.idempotency import WAIT_SECONDS, Begun, FinalAnswer, Idempotency, OtherRequest, UnderWay
from dispatcher.ports import ApiKey

IDEMPOTENCY_KEY_HEADER = "Idempotency-Key"
REPLAYED_HEADER = "Idempotency-Replayed"
KEY_PATTERN = "^[!-~](?:[ -~]{0,253}[!-~])?$"

_KEY = re.compile(KEY_PATTERN[1:-1])
_RETRY_AFTER_SECONDS = 1
# What the same request meets again, whenever it is sent; all else may be another time's answer. Not 415: it is the
# header's fault, and a key stands for path, query and body.
_FINAL_FAILURES = frozenset({400, 404, 410, 422})


def idempotent(idempotency: Idempotency, handler: AuthenticatedHandler) -> AuthenticatedHandler:
    """Let a handler do a request with an idempotency key once.

    The same key with the same body and query gets the first one's answer, marked `Idempotency-Replayed: true`, for 24
    hours: successes, and the failures that would come again. One that comes while the first is under way waits for its
    answer. Keys of two workspaces, and of two paths, don't meet.
    """

    async def serve(request: web.Request, caller: ApiKey) -> web.StreamResponse:
        sent = request.headers.getall(IDEMPOTENCY_KEY_HEADER, ())
        if not sent:
            return await handler(request, caller)
        if len(sent) > 1 or not _KEY.fullmatch(sent[0]):
            raise InvalidInputError(
                {IDEMPOTENCY_KEY_HEADER: "send one key of 1 to 255 printable ASCII characters, such as a UUID"}
            )
        asked = request.query_string.encode("utf-8", "surrogatepass") + b"\n" + await read_body(request)
        call = f"{request.method} {request.path}"
        match await idempotency.begin_when_free(caller.workspace_id, call, sent[0], asked, wait_seconds=WAIT_SECONDS):
            case FinalAnswer() as answer:
                headers = {**answer.headers, REPLAYED_HEADER: "true"}
                return web.Response(status=answer.status, body=answer.body, headers=headers)
            case UnderWay():
                raise ProblemError(
                    409,
                    "the same request is still being done; send it again shortly for its answer",
                    {"Retry-After": str(_RETRY_AFTER_SECONDS)},
                )
            case OtherRequest():
                raise InvalidInputError(
                    {IDEMPOTENCY_KEY_HEADER: "was used with another body; send a new key with each new request"}
                )
            case Begun() as begun:
                return await _do(idempotency, begun, handler, request, caller)

    return serve


async def _do(
    idempotency: Idempotency, begun: Begun, handler: AuthenticatedHandler, request: web.Request, caller: ApiKey
) -> web.StreamResponse:
    async def handle(handled: web.Request) -> web.StreamResponse:
        return await handler(handled, caller)

    response = await answer_problems(request, handle)
    final = 200 <= response.status < 300 or response.status in _FINAL_FAILURES  # noqa: PLR2004 - success is 2xx
    if final and isinstance(response, web.Response) and isinstance(response.body, bytes | None):
        headers = {name: value for name, value in response.headers.items() if name != "Content-Length"}
        await idempotency.finish(begun, FinalAnswer(response.status, headers, response.body or b""))
    else:
        await idempotency.abandon(begun)
    return response
