"""The API's document: OpenAPI 3.1, built from the table of calls and the models that validate and answer.

Source: OpenAPI Specification 3.1.1; JSON Schema 2020-12; RFC 9457 (problem details).
"""

import re
from collections.abc import Iterable
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from dispatcher.api.answers import Problem
from dispatcher.api.examples import EXAMPLES, PROBLEM
from dispatcher.api.idempotency import IDEMPOTENCY_KEY_HEADER, KEY_PATTERN, REPLAYED_HEADER
from dispatcher.api.links import LINKS
from dispatcher.api.problems import PROBLEM_JSON
from dispatcher.api.request_ids import REQUEST_ID_HEADER
from dispatcher.api.routes import Parameter, Route
from dispatcher.operations.test_events import EventTestInput

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"

_SCHEMAS = "#/components/schemas/"
_MAX_ID_LENGTH = 256

_DESCRIPTION = """\
Register endpoints and see what was delivered to them.

Send an API key with each request: `Authorization: Bearer <api key>`. A key sees one workspace; what is in another is \
answered with 404. Times are RFC 3339, ids are text.

Listings are newest first; pass `next_cursor` back as `cursor`, with the same filters, until it is null. Unknown \
parameters and fields are refused, so that a misspelled one doesn't go unnoticed.

A POST with an `Idempotency-Key` can be sent again after a broken connection: it is done once. Make a new key for \
each new request. A change with `If-Match` is made only to the version that you read.

A problem (`application/problem+json`) says what to do in `detail`, and names every wrong field in `errors`. \
Requests over a limit of the API key or of its workspace, and those that come while the database is away, get \
`Retry-After`. A path that isn't \
here gets 404, a method that a path doesn't take 405 with `Allow`, an `Expect` other than `100-continue` 417.

Every answer has `X-Request-Id`: the one you sent, or one made here. It stands in the service's log."""

_PROBLEMS = {
    400: "The body is no valid JSON, or a header or the request itself is malformed.",
    401: "There is no API key, or it is unknown, revoked or expired.",
    403: "The API key lacks the scope.",
    404: "There is nothing of this id in this workspace.",
    408: "The body took too long.",
    409: "Its present state is in the way (`detail` names it: also that the workspace has as many as it may), or the "
    "same request is being done at this moment.",
    410: "The event is no longer kept on its topic, so it can't be sent again.",
    412: "It is not in the version that If-Match names.",
    413: "The body is too large.",
    415: "The body's media type is another than JSON.",
    417: "`Expect` asks for more than `100-continue`.",
    422: "Fields or parameters are wrong; `errors` names each of them.",
    429: "Too many requests, test events or counts of this key or workspace (`detail` says which); `Retry-After` says "
    "when to come back.",
    500: "A fault of the service; tell its operator the `request_id`.",
    503: "The database is out of reach; `Retry-After` says when to come back.",
}
_CHALLENGED = (401, 403)
_LATER = (429, 503)

