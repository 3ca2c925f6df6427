"""Put the API together."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from aiohttp import web
from aiohttp.typedefs import Handler

from dispatcher.api.actions import ActionCalls
from dispatcher.api.admin_calls import ApiKeyCalls, AuditCalls
from dispatcher.api.authentication import secured
from dispatcher.api.catalogue_calls import CatalogueCalls
from dispatcher.api.dead_letters import DeadLetterCalls
from dispatcher.api.delivery_calls import DeliveryCalls
from dispatcher.api.forwarding import believe_proxies
from dispatcher.api.idempotency import idempotent
from dispatcher.api.openapi import make_document
from dispatcher.api.problems import answer_problems, refuse_expectation
from dispatcher.api.queries import refuse_query
from dispatcher.api.reference import reference_routes
from dispatcher.api.replays import ReplayCalls
from dispatcher.api.request_ids import add_request_id, log_request
from dispatcher.api.routes import AuthenticatedHandler, Route
from dispatcher.api.webhook_calls import WebhookCalls
from dispatcher.core.catalogue import Catalogue
from dispatcher.operations.api_keys import ApiKeys
from dispatcher.operations.audit import Audit
from dispatcher.operations.catalogue import load_catalogue
from dispatcher.operations.deliveries import Deliveries
from dispatcher.operations.failed_deliveries import DeadLetters
from dispatcher.operations.idempotency import Idempotency
from dispatcher.operations.rate_limits import RateLimits
from dispatcher.operations.redelivery import Redeliveries
from dispatcher.operations.replays import Replays
from dispatcher.operations.rotation import SecretRotation
from dispatcher.operations.test_events import EventTests
from dispatcher.operations.webhooks import Webhooks
from dispatcher.ports import ApiKey
from dispatcher.settings import Network

FLUSH_SECONDS = 10
"""How often it is written down which keys were used."""


@dataclass(frozen=True, slots=True)
class Operations:
    """What the calls ask."""

    webhooks: Webhooks
    deliveries: Deliveries
    keys: ApiKeys
    audit: Audit
    catalogue: Catalogue
    tests: EventTests
    rotation: SecretRotation
    redeliveries: Redeliveries
    replays: Replays
    letters: DeadLetters


def all_routes(operations: Operations) -> tuple[Route, ...]:
    """List every call of version 1, in the order of the document."""
    return (
        *WebhookCalls(operations.webhooks).routes(),
        *ActionCalls(operations.tests, operations.rotation, operations.redeliveries).routes(),
        *DeliveryCalls(operations.deliveries).routes(),
        *DeadLetterCalls(operations.letters).routes(),
        *ReplayCalls(operations.replays).routes(),
        *CatalogueCalls(operations.catalogue).routes(),
        *ApiKeyCalls(operations.keys).routes(),
        *AuditCalls(operations.audit).routes(),
    )


def describe_api() -> dict[str, Any]:
    """Return the OpenAPI document, with the event types that the package carries; nothing needs to run for it."""
    nothing = cast("Any", None)
    routes = all_routes(Operations(*(nothing for _ in Operations.__dataclass_fields__)))
    return make_document(routes, load_catalogue(None).types)


def make_v1(operations: Operations, idempotency: Idempotency, limits: RateLimits) -> web.Application:
    """Make version 1 of the API, to be mounted under `/v1` of another application.

    While it runs, it writes down every `FLUSH_SECONDS` which keys were used.
    """
    app = web.Application(middlewares=[add_request_id, log_request, answer_problems])
    routes: Sequence[Route] = all_routes(operations)
    for path, of_path in itertools.groupby(routes, lambda route: route.path):
        methods: list[str] = []
        for route in of_path:
            handler = route.handler if route.query else _without_query(route.handler)
            if route.method == "POST":
                handler = idempotent(idempotency, handler)
            served = secured(operations.keys, limits, route.scope, handler)
            taken = ("GET", "HEAD") if route.method == "GET" else (route.method,)
            for method in taken:
                app.router.add_route(method, path, served, expect_handler=refuse_expectation)
            methods += taken
        app.router.add_route("OPTIONS", path, _options((*methods, "OPTIONS")))
    app.add_routes(reference_routes(make_document(routes, operations.catalogue.types)))

    async def note_used_keys(_: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(_flush_for_ever(operations.keys))
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await operations.keys.flush_last_used()

    app.cleanup_ctx.append(note_used_keys)
    return app


def make_api(
    operations: Operations, idempotency: Idempotency, limits: RateLimits, trusted_proxies: Sequence[Network] = ()
) -> web.Application:
    """Make an application that serves the API under `/v1`, and problem details everywhere else.

    Whatever is mounted beside it sees the same client addresses: those that trusted proxies tell.
    """
    app = web.Application(middlewares=[believe_proxies(trusted_proxies), add_request_id, answer_problems])
    app.add_subapp("/v1", make_v1(operations, idempotency, limits))
    return app


def _without_query(handler: AuthenticatedHandler) -> AuthenticatedHandler:
    async def serve(request: web.Request, caller: ApiKey) -> web.StreamResponse:
        refuse_query(request)
        return await handler(request, caller)

    return serve


def _options(methods: Sequence[str]) -> Handler:
    """Say which methods a path takes; no key is needed for that.

    Source: RFC 9110 section 9.3.7.
    """

    async def serve(_: web.Request) -> web.Response:
        return web.Response(status=204, headers={"Allow": ", ".join(methods)})

    return serve


async def _flush_for_ever(keys: ApiKeys) -> None:
    while True:
        await asyncio.sleep(FLUSH_SECONDS)
        await keys.flush_last_used()
