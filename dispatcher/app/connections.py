"""Connections built from the settings, each closed at the end of its `async with`."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from dispatcher.core.addresses import AddressPolicy
from dispatcher.core.errors import DispatcherError, SettingsError
from dispatcher.http.sender import Sender
from dispatcher.kafka.producer import KafkaProducer
from dispatcher.mongo.client import Connection, connect, ensure_indexes
from dispatcher.ports import Tracer
from dispatcher.settings import Settings

RECORD_MARGIN_BYTES = 65_536
"""What the own headers of a record may add to an event."""


@asynccontextmanager
async def mongo_connection(settings: Settings) -> AsyncIterator[Connection]:
    """Connect to MongoDB, make sure that it answers and has the indexes.

    Raises:
        UnavailableError: MongoDB is out of reach.
        SettingsError: The connection string can't be used.
    """
    try:
        connection = connect(settings.mongo)
    except DispatcherError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever the driver raises for a bad address; its types stay in mongo
        # The driver's own words may hold parts of the address, and so a password.
        raise SettingsError(
            [f"DISPATCHER_MONGO_URI can't be used ({type(error).__name__}); check its host, options and escapes"]
        ) from None
    try:
        await connection.ping()
        await ensure_indexes(connection, settings.mongo)
        yield connection
    finally:
        connection.close()


@contextmanager
def tracer_of(settings: Settings) -> Iterator[Tracer | None]:
    """Give what makes spans, or None where none are wanted.

    Raises:
        SettingsError: They are wanted, and OpenTelemetry isn't installed.
    """
    if not settings.tracing:
        yield None
        return
    try:
        # Not a dependency: it and what it needs are imported only where it is asked for.
        from dispatcher.app.tracing import exporting_tracer  # noqa: PLC0415
    except ModuleNotFoundError as error:
        missing = f"DISPATCHER_TRACING is true, but {error.name} isn't installed"
        raise SettingsError([f"{missing}: pip install 'webhook-dispatcher[otel]', or set it to false"]) from None
    with exporting_tracer() as tracer:
        yield tracer


def producer_of(settings: Settings) -> KafkaProducer:
    """Make a producer, not connected yet."""
    return KafkaProducer(
        settings.kafka, max_record_bytes=settings.topics.max_event_bytes + RECORD_MARGIN_BYTES, compression="zstd"
    )


def address_policy_of(settings: Settings) -> AddressPolicy:
    """Give the operator's rules for endpoints: the same at registration and where a connection is made."""
    send = settings.send
    return AddressPolicy(send.allow_http, send.allowed_networks, send.allowed_ports, send.forbidden_networks)


def sender_of(settings: Settings) -> Sender:
    """Make a sender under the operator's guard, within the running loop.

    Raises:
        SettingsError: The egress proxy has another form.
    """
    send = settings.send
    return Sender(
        address_policy_of(settings),
        ca_bundle=send.ca_bundle,
        egress_proxy=send.egress_proxy,
    )


@asynccontextmanager
async def kafka_producer(settings: Settings) -> AsyncIterator[KafkaProducer]:
    """Connect a producer; at the end, what is under way is waited for.

    Raises:
        UnavailableError: Kafka is out of reach.
        MisconfiguredError: It refuses the credentials.
    """
    producer = producer_of(settings)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()
