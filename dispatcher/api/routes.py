"""What a call is: where it is, who may make it, who serves it, and what the API's document says of it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from pydantic import BaseModel

from dispatcher.ports import ApiKey

AuthenticatedHandler = Callable[[web.Request, ApiKey], Awaitable[web.StreamResponse]]
"""Serves a request of a caller who is known, in the workspace of the caller's key. Its docstring is its summary."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a query string.

    Attributes:
        name: As callers write it.
        description: What it does, in a line.
        schema: Its JSON Schema.
    """

    name: str
    description: str
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Route:
    """One call.

    Attributes:
        method: HTTP method.
        path: Under the version's prefix; `{name}` stands for one segment.
        scope: What its caller's key must have.
        handler: Serves it.
        operation: Its name in the document, `createWebhook`; empty: made of method and path.
        body: The model that its JSON body is checked by; None where it takes none.
        body_optional: Whether the body may be left out.
        answer: The model of a successful answer's JSON; None where it has no body.
        status: Status of a successful answer.
        query: Parameters of the query string.
        etag: Whether a successful answer carries an ETag.
        location: Whether a successful answer carries a Location.
        if_match: Whether it honours If-Match.
        problems: Statuses of problems that the rest doesn't tell of.
    """

    method: str
    path: str
    scope: str
    handler: AuthenticatedHandler
    operation: str = ""
    body: type[BaseModel] | None = None
    body_optional: bool = False
    answer: type[BaseModel] | None = None
    status: int = 200
    query: tuple[Parameter, ...] = ()
    etag: bool = False
    location: bool = False
    if_match: bool = False
    problems: tuple[int, ...] = ()