_HEADERS: dict[str, Any] = {
    "RequestId": {
        "description": "The request's id: the caller's, or one made here.",
        "required": True,
        "schema": {"type": "string"},
    },
    "ETag": {
        "description": "The version of the webhook; send it back in If-Match.",
        "required": True,
        "schema": {"type": "string"},
    },
    "Location": {"description": "Where what was made is.", "required": True, "schema": {"type": "string"}},
    "RetryAfter": {
        "description": "Seconds to wait.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    },
    "Challenge": {
        "description": "How to authenticate, as RFC 6750 has it.",
        "required": True,
        "schema": {"type": "string"},
    },
    "RetryShortly": {
        "description": "Seconds to wait, where waiting helps.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "Accept": {"description": "The media type to send.", "schema": {"type": "string"}},
    "Replayed": {
        "description": "`true` where this is the kept answer to an earlier request of the same Idempotency-Key.",
        "schema": {"const": "true"},
    },
}
_IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "description": "Only if the webhook is still in this version: the ETag of an answer, or `*` for any. A list of "
    "tags stands for any of them; weak ones, and what is no tag, never match.",
    "schema": {"type": "string"},
    "examples": {"any": {"value": "*"}, "a version": {"value": '"3"'}},
}
_IDEMPOTENCY_KEY = {
    "name": IDEMPOTENCY_KEY_HEADER,
    "in": "header",
    "description": "A value of your own, such as a UUID: the same request with the same key is done once, and gets the "
    "same answer for 24 hours. With another body it is refused.",
    "schema": {"type": "string", "pattern": KEY_PATTERN},
    "example": "8e03978e-40d5-43e8-bc93-6894a57f9324",
}


class _Schemas(GenerateJsonSchema):
    """Leaves out titles that repeat the names of fields, and defaults that only say that a field may be left out."""

    def field_title_should_be_set(self, _: Any) -> bool:
        return False

    def default_schema(self, schema: Any) -> Any:
        made = super().default_schema(schema)
        if made.get("default", ...) in (None, "", []):
            made.pop("default", None)
        return made


def make_document(routes: Iterable[Route], event_types: Iterable[str] = ()) -> dict[str, Any]:
    """Make the document of these calls; the same calls and types give the same document.

    Args:
        routes: The calls.
        event_types: What the event catalogue knows: a test event is of one of them.
    """
    routes = tuple(routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Webhooks API", "version": _version(), "description": _DESCRIPTION},
        "servers": [{"url": "/v1"}],
        "security": [{"apiKey": []}],
        "tags": [{"name": name} for name in dict.fromkeys(_tag(route) for route in routes)],
        "paths": paths,
        "components": {
            "schemas": _with_event_types(_schemas(routes), sorted(event_types)),
            "headers": _HEADERS,
            "responses": {f"Problem{status}": _problem(status) for status in _PROBLEMS},
            "parameters": {"IfMatch": _IF_MATCH, "IdempotencyKey": _IDEMPOTENCY_KEY},
            "securitySchemes": {
                "apiKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key, `whk_…`; made with `dispatcher api-keys create` or POST /api-keys.",
                }
            },
        },
    }


def _described(route: Route) -> str:
    """Return what the handler's docstring says after its summary, and the scope."""
    _, _, more = (route.handler.__doc__ or "").partition("\n\n")
    return f"{' '.join(more.split())} Needs the scope `{route.scope}`.".strip()


def _operation(route: Route) -> dict[str, Any]:
    summary = " ".join((route.handler.__doc__ or "").split("\n\n")[0].split()).removesuffix(".")
    operation: dict[str, Any] = {
        "operationId": route.operation or _named(route),
        "summary": summary,
        "description": _described(route),
        "tags": [_tag(route)],
    }
    if parameters := _parameters(route):
        operation["parameters"] = parameters
    if route.body is not None:
        schema = {"$ref": _SCHEMAS + route.body.__name__}
        types = (JSON, MERGE_PATCH) if route.method == "PATCH" else (JSON,)
        operation["requestBody"] = {
            "required": not route.body_optional,
            "content": {media_type: {"schema": schema} for media_type in types},
        }
    operation["responses"] = {
        str(route.status): _success(route),
        **{str(status): {"$ref": f"#/components/responses/Problem{status}"} for status in _statuses(route)},
    }
    return operation


def _parameters(route: Route) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "minLength": 1, "maxLength": _MAX_ID_LENGTH},
        }
        for name in re.findall(r"\{(\w+)\}", route.path)
    ]
    parameters += [_query_parameter(parameter) for parameter in route.query]
    if route.if_match:
        parameters.append({"$ref": "#/components/parameters/IfMatch"})
    if route.method == "POST":
        parameters.append({"$ref": "#/components/parameters/IdempotencyKey"})
    return parameters


def _query_parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": "query",
        "description": parameter.description,
        "schema": dict(parameter.schema),
    }


