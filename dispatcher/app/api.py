"""The REST API as a process of its own, and as a part of `dispatcher run`."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import structlog
import uvloop
from aiohttp import web

from dispatcher.api.application import Operations, make_api
from dispatcher.api.health import make_operations_app
from dispatcher.app.clock import SystemClock, draw
from dispatcher.app.connections import address_policy_of, mongo_connection, sender_of
from dispatcher.app.late_kafka import LateKafka
from dispatcher.app.logging import configure
from dispatcher.app.open_files import allow_open_files
from dispatcher.app.resolve import resolve_settings
from dispatcher.app.serving import Listener, listen
from dispatcher.app.supervisor import call_on_signals
from dispatcher.config import Need
from dispatcher.console.application import ConsoleOperations, make_console
from dispatcher.console.frame import HOME
from dispatcher.console.sessions import Sessions
from dispatcher.core.catalogue import Catalogue
from dispatcher.core.errors import UnavailableError
from dispatcher.core.sealing import Keyring
from dispatcher.core.topics import TopicNames
from dispatcher.http.sender import Sender
from dispatcher.metrics import Metrics
from dispatcher.mongo.api_keys import MongoApiKeys
from dispatcher.mongo.audit import MongoAudit
from dispatcher.mongo.client import Connection
from dispatcher.mongo.delivery_log import MongoDeliveryLog
from dispatcher.mongo.delivery_pages import MongoDeliveryPages
from dispatcher.mongo.delivery_statistics import MongoDeliveryStatistics
from dispatcher.mongo.failed_deliveries import MongoFailedDeliveries
from dispatcher.mongo.idempotency import MongoIdempotency
from dispatcher.mongo.jobs import MongoReplays
from dispatcher.mongo.webhooks import MongoWebhooks
from dispatcher.operations.api_keys import ApiKeys
from dispatcher.operations.audit import Audit
from dispatcher.operations.catalogue import load_catalogue
from dispatcher.operations.deliveries import Deliveries
from dispatcher.operations.failed_deliveries import DeadLetters
from dispatcher.operations.idempotency import Idempotency
from dispatcher.operations.inspection import Inspections
from dispatcher.operations.overview import Overviews
from dispatcher.operations.rate_limits import EventTestLimits, RateLimits, rate_limits_of
from dispatcher.operations.redelivery import Redeliveries
from dispatcher.operations.replays import Replays
from dispatcher.operations.rotation import SecretRotation
from dispatcher.operations.test_events import EventTests
from dispatcher.operations.webhooks import Webhooks
from dispatcher.settings import Settings

PING_SECONDS = 6.0
"""How long MongoDB may take to say that it is there; a driver that finds no server says so after five."""

log = structlog.get_logger(__name__)


def build_api(settings: Settings, connection: Connection, *, limits: RateLimits | None = None) -> web.Application:
    """Build the REST API and the console over a MongoDB connection, within the running loop.

    What it opens beside that (the sender of test events; Kafka, at first use) ends with the application.

    Args:
        settings: Of the whole process.
        connection: MongoDB.
        limits: Of requests; None: the usual ones.

    Raises:
        SettingsError: The event catalogue or the egress proxy is wrong.
    """
    catalogue = load_catalogue(settings.catalogue.schemas_dir)
    kafka, sender = LateKafka(settings), sender_of(settings)
    clock, keyring = SystemClock(), Keyring(settings.encryption_keys)
    operations = _operations(settings, connection, catalogue, kafka, sender)
    idempotency = Idempotency(MongoIdempotency(connection.idempotency), clock, keyring, draw)
    limits = limits or rate_limits_of(settings.quotas, clock)
    app = make_api(operations, idempotency, limits, settings.server.trusted_proxies)
    asked = _console_operations(settings, connection, operations, kafka)
    _add_console(app, make_console(asked, limits, Sessions(keyring, clock, draw), idempotency))

    async def close(_: web.Application) -> None:
        await sender.close()
        await kafka.stop()

    app.on_cleanup.append(close)
    return app


def _add_console(app: web.Application, console: web.Application) -> None:
    app.add_subapp(HOME, console)

    async def to_console(_: web.Request) -> web.Response:
        return web.Response(status=303, headers={"Location": HOME})

    app.router.add_get("/", to_console)


def _operations(
    settings: Settings,
    connection: Connection,
    catalogue: Catalogue,
    kafka: LateKafka,
    sender: Sender,
) -> Operations:
    clock, keyring, send = SystemClock(), Keyring(settings.encryption_keys), settings.send
    names = TopicNames(settings.topics.prefix, settings.topics.tiers)
    store = MongoWebhooks(connection.webhooks)
    pages, log_writer = MongoDeliveryPages(connection.deliveries), MongoDeliveryLog(connection.deliveries)
    audit = Audit(MongoAudit(connection.audit), clock, draw)
    replays = Replays(MongoReplays(connection.replays), store, clock, draw, audit=audit)
    return Operations(
        webhooks=Webhooks(
            store,
            clock,
            address_policy_of(settings),
            keyring,
            draw,
            known_types=lambda: catalogue.types,
            audit=audit,
            most=settings.quotas.webhooks,
        ),
        deliveries=Deliveries(pages, store),
        keys=ApiKeys(MongoApiKeys(connection.api_keys), clock, draw, audit=audit, most=settings.quotas.api_keys),
        audit=audit,
        catalogue=catalogue,
        tests=EventTests(
            store,
            catalogue,
            sender,
            log_writer,
            keyring,
            clock,
            draw,
            send.user_agent,
            limits=EventTestLimits(clock, per_minute=settings.quotas.test_events_per_minute),
            audit=audit,
        ),
        rotation=SecretRotation(store, clock, keyring, draw, audit=audit),
        redeliveries=Redeliveries(store, pages, log_writer, kafka, kafka, names, clock, draw, audit=audit),
        replays=replays,
        letters=DeadLetters(MongoFailedDeliveries(connection.deliveries), replays, clock, audit=audit),
    )


def _console_operations(
    settings: Settings, connection: Connection, operations: Operations, kafka: LateKafka
) -> ConsoleOperations:
    clock, tiers = SystemClock(), settings.topics.tiers
    statistics = MongoDeliveryStatistics(connection.deliveries)
    return ConsoleOperations(
        keys=operations.keys,
        webhooks=operations.webhooks,
        deliveries=operations.deliveries,
        catalogue=operations.catalogue,
        tests=operations.tests,
        rotation=operations.rotation,
        redeliveries=operations.redeliveries,
        inspections=Inspections(kafka, settings.send.user_agent),
        replays=operations.replays,
        letters=operations.letters,
        overviews=Overviews(MongoWebhooks(connection.webhooks), statistics, clock, tiers),
        clock=clock,
        tiers=tiers,
    )


async def mongo_readiness(connection: Connection) -> Mapping[str, str | None]:
    """Say whether MongoDB answers; takes `PING_SECONDS` at most."""
    try:
        async with asyncio.timeout(PING_SECONDS):
            await connection.ping()
    except UnavailableError as error:
        return {"mongo": str(error)}
    except TimeoutError:
        return {"mongo": f"MongoDB hasn't answered within {PING_SECONDS:g} s"}
    return {"mongo": None}


def make_api_operations(connection: Connection) -> web.Application:
    """Make the metrics port's application of an API process."""
    metrics = Metrics()
    checks: dict[str, str | None] = {}
    metrics.show_readiness(lambda: checks)

    async def page() -> bytes:
        checks.update(await mongo_readiness(connection))
        return metrics.page()

    return make_operations_app(lambda: True, lambda: mongo_readiness(connection), page)


@asynccontextmanager
async def serve_api(settings: Settings) -> AsyncIterator[int]:
    """Serve API and metrics page for the time of the `async with`.

    Yields:
        The API's port.
    """
    server = settings.server
    async with mongo_connection(settings) as connection:
        operations = make_api_operations(connection)
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
    allow_open_files()
    configure(settings.log)

    async def serve() -> None:
        stopped = asyncio.Event()
        call_on_signals(stopped.set)
        async with serve_api(settings):
            await stopped.wait()

    uvloop.run(serve())
    return 0
