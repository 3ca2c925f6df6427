"""The REST API as a process of its own, and as a part of `dispatcher run`."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import structlog
import uvloop
from aiohttp import web

from dispatcher.api.application import make_api
from dispatcher.api.health import make_operations_app
from dispatcher.app.clock import SystemClock, draw
from dispatcher.app.connections import mongo_connection
from dispatcher.app.logging import configure
from dispatcher.app.resolve import resolve_settings
from dispatcher.app.serving import Listener, listen
from dispatcher.app.supervisor import call_on_signals
from dispatcher.config import Need
from dispatcher.core.addresses import AddressPolicy
from dispatcher.core.errors import UnavailableError
from dispatcher.core.sealing import Keyring
from dispatcher.metrics import Metrics
from dispatcher.mongo.api_keys import MongoApiKeys
from dispatcher.mongo.client import Connection
from dispatcher.mongo.delivery_pages import MongoDeliveryPages
from dispatcher.mongo.webhooks import MongoWebhooks
from dispatcher.operations.api_keys import ApiKeys
from dispatcher.operations.deliveries import Deliveries
from dispatcher.operations.webhooks import Webhooks
from dispatcher.settings import Settings

log = structlog.get_logger(__name__)


def build_api(settings: Settings, connection: Connection) -> web.Application:
    """Build the REST API over a MongoDB connection."""
    clock = SystemClock()
    send = settings.send
    store = MongoWebhooks(connection.webhooks)
    webhooks = Webhooks(
        store,
        clock,
        AddressPolicy(send.allow_http, send.allowed_networks, send.allowed_ports),
        Keyring(settings.encryption_keys),
        draw,
    )
    return make_api(
        webhooks=webhooks,
        deliveries=Deliveries(MongoDeliveryPages(connection.deliveries), store),
        keys=ApiKeys(MongoApiKeys(connection.api_keys), clock, draw),
    )


async def mongo_readiness(connection: Connection) -> Mapping[str, str | None]:
    """Say whether MongoDB answers."""
    try:
        await connection.ping()
    except UnavailableError as error:
        return {"mongo": str(error)}
    return {"mongo": None}


@asynccontextmanager
async def serve_api(settings: Settings) -> AsyncIterator[int]:
    """Serve API and metrics page for the time of the `async with`.

    Yields:
        The API's port.
    """
    metrics = Metrics()
    server = settings.server
    async with mongo_connection(settings) as connection:

        async def page() -> bytes:
            return metrics.page()

        operations = make_operations_app(lambda: True, lambda: mongo_readiness(connection), page)
        async with (
            listen(operations, Listener(server.metrics_host, server.metrics_port)) as metrics_port,
            listen(build_api(settings, connection), Listener(server.api_host, server.api_port)) as port,
        ):
            log.info("API started", api=f"http://{server.api_host}:{port}/v1", metrics_port=metrics_port)
            yield port


def main(*, local: bool) -> int:
    """Run the API until SIGTERM or SIGINT.

    Args:
        local: Local defaults hold.

    Returns:
        The exit code.
    """
    settings = resolve_settings((Need.MONGO, Need.ENCRYPTION_KEYS), run_local=local)
    configure(settings.log)

    async def serve() -> None:
        stopped = asyncio.Event()
        call_on_signals(stopped.set)
        async with serve_api(settings):
            await stopped.wait()

    uvloop.run(serve())
    return 0
