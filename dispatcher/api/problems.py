"""Errors as problem details, and the middleware that turns every error into one.

Source: RFC 9457 (problem details), RFC 6750 section 3 (WWW-Authenticate), RFC 9110 section 10.2.3 (Retry-After).
"""

import traceback
from collections.abc import Mapping
from http import HTTPStatus

import structlog
from aiohttp import HttpVersion11, web
from aiohttp.typedefs import Handler

from dispatcher.api.answers import FieldProblem, Problem
from dispatcher.api.request_ids import REQUEST_ID_HEADER, request_id_of
from dispatcher.core.errors import (
    ChangedError,
    ConflictError,
    DispatcherError,
    GoneError,
    InvalidInputError,
    NotFoundError,
    TooManyRequestsError,
    UnauthorizedError,
    UnavailableError,
)

PROBLEM_JSON = "application/problem+json"
RETRY_AFTER_SECONDS = 5

_log = structlog.get_logger(__name__)

_ADVICE = {
    404: "there is nothing at this path; every call starts with /v1, such as GET /v1/webhooks",
    405: "this path doesn't take that method; the Allow header lists those it takes",
}


class ProblemError(Exception):
    """A request that can't be served as it is; for what only HTTP knows, such as a media type.

    Args:
        status: 4xx or 5xx.
        detail: What is wrong and what to do.
        headers: Further headers of the answer.
    """

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        super().__init__(detail)


def problem(
    request: web.BaseRequest,
    status: int,
    detail: str,
    *,
    fields: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """Make the answer that says what is wrong.

    Args:
        request: What is answered; its id goes along.
        status: 4xx or 5xx.
        detail: What is wrong and what to do.
        fields: Wrong fields: path to what is wrong with it.
        headers: Further headers.
    """
    errors = None if fields is None else [FieldProblem(field=name, problem=words) for name, words in fields.items()]
    body = Problem(
        type="about:blank",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        request_id=request_id_of(request),
        errors=errors,
    )
    return web.Response(
        status=status,
        body=body.model_dump_json(exclude_none=True).encode("utf-8"),
        headers={"Content-Type": PROBLEM_JSON, "Cache-Control": "no-store", **(headers or {})},
    )


@web.middleware
async def answer_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every error with problem details; what nobody foresaw is logged and told apart by the request id only."""
    try:
        return await handler(request)
    except DispatcherError as error:
        return _of_error(request, error)
    except ProblemError as error:
        return problem(request, error.status, error.detail, headers=error.headers)
    except web.HTTPException as error:
        return _of_http(request, error)
    except Exception as error:  # noqa: BLE001 - the last line: whoever called gets an answer, the log the cause
        return _unforeseen(request, error)


async def refuse_expectation(request: web.Request) -> web.StreamResponse | None:
    """Tell a caller to go on who waits for that before sending a body, and refuse what else is expected.

    Source: RFC 9110 section 10.1.1 (Expect).
    """
    if request.version < HttpVersion11:
        return None
    if request.headers.get("Expect", "").lower() != "100-continue":
        # No middleware sees this answer.
        headers = {REQUEST_ID_HEADER: request_id_of(request)}
        return problem(request, 417, "only Expect: 100-continue is understood; leave the header out", headers=headers)
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0  # the answer itself has not begun
    return None


def _of_error(request: web.Request, error: DispatcherError) -> web.Response:  # noqa: PLR0911 - one for each kind
    match error:
        case InvalidInputError():
            count = len(error.fields)
            detail = "1 field is wrong" if count == 1 else f"{count} fields are wrong"
            return problem(request, 422, f"{detail}; errors says what to send instead", fields=error.fields)
        case UnauthorizedError():
            return _unauthorized(request, error)
        case NotFoundError():
            return problem(request, 404, str(error))
        case GoneError():
            return problem(request, 410, str(error))
        case ChangedError():
            return problem(request, 412, str(error))
        case ConflictError():
            return problem(request, 409, str(error))
        case TooManyRequestsError():
            return problem(request, 429, str(error), headers={"Retry-After": str(error.retry_after_seconds)})
        case UnavailableError():
            _log.warning("unavailable", error=str(error))
            return problem(
                request,
                503,
                error.shown
                or f"the service can't reach its database; send the request again in {RETRY_AFTER_SECONDS} seconds",
                headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
            )
    return _unforeseen(request, error)


def _unauthorized(request: web.Request, error: UnauthorizedError) -> web.Response:
    challenge = 'Bearer realm="webhooks"'
    if error.forbidden:
        challenge += ', error="insufficient_scope"'
    elif "Authorization" in request.headers:
        challenge += ', error="invalid_token"'
    status = 403 if error.forbidden else 401
    return problem(request, status, str(error), headers={"WWW-Authenticate": challenge})


def _of_http(request: web.Request, error: web.HTTPException) -> web.StreamResponse:
    if error.status < HTTPStatus.BAD_REQUEST:
        raise error
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
    return problem(request, error.status, _ADVICE.get(error.status, error.reason), headers=headers)


def _unforeseen(request: web.Request, error: Exception) -> web.Response:
    # As text: a renderer given the exception itself may show local variables, and those hold secrets.
    trace = "".join(traceback.format_exception(error))
    _log.error("request failed", method=request.method, traceback=trace)
    return problem(
        request, 500, "this is a fault of the service; tell its operator the request_id, and send the request again"
    )
