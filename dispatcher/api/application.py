"""Put the API together."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiohttp import web

from dispatcher.api.authentication import secured
from dispatcher.api.problems import answer_problems
from dispatcher.api.request_ids import add_request_id
from dispatcher.api.routes import DeliveryCalls, WebhookCalls
from dispatcher.operations.api_keys import ApiKeys
from dispatcher.operations.deliveries import Deliveries
from dispatcher.operations.webhooks import Webhooks

FLUSH_SECONDS = 10
"""How often it is written down which keys were used."""


def make_v1(*, webhooks: Webhooks, deliveries: Deliveries, keys: ApiKeys) -> web.Application:
    """Make version 1 of the API, to be mounted under `/v1` of another application.

    While it runs, it writes down every `FLUSH_SECONDS` which keys were used.
    """
    app = web.Application(middlewares=[add_request_id, answer_problems])
    for route in (*WebhookCalls(webhooks).routes(), *DeliveryCalls(deliveries).routes()):
        app.router.add_route(route.method, route.path, secured(keys, route.scope, route.handler))

    async def note_used_keys(_: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(_flush_for_ever(keys))
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await keys.flush_last_used()

    app.cleanup_ctx.append(note_used_keys)
    return app


def make_api(*, webhooks: Webhooks, deliveries: Deliveries, keys: ApiKeys) -> web.Application:
    """Make an application that serves the API under `/v1`, and problem details everywhere else."""
    app = web.Application(middlewares=[add_request_id, answer_problems])
    app.add_subapp("/v1", make_v1(webhooks=webhooks, deliveries=deliveries, keys=keys))
    return app


async def _flush_for_ever(keys: ApiKeys) -> None:
    while True:
        await asyncio.sleep(FLUSH_SECONDS)
        await keys.flush_last_used()
