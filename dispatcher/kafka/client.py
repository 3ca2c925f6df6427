"""How every Kafka client here is set up, and what its errors mean."""

import asyncio
import contextlib
from enum import Enum
from typing import Any

import structlog
from aiokafka import errors
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import create_conn
from aiokafka.helpers import create_ssl_context

from dispatcher.core.errors import DispatcherError, MisconfiguredError, UnavailableError
from dispatcher.settings import KafkaSettings

METADATA_MAX_AGE_MS = 60_000
"""How late new partitions, and new topics of a pattern, are noticed at most."""

UNKNOWN_TOPIC_GRACE_SECONDS = 30.0
"""How long a topic may be unknown before that counts as settled: brokers learn of new topics one by one."""

CLOSE_SECONDS = 2.0
"""What closing a client's connections may take."""

log = structlog.get_logger(__name__)


class ErrorKind(Enum):
    """What an error from Kafka asks for."""

    RETRIABLE = "wait and try again, for as long as it takes"
    RECORD = "this record will never be accepted; others are not concerned"
    MISCONFIGURED = "nothing will be accepted until somebody mends the cluster or the settings"


_RECORD = (
    errors.MessageSizeTooLargeError,
    errors.RecordListTooLargeError,
    errors.RecordTooLargeError,
    TypeError,
    ValueError,
)
_MISCONFIGURED = (
    errors.TopicAuthorizationFailedError,
    errors.GroupAuthorizationFailedError,
    errors.ClusterAuthorizationFailedError,
    errors.SaslAuthenticationFailed,
    errors.AuthenticationFailedError,
    errors.AuthenticationMethodNotSupported,
    errors.UnsupportedSaslMechanismError,
    errors.IllegalSaslStateError,
    errors.SecurityDisabled,
    errors.InvalidTopicError,
    errors.InvalidGroupIdError,
    errors.InvalidSessionTimeoutError,
    errors.InconsistentGroupProtocolError,
    errors.InvalidRequiredAcksError,
    errors.InvalidReplicationFactorError,
    errors.InvalidConfigurationError,
    errors.PolicyViolationError,
    errors.UnsupportedVersionError,
    errors.IncompatibleBrokerVersion,
    errors.KafkaConfigurationError,
)


def kind_of(
    error: BaseException, *, waited_seconds: float = 0.0, grace_seconds: float = UNKNOWN_TOPIC_GRACE_SECONDS
) -> ErrorKind:
    """Sort an error of aiokafka into what it asks for.

    Whatever isn't known to be permanent is worth waiting out: aiokafka has no class for newer error codes, and
    a record that waits is not lost. So is a refused timestamp: it is this machine's clock that is wrong, for every
    record alike, and each try has the time anew.

    Args:
        error: What was raised.
        waited_seconds: For how long it has been so.
        grace_seconds: After how long an unknown topic counts as settled.
    """
    if isinstance(error, _MISCONFIGURED):
        return ErrorKind.MISCONFIGURED
    if isinstance(error, errors.UnknownTopicOrPartitionError):
        return ErrorKind.MISCONFIGURED if waited_seconds >= grace_seconds else ErrorKind.RETRIABLE
    if isinstance(error, _RECORD):
        return ErrorKind.RECORD
    return ErrorKind.RETRIABLE


def as_dispatcher_error(error: BaseException, doing: str) -> DispatcherError:
    """Put an error of aiokafka into this project's tree.

    Args:
        error: What was raised.
        doing: What was being done, as in `reading the topic events`.

    Returns:
        A `MisconfiguredError` or an `UnavailableError`.
    """
    text = f"Kafka, {doing}: {type(error).__name__}: {error}"
    if kind_of(error) is ErrorKind.MISCONFIGURED:
        return MisconfiguredError(f"{text}. Check the settings, the credentials and the access rights at the brokers.")
    return UnavailableError(text)


def client_arguments(settings: KafkaSettings) -> dict[str, Any]:
    """Return the arguments that every aiokafka client takes.

    Raises:
        MisconfiguredError: The certificate files can't be read.
    """
    arguments: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap_servers,
        "client_id": "webhook-dispatcher",
        "security_protocol": settings.security_protocol,
        "request_timeout_ms": settings.request_timeout_ms,
        "metadata_max_age_ms": METADATA_MAX_AGE_MS,
    }
    if settings.security_protocol.startswith("SASL"):
        arguments["sasl_mechanism"] = settings.sasl_mechanism
        arguments["sasl_plain_username"] = settings.sasl_username
        arguments["sasl_plain_password"] = settings.sasl_password
    if settings.security_protocol.endswith("SSL"):
        try:
            arguments["ssl_context"] = create_ssl_context(
                cafile=settings.ssl_cafile, certfile=settings.ssl_certfile, keyfile=settings.ssl_keyfile
            )
        except (OSError, ValueError) as error:
            raise MisconfiguredError(f"Kafka's certificate files can't be read ({error}); check their paths") from error
    return arguments


async def why_unreachable(settings: KafkaSettings, error: BaseException) -> DispatcherError:
    """Say why no client could be started: aiokafka itself hides refused credentials behind "unable to bootstrap".

    Args:
        settings: Where it tried.
        error: What it raised.
    """
    arguments = client_arguments(settings)
    client = AIOKafkaClient(**arguments)
    del arguments["bootstrap_servers"], arguments["metadata_max_age_ms"]
    for host, port, _ in client.hosts:
        try:
            connection = await create_conn(host, port, **arguments)
        except (errors.KafkaError, OSError, TimeoutError) as refusal:
            if kind_of(refusal) is ErrorKind.MISCONFIGURED:
                return as_dispatcher_error(refusal, f"connecting to {host}:{port}")
        else:
            connection.close()
    return UnavailableError(f"Kafka at {settings.bootstrap_servers} is out of reach: {error}")


async def started_client(settings: KafkaSettings) -> AIOKafkaClient:
    """Return a connected client of the lowest level, for requests of one's own.

    Raises:
        UnavailableError: Kafka is out of reach.
        MisconfiguredError: It refuses the credentials.
    """
    client = AIOKafkaClient(**client_arguments(settings))
    try:
        await client.bootstrap()
    except errors.KafkaError as error:
        await client.close()
        raise await why_unreachable(settings, error) from error
    except BaseException:
        await client.close()
        raise
    return client


async def bounded(step: Any, seconds: float, what: str) -> bool:
    """Run a closing step for at most some seconds; what it raises is logged, for nothing can be done about it.

    Returns:
        Whether it ended in time.
    """
    task = asyncio.ensure_future(step)
    done, _ = await asyncio.wait({task}, timeout=seconds)
    if not done:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            # A step that swallows its cancellation is left behind.
            await asyncio.wait({task}, timeout=seconds)
        log.warning("closing took too long and was given up", step=what, seconds=seconds)
        return False
    if not task.cancelled() and (error := task.exception()) is not None:
        log.warning("closing failed", step=what, error=repr(error))
    return True