def _success(route: Route) -> dict[str, Any]:
    headers = [(REQUEST_ID_HEADER, "RequestId")]
    if route.etag:
        headers.append(("ETag", "ETag"))
    if route.location:
        headers.append(("Location", "Location"))
    if route.method == "POST":
        headers.append((REPLAYED_HEADER, "Replayed"))
    response: dict[str, Any] = {
        "description": "Done." if route.answer is None else _first_line(route.answer),
        "headers": {name: {"$ref": f"#/components/headers/{component}"} for name, component in headers},
    }
    if route.answer is not None:
        name = route.answer.__name__
        response["content"] = {JSON: {"schema": {"$ref": _SCHEMAS + name}, "example": EXAMPLES[name]}}
    if route.operation in LINKS:
        response["links"] = LINKS[route.operation]
    return response


def _problem(status: int) -> dict[str, Any]:
    headers = {REQUEST_ID_HEADER: {"$ref": "#/components/headers/RequestId"}}
    if status in _LATER:
        headers["Retry-After"] = {"$ref": "#/components/headers/RetryAfter"}
    if status in _CHALLENGED:
        headers["WWW-Authenticate"] = {"$ref": "#/components/headers/Challenge"}
    if status == HTTPStatus.CONFLICT:
        headers["Retry-After"] = {"$ref": "#/components/headers/RetryShortly"}
    if status == HTTPStatus.UNSUPPORTED_MEDIA_TYPE:
        headers["Accept"] = {"$ref": "#/components/headers/Accept"}
    content: dict[str, Any] = {"schema": {"$ref": _SCHEMAS + "Problem"}}
    if status == PROBLEM["status"]:
        content["example"] = PROBLEM
    return {"description": _PROBLEMS[status], "headers": headers, "content": {PROBLEM_JSON: content}}


def _statuses(route: Route) -> list[int]:
    # 400: a request that is malformed as such; 422: parameters that no call takes.
    statuses = {400, 401, 403, 417, 422, 429, 500, 503, *route.problems}
    if "{" in route.path:
        statuses.add(404)
    if route.body is not None:
        statuses |= {408, 413, 415}
    if route.method == "POST":
        statuses |= {408, 409, 413}
    if route.if_match:
        statuses |= {409, 412}
    return sorted(statuses)


def _schemas(routes: Iterable[Route]) -> dict[str, Any]:
    bodies = dict.fromkeys(route.body for route in routes if route.body is not None)
    answers = dict.fromkeys(route.answer for route in routes if route.answer is not None)
    wanted: list[tuple[type[BaseModel], Any]] = [
        *((model, "validation") for model in bodies),
        *((model, "serialization") for model in answers),
        (Problem, "serialization"),
    ]
    _, schema = models_json_schema(wanted, ref_template=_SCHEMAS + "{model}", schema_generator=_Schemas)
    return dict(sorted(schema["$defs"].items()))


def _with_event_types(schemas: dict[str, Any], event_types: list[str]) -> dict[str, Any]:
    """Say which types a test event can be of."""
    wanted = schemas.get(EventTestInput.__name__)
    if wanted is not None and event_types:
        text, *others = wanted["properties"]["type"]["anyOf"]
        wanted["examples"] = [{"type": event_types[0]}]
        wanted["properties"]["type"]["anyOf"] = [{**text, "enum": event_types}, *others]
    return schemas


def _tag(route: Route) -> str:
    return route.path.split("/")[1].replace("-", " ").capitalize()


def _named(route: Route) -> str:
    words = re.findall(r"[A-Za-z]+", route.path)
    return route.method.lower() + "".join(word.capitalize() for word in words)


def _first_line(model: type[BaseModel]) -> str:
    return (model.__doc__ or model.__name__).split("\n")[0]


def _version() -> str:
    try:
        return version("webhook-dispatcher")
    except PackageNotFoundError:
        return "0"
