"""Absence: which errors mean that MongoDB is out of reach."""

import pytest
from pymongo.errors import (
    AutoReconnect,
    ConfigurationError,
    DuplicateKeyError,
    ExecutionTimeout,
    NetworkTimeout,
    NotPrimaryError,
    OperationFailure,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
    WriteConcernError,
    WTimeoutError,
)

from dispatcher.core.errors import UnavailableError
from dispatcher.mongo.absence import is_broken_connection, unavailable_errors

ABSENT = [
    AutoReconnect("x"),
    ServerSelectionTimeoutError("x"),
    NetworkTimeout("x"),
    NotPrimaryError("x"),
    WaitQueueTimeoutError("x"),
    ExecutionTimeout("x", 50),
    WTimeoutError("x", 64),
    WriteConcernError("x", 100),
    OperationFailure("stepped down", 189),
    OperationFailure("not allowed", 13),
    OperationFailure("disk full", 14031),
    OperationFailure("labelled", 1, {"errorLabels": ["RetryableWriteError"]}),
]


@pytest.mark.parametrize("error", ABSENT, ids=lambda error: type(error).__name__)
def test_absence_is_told_as_unavailable(error):
    """Lost connections, elections, time-outs and refused log-ins become UnavailableError, with the cause."""
    with pytest.raises(UnavailableError, match="DISPATCHER_MONGO_URI") as caught, unavailable_errors():
        raise error
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error", [DuplicateKeyError("x", 11000), OperationFailure("bad value", 2), ConfigurationError("x"), KeyError("x")]
)
def test_other_errors_pass(error):
    """What MongoDB says of the request itself, and faults of our own, stay what they are."""
    with pytest.raises(type(error)), unavailable_errors():
        raise error


def test_only_a_broken_connection_is_tried_again_at_once():
    """An error that took its time-out to come is no reason to wait that long again."""
    assert is_broken_connection(AutoReconnect("reset by peer"))
    assert not is_broken_connection(NetworkTimeout("x"))
    assert not is_broken_connection(ServerSelectionTimeoutError("x"))
