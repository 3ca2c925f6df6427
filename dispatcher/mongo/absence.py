"""The one place that decides which of pymongo's errors mean that MongoDB is out of reach."""

from collections.abc import Iterator
from contextlib import contextmanager

from pymongo.errors import (
    ConnectionFailure,
    ExecutionTimeout,
    NetworkTimeout,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WriteConcernError,
)

from dispatcher.core.errors import UnavailableError

_TRANSIENT_CODES = frozenset(
    {
        6,  # HostUnreachable
        7,  # HostNotFound
        13,  # Unauthorized: an administrator mends it; what was to be written must not be lost meanwhile
        18,  # AuthenticationFailed: likewise
        24,  # LockTimeout
        50,  # MaxTimeMSExpired
        64,  # WriteConcernTimeout
        79,  # UnknownReplWriteConcern
        89,  # NetworkTimeout
        91,  # ShutdownInProgress
        100,  # UnsatisfiableWriteConcern
        112,  # WriteConflict
        133,  # FailedToSatisfyReadPreference
        134,  # ReadConcernMajorityNotAvailableYet
        189,  # PrimarySteppedDown
        202,  # NetworkInterfaceExceededTimeLimit
        262,  # ExceededTimeLimit
        317,  # ConnectionPoolExpired
        391,  # ReauthenticationRequired
        9001,  # SocketException
        10058,  # LegacyNotPrimary
        10107,  # NotWritablePrimary
        11600,  # InterruptedAtShutdown
        11602,  # InterruptedDueToReplStateChange
        13388,  # StaleConfig
        13435,  # NotPrimaryNoSecondaryOk
        13436,  # NotPrimaryOrSecondary
        14031,  # OutOfDiskSpace
    }
)


def is_transient_code(code: int | None) -> bool:
    """Say whether a server's error code speaks of the server's state, and not of what it was asked to do."""
    return code in _TRANSIENT_CODES


def is_absence(error: BaseException) -> bool:
    """Say whether an error means that MongoDB is out of reach, so that trying again later is right."""
    if isinstance(error, (ConnectionFailure, ExecutionTimeout, WriteConcernError)):
        return True
    if not isinstance(error, PyMongoError):
        return False
    if isinstance(error, OperationFailure) and is_transient_code(error.code):
        return True
    return error.timeout or error.has_error_label("RetryableWriteError")


def is_broken_connection(error: BaseException) -> bool:
    """Say whether only a connection broke, as after a restart, so that trying again at once costs no waiting."""
    waited = (NetworkTimeout, ServerSelectionTimeoutError)
    return isinstance(error, ConnectionFailure) and not isinstance(error, waited)


@contextmanager
def unavailable_errors() -> Iterator[None]:
    """Turn whatever means that MongoDB is out of reach into `UnavailableError`; let all else pass.

    Raises:
        UnavailableError: MongoDB is out of reach; what was asked for may or may not have been done.
    """
    try:
        yield
    except PyMongoError as error:
        if not is_absence(error):
            raise
        raise UnavailableError(
            f"MongoDB is out of reach ({type(error).__name__}: {str(error)[:200]}); "
            "check DISPATCHER_MONGO_URI and that the replica set has a primary"
        ) from error
