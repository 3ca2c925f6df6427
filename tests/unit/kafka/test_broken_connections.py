"""What aiokafka learns of a connection that broke a moment ago, on the loop that the service runs on."""

import asyncio
import inspect

import pytest
import uvloop
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest

from dispatcher.kafka.broken_connections import SENDING, _telling, mend


async def _send_on_a_broken_connection(how: str) -> BaseException | None:
    """Break a connection and send before its reader had its turn; return what that raised."""
    closed = asyncio.Event()

    async def serve(_reader, writer):
        await closed.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    connection = AIOKafkaConnection(host, port)
    await connection.connect()
    connection._read_task.cancel()  # it would learn of it too soon
    connection._writer.transport.abort()
    for _ in range(3):
        await asyncio.sleep(0)
    try:
        if how == "send":
            connection.send(MetadataRequest([]))
        else:
            connection._send_sasl_token(b"token")
    except (RuntimeError, KafkaConnectionError) as error:
        assert not connection.connected()
        return error
    finally:
        connection.close()
        closed.set()
        server.close()
    return None


@pytest.mark.parametrize("how", ["send", "sasl"])
def test_a_connection_that_just_broke_is_told_as_broken(monkeypatch, how):
    """Sending on it raises aiokafka's own error, which its tasks outlive, and closes it."""

    async def no_lookup(connection):
        connection._versions = {3: (0, 5)}

    monkeypatch.setattr(AIOKafkaConnection, "_do_version_lookup", no_lookup)
    error = uvloop.run(_send_on_a_broken_connection(how))
    assert isinstance(error, KafkaConnectionError), error
    assert "broken" in str(error)


def test_what_is_no_broken_connection_is_told_as_it_is():
    """A request that can't be made at all, of whatever kind of RuntimeError, doesn't pass for a broken connection."""

    def send(_connection):
        raise NotImplementedError("Support for MetadataRequest v90 has not yet been added")

    with pytest.raises(NotImplementedError):
        _telling(send)(None)


def test_it_is_mended_once():
    """Mending again wraps nothing twice; what is mended is all that writes."""
    before = [getattr(AIOKafkaConnection, name) for name in SENDING]
    mend()
    assert [getattr(AIOKafkaConnection, name) for name in SENDING] == before
    assert inspect.getsource(AIOKafkaConnection).count("self._writer.write(") == len(SENDING)
