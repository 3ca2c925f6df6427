"""A connection that broke is told as broken, on uvloop as well.

Between the breaking of a connection and aiokafka's learning of it, asyncio's own transport takes bytes and drops them;
uvloop's raises a RuntimeError, of which aiokafka knows nothing: the task that sent ends for good, and with it the
member, the producer, the process.

Source: https://github.com/aio-libs/aiokafka/issues/1038 (open).
"""

import functools
from collections.abc import Callable
from typing import Any

from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError

SENDING = ("send", "_send_sasl_token")


def mend() -> None:
    """Let every connection of aiokafka do so; doing it once more changes nothing."""
    for name in SENDING:
        send = getattr(AIOKafkaConnection, name)
        if not hasattr(send, "__wrapped__"):
            setattr(AIOKafkaConnection, name, _telling(send))


def _telling(send: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(send)
    def telling(connection: AIOKafkaConnection, *args: Any, **named: Any) -> Any:
        try:
            return send(connection, *args, **named)
        except RuntimeError as error:
            if type(error) is not RuntimeError:
                raise  # such as a request that the broker no longer takes, which no other connection mends
            connection.close(reason=CloseReason.CONNECTION_BROKEN, exc=error)
            text = f"Connection at {connection.host}:{connection.port} broken: {error}"
            raise KafkaConnectionError(text) from error

    return telling
