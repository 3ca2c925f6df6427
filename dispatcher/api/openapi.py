"""The API's document: OpenAPI 3.1, built from the table of calls and the models that validate and answer.

Source: OpenAPI Specification 3.1.1; JSON Schema 2020-12; RFC 9457 (problem details).
"""

import re
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from dispatcher.api.answers import Problem
from dispatcher.api.idempotency import IDEMPOTENCY_KEY_HEADER, KEY_PATTERN, REPLAYED_HEADER
from dispatcher.api.problems import PROBLEM_JSON
from dispatcher.api.request_ids import REQUEST_ID_HEADER
from dispatcher.api.routes import Parameter, Route

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"

_SCHEMAS = "#/components/schemas/"
_MAX_ID_LENGTH = 256

_DESCRIPTION = """\
Register endpoints and see what was delivered to them.

Send an API key with each request: `Authorization: Bearer <api key>`. A key sees one workspace; what is in another is \
answered with 404. Listings are newest first; pass `next_cursor` back as `cursor` until it is null. Times are RFC 3339.

A problem (`application/problem+json`) says what to do in `detail`, and names every wrong field in `errors`. \
Requests over the rate limit, and those that come while the database is away, get `Retry-After`."""

_PROBLEMS = {
    400: "The body is no valid JSON, or the request is malformed.",
    401: "There is no API key, or it is unknown, revoked or expired.",
    403: "The API key lacks the scope.",
    404: "There is nothing of this id in this workspace.",
    408: "The body took too long.",
    409: "Its present state is in the way, or the same request is being done at this moment.",
    410: "What it takes is kept no more.",
    412: "It is not in the version that If-Match names.",
    413: "The body is too large.",
    415: "The body's media type is another than JSON.",
    422: "Fields or parameters are wrong; `errors` names each of them.",
    429: "Too many requests; `Retry-After` says when to come back.",
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
    "Replayed": {
        "description": "`true` where this is the kept answer to an earlier request of the same Idempotency-Key.",
        "schema": {"const": "true"},
    },
}
_IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "description": "Only if the webhook is still in this version: the ETag of an answer, or `*` for any.",
    "schema": {"type": "string", "pattern": '^(\\*|"[0-9]{1,18}")$'},
    "examples": {"any": {"value": "*"}, "a version": {"value": '"3"'}},
}
_IDEMPOTENCY_KEY = {
    "name": IDEMPOTENCY_KEY_HEADER,
    "in": "header",
    "description": "A value of your own, such as a UUID: the same request with the same key is done once, and gets the "
    "same answer for 24 hours. With another body it is refused.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": KEY_PATTERN},
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


def make_document(routes: Iterable[Route]) -> dict[str, Any]:
    """Make the document of these calls; the same calls give the same document."""
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
            "schemas": _schemas(routes),
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


def _operation(route: Route) -> dict[str, Any]:
    summary = " ".join((route.handler.__doc__ or "").split("\n\n")[0].split()).removesuffix(".")
    operation: dict[str, Any] = {
        "operationId": route.operation or _named(route),
        "summary": summary,
        "description": f"Needs the scope `{route.scope}`.",
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
    headers = [("X-Request-Id", "RequestId")]
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
        response["content"] = {JSON: {"schema": {"$ref": _SCHEMAS + route.answer.__name__}}}
    return response


def _problem(status: int) -> dict[str, Any]:
    headers = {REQUEST_ID_HEADER: {"$ref": "#/components/headers/RequestId"}}
    if status in _LATER:
        headers["Retry-After"] = {"$ref": "#/components/headers/RetryAfter"}
    if status in _CHALLENGED:
        headers["WWW-Authenticate"] = {"$ref": "#/components/headers/Challenge"}
    return {
        "description": _PROBLEMS[status],
        "headers": headers,
        "content": {PROBLEM_JSON: {"schema": {"$ref": _SCHEMAS + "Problem"}}},
    }


def _statuses(route: Route) -> list[int]:
    statuses = {401, 403, 429, 500, 503, *route.problems}
    if "{" in route.path:
        statuses.add(404)
    if route.query:
        statuses.add(422)
    if route.body is not None:
        statuses |= {400, 408, 413, 415, 422}
    if route.method == "POST":
        statuses |= {400, 408, 409, 413, 422}
    if route.method in ("PATCH", "DELETE") and route.if_match:
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
